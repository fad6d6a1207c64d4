package revocation_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"revocation-adapter/revocation"
)

// event makes one of the few events that can happen to the key in a round:
// few enough values that ties are common.
func event(rng *rand.Rand, n int) revocation.Revocation {
	r := revocation.Revocation{
		Domain: revocation.DomainToken, Key: "jti-1",
		Digest:   revocation.DigestOf(revocation.DomainToken, "jti-1"),
		State:    revocation.Approved + revocation.State(rng.IntN(2)),
		Kind:     revocation.Kind(rng.IntN(3)),
		Expiry:   int64(1000 * (1 + rng.IntN(3))),
		Lifetime: revocation.Dated + revocation.Lifetime(rng.IntN(3)),
		Time:     int64(1 + rng.IntN(4)),
		Tenant:   fmt.Sprint(rng.IntN(2)),
		Source:   "nats",
		Before:   int64(rng.IntN(3)),
	}
	if r.Lifetime == revocation.Forever {
		r.Expiry = revocation.Never
	}
	switch rng.IntN(8) {
	case 0: // a full sync: no time, no id, never an approval
		r.Time, r.State, r.Events = 0, revocation.Revoked, nil
	case 1: // an event without an id
	default:
		r.Events = []revocation.Event{{ID: fmt.Sprintf("e%d", n), Time: r.Time, State: r.State}}
		tell(rng, &r.Events[0])
	}
	return r
}

// tell has an event say something of itself, of few enough values that copies
// differ in one of them alone.
func tell(rng *rand.Rand, e *revocation.Event) {
	pick := func(texts ...string) string { return texts[rng.IntN(len(texts))] }
	e.Source, e.Actor, e.Reason = pick("http", "nats"), pick("", "alice", "bob"), pick("", "stolen", "left")
}

func fold(events []revocation.Revocation) revocation.Revocation {
	merged := events[0]
	for _, e := range events[1:] {
		merged = revocation.Merge(merged, e)
	}
	return merged
}

func TestMergeOfAnyOrderAndRepetitionIsOneRecord(t *testing.T) {
	for seed := range uint64(20_000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		events := make([]revocation.Revocation, 1+rng.IntN(8))
		for i := range events {
			events[i] = event(rng, i)
		}
		want := fold(events)
		shuffled := append([]revocation.Revocation{}, events...)
		for range rng.IntN(4) {
			shuffled = append(shuffled, events[rng.IntN(len(events))])
		}
		rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if got := fold(shuffled); !revocation.Equal(got, want) {
			t.Fatalf("seed %d: the order decides:\n got %+v\nwant %+v\n of %+v\n as %+v", seed, got, want, events, shuffled)
		}
	}
}

// A publisher that gets no answer sends its event again, and the hub dates the
// copy later. Whatever copy is handled first, the first date counts.
func TestMergeOfCopiesInAnyOrderIsOneRecord(t *testing.T) {
	for seed := range uint64(20_000) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var events []revocation.Revocation
		want := map[string]revocation.Revocation{}
		for n := range 1 + rng.IntN(4) {
			e := event(rng, n)
			e.Lifetime, e.Expiry, e.Time = revocation.Dated, 1000, int64(1+rng.IntN(8))
			e.Events = []revocation.Event{{ID: fmt.Sprint("e", n), Time: e.Time, State: e.State}}
			tell(rng, &e.Events[0])
			for range 1 + rng.IntN(3) {
				events = append(events, e)
				if first, known := want[e.Events[0].ID]; !known || e.Time < first.Time {
					want[e.Events[0].ID] = e
				}
				e.Time += int64(rng.IntN(6))
				e.Events = []revocation.Event{{ID: fmt.Sprint("e", n), Time: e.Time, State: e.State}}
				tell(rng, &e.Events[0])
			}
		}
		var last revocation.Revocation
		for _, e := range want {
			if e.Time > last.Time || e.Time == last.Time && e.State > last.State {
				last = e
			}
		}
		first := fold(events)
		for range 5 {
			rng.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
			got := fold(events)
			if got.State != last.State || got.Time != last.Time || !revocation.Equal(got, first) {
				t.Fatalf("seed %d: got %+v\nwant %s at %d\nof %+v", seed, got, last.State, last.Time, events)
			}
		}
	}
}

func TestMergeOfTwoIsCommutativeAndIdempotent(t *testing.T) {
	for seed := range uint64(20_000) {
		rng := rand.New(rand.NewPCG(seed, 2))
		a, b := event(rng, 0), event(rng, rng.IntN(2))
		ab, ba := revocation.Merge(a, b), revocation.Merge(b, a)
		if !revocation.Equal(ab, ba) {
			t.Fatalf("seed %d: merge of\n %+v\n %+v is\n %+v or\n %+v", seed, a, b, ab, ba)
		}
		if again := revocation.Merge(ab, ab); !revocation.Equal(again, ab) {
			t.Fatalf("seed %d: %+v merged with itself is %+v", seed, ab, again)
		}
	}
}

// What concerns more than one tenant, or nobody knows whom, is told to all: no
// tenant's gateway must miss it because another one revoked it too.
func TestMergeHidesNothingFromATenant(t *testing.T) {
	of := func(tenant string) revocation.Revocation {
		return revocation.Revocation{Domain: revocation.DomainToken, Key: "j", State: revocation.Revoked, Time: 1, Expiry: 1, Lifetime: revocation.Dated, Tenant: tenant}
	}
	for _, tt := range []struct {
		tenants []string
		want    string
	}{
		{[]string{"acme", "acme"}, "acme"},
		{[]string{"acme", "zeta"}, ""},
		{[]string{"", "zeta"}, ""},
		{[]string{"acme", "zeta", "acme"}, ""},
	} {
		merged := of(tt.tenants[0])
		for _, tenant := range tt.tenants[1:] {
			if got, other := revocation.Merge(merged, of(tenant)), revocation.Merge(of(tenant), merged); !revocation.Equal(got, other) {
				t.Errorf("%v: %+v or %+v", tt.tenants, got, other)
			}
			merged = revocation.Merge(merged, of(tenant))
		}
		if merged.Tenant != tt.want {
			t.Errorf("%v: of tenant %q, want %q", tt.tenants, merged.Tenant, tt.want)
		}
	}
	if revocation.Equal(of("acme"), of("")) {
		t.Error("a record that becomes everybody's is not written")
	}
}

