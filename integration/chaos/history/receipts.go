package history

import "fmt"

// falseReceipts finds receipts that say of more gateways that they enforce a
// revocation than had received it by then. Of a jti only the first event counts:
// who has received a later one cannot be told from a response.
func falseReceipts(h History) (wrong []string) {
	first, asked := map[string]Event{}, map[string]bool{}
	for _, e := range h.Events {
		if _, known := first[e.JTI]; !known {
			first[e.JTI] = e
			asked[e.JTI] = e.Enforced > 0
		}
	}
	had := map[string]map[int]bool{}
	for _, r := range h.Responses {
		for _, jti := range r.Added {
			if !asked[jti] || r.At > first[jti].Told {
				continue
			}
			if had[jti] == nil {
				had[jti] = map[int]bool{}
			}
			had[jti][r.Gateway] = true
		}
	}
	for _, e := range h.Events {
		if asked[e.JTI] && e == first[e.JTI] && e.Enforced > len(had[e.JTI]) {
			wrong = append(wrong, fmt.Sprintf("%s: at %s %d gateways are said to enforce it, and %d had it",
				e.JTI, short(e.Told), e.Enforced, len(had[e.JTI])))
		}
	}
	return wrong
}
