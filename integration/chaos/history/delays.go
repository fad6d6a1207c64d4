package history

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"revocation-adapter/revocation"
)

// sighting is a response that named a jti.
type sighting struct {
	at      time.Duration
	replica int
	added   bool
}

// delays measures how long events took to the last gateway. An event during
// whose way a fault held counts for that fault. One that a gateway was never
// shown, because a later event of the jti came first, does not count there.
func delays(h History) []Delay {
	seen := sightings(h)
	byKind := map[string]*Delay{"": {}}
	for _, f := range h.Faults {
		if byKind[f.Kind] == nil {
			byKind[f.Kind] = &Delay{Kind: f.Kind}
		}
		byKind[f.Kind].Faults++
	}
	for _, s := range spans(h) {
		last, where, ok := s.last(h, seen)
		if !ok {
			continue
		}
		for _, kind := range during(h.Faults, s.event.Acked, last) {
			byKind[kind].take(s.event, last, where)
		}
	}
	var all []Delay
	for _, d := range byKind {
		all = append(all, *d)
	}
	slices.SortFunc(all, func(a, b Delay) int { return cmp.Compare(a.Kind, b.Kind) })
	return all
}

func (d *Delay) take(e Event, last time.Duration, where string) {
	d.Events++
	if took := max(0, last-e.Acked); took > d.Worst || d.Event == "" {
		d.Worst = took
		d.Event = fmt.Sprintf("%s as %s, acknowledged at %s, came last to %s at %s", e.JTI, e.State, short(e.Acked), where, short(last))
	}
}

// sightings are, by gateway, what it was shown of every jti.
func sightings(h History) []map[string][]sighting {
	seen := make([]map[string][]sighting, len(h.Gateways))
	for i := range seen {
		seen[i] = map[string][]sighting{}
	}
	for _, r := range h.Responses {
		of := seen[r.Gateway]
		for _, jti := range r.Added {
			of[jti] = append(of[jti], sighting{r.At, r.Replica, true})
		}
		for _, jti := range r.Removed {
			of[jti] = append(of[jti], sighting{r.At, r.Replica, false})
		}
	}
	return seen
}

// span is an event and when it ceases to matter: the next of its jti begins, or
// the token expires, after which gateways are told when they connect anew.
type span struct {
	event Event
	until time.Duration
}

// spans are the acknowledged events, repeats left out.
func spans(h History) []span {
	var all []span
	last := map[string]int{} // by jti, in all
	known := map[string]bool{}
	events := slices.Clone(h.Events)
	slices.SortStableFunc(events, func(a, b Event) int { return cmp.Compare(a.Sent, b.Sent) })
	for _, e := range events {
		if known[e.ID] {
			continue
		}
		known[e.ID] = true
		if i, ok := last[e.JTI]; ok {
			all[i].until = min(all[i].until, e.Sent)
		}
		last[e.JTI] = len(all)
		all = append(all, span{e, time.UnixMilli(e.Expiry).Sub(h.Began)})
	}
	return slices.DeleteFunc(all, func(s span) bool { return s.event.Acked == 0 })
}

// last is when and where the event was shown last, if it ever was.
func (s span) last(h History, seen []map[string][]sighting) (at time.Duration, where string, ok bool) {
	revoked := s.event.State == revocation.Revoked
	for i, g := range h.Gateways {
		if !g.Delta && !revoked {
			continue
		}
		for _, got := range seen[i][s.event.JTI] {
			if got.at < s.event.Sent || got.added != revoked {
				continue
			}
			if got.at < s.until && got.at >= at {
				at, where, ok = got.at, fmt.Sprintf("%s of replica %d", g.Name, got.replica), true
			}
			break
		}
	}
	return at, where, ok
}

// during are the kinds of fault that held between two times, "" for none.
func during(faults []Fault, from, to time.Duration) []string {
	var kinds []string
	for _, f := range faults {
		if f.From <= to && from <= f.To && !slices.Contains(kinds, f.Kind) {
			kinds = append(kinds, f.Kind)
		}
	}
	if len(kinds) == 0 {
		kinds = []string{""}
	}
	return kinds
}
