package xds

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"revocation-adapter/revocation"
)

// crowd is n gateways that hold a stream of tokens each.
func crowd(n int) (*gateways, []*view) {
	gs := &gateways{byName: map[string]*gateway{}}
	views := make([]*view, n)
	for i := range views {
		views[i] = gs.join(caller{name: fmt.Sprint("gw-", i), at: time.UnixMilli(1), form: sotw})
		gs.want(views[i], tokens, sotw, 1)
		views[i].begin(tokens, sotw, 1)
	}
	return gs, views
}

// waiting waits for version 10.
func waiting(gs *gateways) *waiter {
	w := &waiter{
		concern:  Concern{Version: 10, Parts: []Part{{Series: revocation.Tokens, State: revocation.Revoked}}},
		standing: Standing{}, wake: make(chan struct{}, 1), aims: [kinds]uint64{10, 10, 10}, aimed: true,
	}
	gs.attend(w)
	return w
}

// A thousand gateways that ACK one after another cost a look each, not a look at
// all of them each time.
func TestWaiterLooksOnlyAtWhoIsPending(t *testing.T) {
	t.Parallel()
	gs, views := crowd(1000)
	w := waiting(gs)
	if pending := gs.assess(w); pending != 1000 {
		t.Fatalf("%d are pending, want 1000", pending)
	}
	for i, v := range views {
		v.ack(tokens, sotw, 10)
		if looks := slices.Collect(maps.Keys(w.dirty)); len(looks) != 1 || looks[0] != v.gateway.name {
			t.Fatalf("after ACK %d it looks at %q", i, looks)
		}
		if pending := gs.assess(w); pending != 999-i {
			t.Fatalf("after ACK %d %d are pending", i, pending)
		}
	}
	for _, v := range views {
		v.ack(tokens, sotw, 11)
	}
	if len(w.dirty) != 0 {
		t.Errorf("it looks again at %d that are done", len(w.dirty))
	}
	views[7].begin(tokens, sotw, 0)
	if pending := gs.assess(w); pending != 1 || w.standing["gw-7"] != Pending {
		t.Errorf("a gateway that begins anew stands %v, %d are pending", w.standing["gw-7"], pending)
	}
}

func TestNobodyIsToldOnceNobodyWaits(t *testing.T) {
	t.Parallel()
	gs, views := crowd(2)
	a, b := waiting(gs), waiting(gs)
	gs.dismiss(a)
	gs.assess(b)
	views[0].ack(tokens, sotw, 10)
	if len(a.dirty) != 2 || len(b.dirty) != 1 { // a had not looked yet
		t.Errorf("who left is told of %d, who waits of %d", len(a.dirty), len(b.dirty))
	}
	gs.dismiss(b)
	if gs.waiters.Load() != nil {
		t.Error("ACKs look for waiters that are gone")
	}
}

func TestTooManyWaitersAreNotKept(t *testing.T) {
	t.Parallel()
	gs, _ := crowd(1)
	for range maxWaiters {
		waiting(gs)
	}
	w := &waiter{standing: Standing{}, wake: make(chan struct{}, 1)}
	if gs.attend(w) {
		t.Error("one more is kept")
	}
	if gs.assess(w); len(w.standing) != 1 {
		t.Errorf("it is not told how gateways stand: %v", w.standing)
	}
	gs.dismiss(w)
	if n := len(*gs.waiters.Load()); n != maxWaiters {
		t.Errorf("%d wait, want %d", n, maxWaiters)
	}
}
