package history

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"revocation-adapter/revocation"
)

// Verdict is what is wrong with a history. Each entry is one fault, in words.
type Verdict struct {
	Lost        []string // jtis that are revoked, and that the hub or a gateway does not refuse
	False       []string // jtis that the hub or a gateway refuses, and that are not revoked
	Regressions []string // responses with a version below one that the gateway had before
	Diverged    []string // delta gateways whose set is not the true one
	Receipts    []string // that name more gateways than had the revocation
	Unacked     int      // events that were never acknowledged
	Delays      []Delay
}

// Delay is the longest time from an acknowledgement to the last gateway.
type Delay struct {
	Kind   string // of the fault meanwhile; "" is none
	Faults int    // how often it happened
	Events int
	Worst  time.Duration
	Event  string // the one that took longest
}

// Passed says whether nothing is wrong.
func (v Verdict) Passed() bool {
	return len(v.Lost)+len(v.False)+len(v.Regressions)+len(v.Diverged)+len(v.Receipts)+v.Unacked == 0
}

// Check judges a history at its end.
//
// Tokens that have expired by then, grace included, are left out: whether they
// are still held says nothing. A jti with an event that was never acknowledged
// may be in either state, so that only the hub's own word on it counts.
func Check(h History) Verdict {
	c := checker{h: h, keys: keysOf(h), held: make([]map[string]bool, len(h.Gateways))}
	c.v.Regressions = c.replay()
	for _, jti := range slices.Sorted(maps.Keys(c.keys)) {
		c.judge(jti, c.keys[jti])
	}
	c.strangers()
	c.v.Diverged = c.diverged()
	c.v.Receipts = falseReceipts(h)
	c.v.Delays = delays(h)
	for _, e := range h.Events {
		if e.Acked == 0 {
			c.v.Unacked++
		}
	}
	return c.v
}

// key is what is true of one jti.
type key struct {
	record   revocation.Revocation // all acknowledged events, merged
	revoked  bool                  // an event revoked it, acknowledged or not
	doubtful bool                  // an event was not acknowledged
}

// keysOf merges the events of every jti. The hub dates an event when it stores
// it, which is before the acknowledgement and after that of the event before.
func keysOf(h History) map[string]*key {
	events := slices.Clone(h.Events)
	slices.SortStableFunc(events, func(a, b Event) int { return cmp.Compare(a.Acked, b.Acked) })
	keys := map[string]*key{}
	for _, e := range events {
		k := keys[e.JTI]
		if k == nil {
			k = &key{}
			keys[e.JTI] = k
		}
		k.revoked = k.revoked || e.State == revocation.Revoked
		if e.Acked == 0 {
			k.doubtful = true
			continue
		}
		at := h.Began.Add(e.Acked).UnixMicro()
		r := revocation.Revocation{
			Domain: revocation.DomainToken, Key: e.JTI, State: e.State, Expiry: e.Expiry,
			Lifetime: revocation.Dated, Time: at, Events: []revocation.Event{{ID: e.ID, Time: at, State: e.State}},
		}
		if k.record.Key != "" {
			r = revocation.Merge(k.record, r)
		}
		k.record = r
	}
	return keys
}

type checker struct {
	h    History
	keys map[string]*key
	held []map[string]bool // by gateway, at the end
	v    Verdict
}

// replay finds what every gateway holds at the end, and versions that fell.
func (c *checker) replay() (regressions []string) {
	for i := range c.held {
		c.held[i] = map[string]bool{}
	}
	newest := make([]Response, len(c.h.Gateways))
	for _, r := range c.h.Responses {
		if before := newest[r.Gateway]; r.Version < before.Version {
			regressions = append(regressions, fmt.Sprintf("%s got version %d from replica %d at %s, after %d from replica %d at %s",
				c.h.Gateways[r.Gateway].Name, r.Version, r.Replica, short(r.At), before.Version, before.Replica, short(before.At)))
		} else {
			newest[r.Gateway] = r
		}
		for _, jti := range r.Added {
			c.held[r.Gateway][jti] = true
		}
		for _, jti := range r.Removed {
			delete(c.held[r.Gateway], jti)
		}
	}
	return regressions
}

// judge compares what is true of a jti with what the hub and the gateways say.
func (c *checker) judge(jti string, k *key) {
	if k.doubtful || c.expired(k) {
		return
	}
	var wrong []string
	if c.h.Hub[jti] == revocation.Revoked != k.refused() {
		wrong = append(wrong, "the hub")
	}
	for i, g := range c.h.Gateways {
		if c.held[i][jti] == k.refused() || !g.Delta && !k.refused() {
			continue
		}
		wrong = append(wrong, g.Name)
	}
	switch {
	case len(wrong) == 0:
	case k.refused():
		c.v.Lost = append(c.v.Lost, fmt.Sprintf("%s, %s, is missing from %s", jti, c.story(jti), several(wrong)))
	case k.revoked:
		c.v.False = append(c.v.False, fmt.Sprintf("%s, %s, is refused by %s", jti, c.story(jti), several(wrong)))
	}
}

func (k *key) refused() bool { return k.record.State == revocation.Revoked }

func (c *checker) expired(k *key) bool {
	return k.record.Expired(c.h.Began.Add(c.h.End), c.h.Grace)
}

// strangers finds what is refused and was never revoked by anybody.
func (c *checker) strangers() {
	by := map[string][]string{}
	add := func(jti, who string) {
		if k := c.keys[jti]; k == nil || !k.revoked {
			by[jti] = append(by[jti], who)
		}
	}
	for jti, state := range c.h.Hub {
		if state == revocation.Revoked {
			add(jti, "the hub")
		}
	}
	for i, g := range c.h.Gateways {
		for jti := range c.held[i] {
			add(jti, g.Name)
		}
	}
	for _, jti := range slices.Sorted(maps.Keys(by)) {
		c.v.False = append(c.v.False, fmt.Sprintf("%s was never revoked, and is refused by %s", jti, several(by[jti])))
	}
}

// diverged names the delta gateways that do not hold exactly what is revoked.
func (c *checker) diverged() (names []string) {
	for i, g := range c.h.Gateways {
		if !g.Delta {
			continue
		}
		missing, extra := 0, 0
		for jti, k := range c.keys {
			if c.expired(k) {
				continue
			}
			switch want := c.wanted(jti, k); {
			case want && !c.held[i][jti]:
				missing++
			case !want && c.held[i][jti]:
				extra++
			}
		}
		for jti := range c.held[i] {
			if c.keys[jti] == nil {
				extra++
			}
		}
		if missing+extra > 0 {
			names = append(names, fmt.Sprintf("%s lacks %d and has %d too many", g.Name, missing, extra))
		}
	}
	return names
}

// wanted says whether a delta gateway should hold a jti: in doubt the hub
// decides, so that gateways must at least agree.
func (c *checker) wanted(jti string, k *key) bool {
	if k.doubtful {
		return c.h.Hub[jti] == revocation.Revoked
	}
	return k.refused()
}

// story is what was published of a jti.
func (c *checker) story(jti string) string {
	text := ""
	for _, e := range c.h.Events {
		if e.JTI == jti {
			text += fmt.Sprintf(", %s as %s at %s (acknowledged %s)", e.State, e.ID, short(e.Sent), short(e.Acked))
		}
	}
	return text[2:]
}

// several names the first few.
func several(names []string) string {
	const shown = 4
	text := fmt.Sprint(names[:min(shown, len(names))])
	if more := len(names) - shown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func short(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
