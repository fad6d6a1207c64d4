package xds_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"

	"revocation-adapter/revocation"
)

// The mistakes of deployed adapters that this package could make, by their
// numbers in the list of wire facts.

// 1: only the newest batch is published.
func TestMistake1GatewayThatConnectsLateLearnsOfEarlierOnes(t *testing.T) {
	t.Parallel()
	w := start(t)
	early := w.subscribe(t, streamTokens, "")
	early.accept()
	for i := range 10 {
		early.follow(w.revoke(fmt.Sprint("batch ", i, " a"), fmt.Sprint("batch ", i, " b")))
	}
	late, delta := w.subscribe(t, streamTokens, ""), w.delta(t)
	late.accept()
	delta.accept()
	for _, held := range []map[string]int64{early.held, late.held, delta.held} {
		same(t, held, w.truth())
	}
}

// 2: the version is random, repeats, and then nothing is pushed.
func TestMistake2VersionsRiseWithTheLog(t *testing.T) {
	t.Parallel()
	w := start(t)
	c, d := w.subscribe(t, streamTokens, ""), w.delta(t)
	c.accept()
	d.accept()
	for i := range 200 {
		head := text(w.revoke(fmt.Sprint(i)))
		if got := c.accept().GetVersionInfo(); got != head {
			t.Fatalf("version %s, want the log's: %s", got, head)
		}
		if got := d.accept().GetSystemVersionInfo(); got != head {
			t.Fatalf("version %s, want the log's: %s", got, head)
		}
	}
	// Every replica says the same: a gateway may go from one to another.
	other := start(t)
	for i := range 200 {
		other.revoke(fmt.Sprint(i))
	}
	moved := other.subscribe(t, streamTokens, c.version)
	if resp := moved.accept(); len(resp.GetResources()) != 0 || resp.GetVersionInfo() != c.version {
		t.Errorf("another replica answers %d tokens at %s", len(resp.GetResources()), resp.GetVersionInfo())
	}
}

// 3: the list is appended to from two goroutines without a lock, and never
// purged.
func TestMistake3ManyWritersAndPurges(t *testing.T) {
	t.Parallel()
	w := start(t)
	c := w.subscribe(t, streamTokens, "")
	var group sync.WaitGroup
	for author := range 4 {
		group.Go(func() {
			for i := range 100 {
				w.revoke(fmt.Sprint(author, " ", i))
				w.put(revoked(fmt.Sprint("short ", author, " ", i), origin.Add(-grace+time.Second)))
			}
		})
	}
	group.Go(func() {
		for range 50 {
			w.log.Purge(w.clock.Now())
		}
	})
	group.Wait()
	w.clock.move(time.Minute)
	w.log.Purge(w.clock.Now())
	head := w.revoke("the last")
	c.follow(head)
	for name := range w.truth() {
		if c.held[name] == 0 {
			t.Errorf("%s is missing", name)
		}
	}
	if n := w.log.Snapshot().Counts().Revoked(); n != 401 {
		t.Errorf("%d tokens are kept, want 401", n)
	}
	late := w.subscribe(t, streamTokens, "")
	late.follow(head)
	same(t, late.held, w.truth())
}

// 8: every token is cached under one key, so only one arrives.
func TestMistake8EveryTokenArrives(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.revoke("a", "b", "c")
	d := w.delta(t)
	c, named := w.subscribe(t, streamTokens, ""), w.subscribe(t, aggregated, "", "a", "b", "c")
	d.accept()
	c.accept()
	named.accept()
	for _, held := range []map[string]int64{c.held, d.held, named.held} {
		same(t, held, w.truth())
	}
	w.revoke("d", "e")
	c.gets("d", "e")
	d.gets([]string{"d", "e"}, nil)
}

// 11: a set that is incomplete is served as if it were the truth.
func TestMistake11IncompleteSetIsNotServed(t *testing.T) {
	t.Parallel()
	var ready readiness
	ready.set("half of the log is still to come")
	w := start(t, ready.configure)
	w.revoke(uuids(1, 10)...)
	if got := w.subscribe(t, streamTokens, "").end(); got.Code() != codes.Unavailable {
		t.Errorf("a stream ended with %v, want UNAVAILABLE", got)
	}
	head := w.revoke(uuids(2, 10)...)
	ready.set("")
	// Ready at this moment: the first answer is the whole set, not an older one.
	c, d := w.subscribe(t, streamTokens, ""), w.delta(t)
	if got := c.accept().GetVersionInfo(); got != text(head) {
		t.Errorf("the first answer is at %s, want %d", got, head)
	}
	if got := d.accept().GetSystemVersionInfo(); got != text(head) {
		t.Errorf("the first answer is at %s, want %d", got, head)
	}
	same(t, c.held, w.truth())
	same(t, d.held, w.truth())
}

// 12: all is cleared, then added one by one: for a moment a revoked token
// passes.
func TestMistake12NoRevokedTokenEverPasses(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.revoke("always", "a", "b")
	var versions map[string]string
	for round := range 5 {
		d := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{InitialResourceVersions: versions})
		if round > 0 {
			d.held["always"], d.versions["always"] = later.UnixMilli(), versions["always"]
		}
		check := func(resp *discovery.DeltaDiscoveryResponse) {
			for _, name := range resp.GetRemovedResources() {
				if name == "always" {
					t.Fatal("it is removed")
				}
			}
			if d.held["always"] == 0 {
				t.Fatal("it is not held")
			}
		}
		check(d.accept())
		for i := range 20 {
			w.approve("a")
			check(d.accept())
			w.revoke("a", fmt.Sprint(round, i))
			check(d.accept())
			w.put(revoked("always", later.Add(time.Duration(round*20+i)*time.Second)))
			check(d.accept())
			w.log.Purge(w.clock.Now())
		}
		versions = d.versions
	}
	if c, found := w.log.Lookup("always"); !found || c.State != revocation.Revoked {
		t.Error("the log has lost it")
	}
}