func TestMerge(t *testing.T) {
	const hour = int64(3600_000)
	at := func(state revocation.State, time int64, ids ...string) revocation.Revocation {
		r := revocation.Revocation{
			Domain: revocation.DomainToken, Key: "j", State: state, Time: time,
			Expiry: hour, Lifetime: revocation.Dated,
		}
		for _, id := range ids {
			r.Events = append(r.Events, revocation.Event{ID: id, Time: time, State: state})
		}
		return r
	}
	unknown := func(r revocation.Revocation, expiry int64) revocation.Revocation {
		r.Lifetime, r.Expiry = revocation.Unknown, expiry
		return r
	}
	fullSync := at(revocation.Revoked, 0)
	approved := revocation.Merge(at(revocation.Revoked, 1, "r1"), at(revocation.Approved, 2, "a1"))

	tests := []struct {
		name   string
		a, b   revocation.Revocation
		state  revocation.State
		expiry int64
		life   revocation.Lifetime
	}{
		{"the later approval wins", at(revocation.Revoked, 1), at(revocation.Approved, 2), revocation.Approved, hour, revocation.Dated},
		{"a late older approval loses", at(revocation.Revoked, 2), at(revocation.Approved, 1), revocation.Revoked, hour, revocation.Dated},
		{"revoked wins a tie", at(revocation.Approved, 2), at(revocation.Revoked, 2), revocation.Revoked, hour, revocation.Dated},
		{"a full sync overturns no approval", approved, fullSync, revocation.Approved, hour, revocation.Dated},
		{"a revocation after an approval counts", approved, at(revocation.Revoked, 3, "r2"), revocation.Revoked, hour, revocation.Dated},
		{"a retry of the first revocation does not", approved, at(revocation.Revoked, 9, "r1"), revocation.Approved, hour, revocation.Dated},
		{"the second copy of an event is not later", at(revocation.Revoked, 1, "r1"), at(revocation.Revoked, 9, "r1"), revocation.Revoked, hour, revocation.Dated},
		{"unknown outlives dated", at(revocation.Revoked, 1), unknown(at(revocation.Revoked, 0), 2*hour), revocation.Revoked, 2 * hour, revocation.Unknown},
		{"unknown never shortens dated", unknown(at(revocation.Revoked, 1), 1), at(revocation.Revoked, 2), revocation.Revoked, hour, revocation.Unknown},
		{"a retry extends nothing unknown", unknown(at(revocation.Revoked, 1, "r1"), hour), unknown(at(revocation.Revoked, 2, "r1"), 2*hour), revocation.Revoked, hour, revocation.Unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, got := range []revocation.Revocation{revocation.Merge(tt.a, tt.b), revocation.Merge(tt.b, tt.a)} {
				if got.State != tt.state || got.Expiry != tt.expiry || got.Lifetime != tt.life {
					t.Errorf("got %s until %d (%s), want %s until %d (%s)",
						got.State, got.Expiry, got.Lifetime, tt.state, tt.expiry, tt.life)
				}
			}
		})
	}
}

// Two copies of one event that say different things of it end as one, and so do
// three, in any order. Of an event that is no longer listed nothing is kept.
func TestMergeOfCopiesThatSayDifferentThings(t *testing.T) {
	of := func(time int64, actor string) revocation.Revocation {
		return revocation.Revocation{
			Domain: revocation.DomainToken, Key: "j", State: revocation.Revoked, Time: time, Expiry: 1, Lifetime: revocation.Dated,
			Events: []revocation.Event{{ID: "e1", Time: time, State: revocation.Revoked, Actor: actor, Reason: "of " + actor}},
		}
	}
	first, second, third := of(1, "zoe"), of(2, "alice"), of(2, "bob")
	for _, order := range [][]revocation.Revocation{{first, second, third}, {third, second, first}, {second, first, third, second}} {
		got := fold(order)
		if len(got.Events) != 1 || got.Events[0] != first.Events[0] {
			t.Errorf("got %+v, want the first copy's %+v", got.Events, first.Events)
		}
	}
	if a, b := fold([]revocation.Revocation{second, third}), fold([]revocation.Revocation{third, second}); !revocation.Equal(a, b) {
		t.Errorf("of the same time: %+v or %+v", a.Events, b.Events)
	}
	if revocation.Equal(second, third) {
		t.Error("two records are equal that say different things of an event")
	}
}

func TestMergeRemembersTheLastFourEvents(t *testing.T) {
	merged := revocation.Revocation{Domain: revocation.DomainToken, Key: "j", State: revocation.Revoked}
	for i := range 6 {
		merged = revocation.Merge(merged, revocation.Revocation{
			Domain: revocation.DomainToken, Key: "j", State: revocation.Revoked, Time: int64(i + 1),
			Events: []revocation.Event{{ID: fmt.Sprint("e", i+1), Time: int64(i + 1), State: revocation.Revoked}},
		})
	}
	var ids []string
	for _, e := range merged.Events {
		ids = append(ids, e.ID)
	}
	if got := fmt.Sprint(ids); got != "[e6 e5 e4 e3 ]" {
		t.Errorf("remembered %s, want the newest four", got)
	}
}
