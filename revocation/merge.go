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
//   - the expiry is the greatest ever seen, and so is the lifetime;
//   - an event whose id is already listed changes nothing;
//   - what has no time (a full sync) creates or extends, and never overturns.
//
// Both must be of the same key.
func Merge(a, b Revocation) Revocation {
	if sameEvent(a, b) {
		return first(a, b)
	}
	if repeats(b, a) {
		return a
	}
	if repeats(a, b) {
		return b
	}
	merged := a
	if order(a, b) < 0 {
		merged = b
	}
	merged.Expiry = max(a.Expiry, b.Expiry)
	merged.Lifetime = max(a.Lifetime, b.Lifetime)
	merged.Events = lastEvents(a.Events, b.Events)
	return merged
}

// Equal says whether a and b are the same record.
func Equal(a, b Revocation) bool {
	return a.Domain == b.Domain && a.Digest == b.Digest && a.Expiry == b.Expiry &&
		a.Lifetime == b.Lifetime && order(a, b) == 0 && slices.Equal(a.Events, b.Events)
}

// sameEvent says whether a and b are one event that its publisher sent twice.
func sameEvent(a, b Revocation) bool {
	return single(a) && single(b) && a.Events[0].ID == b.Events[0].ID && a.Time != b.Time
}

// single says whether r is one event, with an id, and nothing later.
func single(r Revocation) bool {
	return len(r.Events) == 1 && r.Events[0].Time == r.Time
}

// first keeps the copy of an event that arrived first. The hub dates an event
// when it stores it, so the second copy looks later and must not count as such:
// an approval between the two would be overturned.
func first(a, b Revocation) Revocation {
	if b.Time < a.Time {
		a, b = b, a
	}
	if a.Lifetime != Unknown || b.Lifetime != Unknown {
		a.Expiry = max(a.Expiry, b.Expiry)
		a.Lifetime = max(a.Lifetime, b.Lifetime)
	}
	return a
}

// repeats says whether r is a single event that record already lists among
// others.
func repeats(r, record Revocation) bool {
	return single(r) && !single(record) &&
		slices.ContainsFunc(record.Events, func(e Event) bool { return e.ID == r.Events[0].ID })
}

// order is a total order on what a deciding event says, so that a tie in time
// and state falls the same way on every replica.
func order(a, b Revocation) int {
	return cmp.Or(
		cmp.Compare(a.Time, b.Time),
		cmp.Compare(a.State, b.State),
		cmp.Compare(a.Kind, b.Kind),
		strings.Compare(a.Tenant, b.Tenant),
		strings.Compare(a.Source, b.Source),
		strings.Compare(a.Reason, b.Reason),
		strings.Compare(a.Key, b.Key),
	)
}

// lastEvents returns the newest of both lists, each id once, at its first time.
func lastEvents(a, b []Event) []Event {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(x, y Event) int {
		return cmp.Or(strings.Compare(x.ID, y.ID), cmp.Compare(x.Time, y.Time))
	})
	all = slices.CompactFunc(all, func(x, y Event) bool { return x.ID == y.ID })
	slices.SortFunc(all, func(x, y Event) int {
		return cmp.Or(cmp.Compare(y.Time, x.Time), strings.Compare(x.ID, y.ID))
	})
	return all[:min(len(all), keptEvents)]
}
