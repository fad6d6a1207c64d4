package revocation

import (
	"cmp"
	"slices"
	"strings"
)

// keptEvents is how many events a record remembers by id.
const keptEvents = 4

// Merge joins what two events, deliveries or replicas say of one key. It is
// pure, and any order and repetition of events ends in the same record:
//
//   - the later event decides the state, and revoked wins a tie;
//   - an event that came more than once counts at its first time, whichever copy
//     is seen first, and with what that copy says of it;
//   - the expiry is the greatest ever seen, and so is the lifetime;
//   - a rule covers what was issued before the latest time that any event named;
//   - what two tenants say, or one and nobody, is of no tenant: it is told to all;
//   - what has no time (a full sync) creates or extends, and never overturns.
//
// Both must be of the same key.
func Merge(a, b Revocation) Revocation {
	if b.describes(a) > 0 {
		a, b = b, a
	}
	merged := a // what else the record says is the greater of the two
	if a.Tenant != b.Tenant {
		merged.Tenant = "" // of more than one, or of nobody knows whom: it concerns all
	}
	merged.Expiry, merged.Lifetime = mergeExpiry(a, b)
	merged.Before = max(a.Before, b.Before)
	merged.Events = mergeEvents(a.statements(), b.statements())
	last := merged.Events[0]
	merged.Time, merged.State = last.Time, last.State
	if len(merged.Events) == 1 && last.ID == "" {
		merged.Events = nil // Time and State say it
	}
	return merged
}

// Equal says whether a and b are the same record.
func Equal(a, b Revocation) bool {
	return a.Domain == b.Domain && a.Tenant == b.Tenant && a.Digest == b.Digest && a.Expiry == b.Expiry && a.Lifetime == b.Lifetime &&
		a.Before == b.Before && a.Time == b.Time && a.State == b.State && a.describes(b) == 0 && slices.Equal(a.Events, b.Events)
}

// describes is a total order on what a record says beside state and times, so
// that it falls the same way on every replica.
func (r Revocation) describes(other Revocation) int {
	return cmp.Or(
		cmp.Compare(r.Kind, other.Kind),
		strings.Compare(r.Source, other.Source),
		strings.Compare(r.Reason, other.Reason),
		strings.Compare(r.Key, other.Key),
	)
}

// statements are the events of r, the newest first. What has no id is one of
// them, without.
func (r Revocation) statements() []Event {
	if len(r.Events) > 0 {
		return r.Events
	}
	return []Event{{Time: r.Time, State: r.State}}
}

// mergeExpiry is the greatest. Only a repeat of events that are known extends
// nothing unknown: that is dated from when it came.
func mergeExpiry(a, b Revocation) (int64, Lifetime) {
	if a.Lifetime == Unknown && b.Lifetime == Unknown {
		switch aRepeats, bRepeats := a.repeats(b), b.repeats(a); {
		case aRepeats && bRepeats && len(a.Events) == 1:
			return min(a.Expiry, b.Expiry), Unknown
		case aRepeats && !bRepeats:
			return b.Expiry, Unknown
		case bRepeats && !aRepeats:
			return a.Expiry, Unknown
		}
	}
	return max(a.Expiry, b.Expiry), max(a.Lifetime, b.Lifetime)
}

// repeats says whether record lists every event of r.
func (r Revocation) repeats(record Revocation) bool {
	for _, e := range r.Events {
		if e.ID == "" || !slices.ContainsFunc(record.Events, e.same) {
			return false
		}
	}
	return len(r.Events) > 0
}

// order tells copies of one event apart, the one that counts first. The texts
// are compared last: they decide nothing, but must fall the same way everywhere.
func (e Event) order(other Event) int {
	return cmp.Or(
		cmp.Compare(e.Time, other.Time),
		cmp.Compare(other.State, e.State),
		strings.Compare(e.Source, other.Source),
		strings.Compare(e.Actor, other.Actor),
		strings.Compare(e.Reason, other.Reason),
	)
}

// same says whether two are copies of one event.
func (e Event) same(other Event) bool { return e.ID == other.ID }

// mergeEvents returns the events of both, the newest first: those with an id at
// their first time, the last four of them, and of all others the one that would
// decide.
func mergeEvents(a, b []Event) []Event {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(x, y Event) int {
		return cmp.Or(strings.Compare(x.ID, y.ID), x.order(y))
	})
	all = slices.CompactFunc(all, func(x, y Event) bool { return x.ID != "" && x.same(y) })
	newestFirst := func(x, y Event) int {
		return cmp.Or(cmp.Compare(y.Time, x.Time), cmp.Compare(y.State, x.State), strings.Compare(x.ID, y.ID))
	}
	slices.SortFunc(all, newestFirst)
	kept, named, others := all[:0:0], 0, false
	for _, e := range all {
		if e.ID != "" && named < keptEvents {
			named++
			kept = append(kept, e)
		} else if !others {
			others = true
			kept = append(kept, Event{Time: e.Time, State: e.State})
		}
	}
	slices.SortFunc(kept, newestFirst) // what is without an id now may tie with another
	return kept
}
