package xds_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"

	"revocation-adapter/xds"
)

func TestInitialVersions(t *testing.T) {
	t.Parallel()
	held := func(w *world, names ...string) map[string]string {
		versions := map[string]string{}
		for _, name := range names {
			change, found := w.log.Lookup(name)
			if !found {
				w.t.Fatalf("%s is not known", name)
			}
			versions[name] = text(change.Version)
		}
		return versions
	}
	cases := []struct {
		name          string
		subscribe     []string
		held          []string
		meanwhile     func(w *world)
		live, removed []string
	}{
		{"all equal", nil, []string{"a", "b", "c"}, nil, nil, nil},
		{"some are missing", nil, []string{"b"}, nil, []string{"a", "c"}, nil},
		{"approved", nil, []string{"a", "b", "c"}, func(w *world) { w.approve("a") }, nil, []string{"a"}},
		{"changed", nil, []string{"a", "b", "c"}, func(w *world) { w.put(revoked("b", later.Add(1))) }, []string{"b"}, nil},
		{"new", nil, []string{"a", "b", "c"}, func(w *world) { w.revoke("d") }, []string{"d"}, nil},
		{"expired, and not purged yet", nil, []string{"a", "b", "c", "short"}, func(w *world) { w.clock.move(time.Minute + grace) }, nil, []string{"short"}},
		{"expired and purged", nil, []string{"a", "b", "c", "short"}, func(w *world) {
			w.clock.move(time.Minute + grace)
			w.log.Purge(w.clock.Now())
		}, nil, []string{"short"}},
		{"names, all equal", []string{"a", "b"}, []string{"a", "b"}, nil, nil, nil},
		{"names, some not held", []string{"a", "b", "unknown"}, []string{"a"}, nil, []string{"b"}, []string{"unknown"}},
		{"names, and one that is of no interest", []string{"a"}, []string{"a", "b"}, func(w *world) { w.approve("b") }, nil, nil},
		{"names, one approved", []string{"a", "b"}, []string{"a", "b"}, func(w *world) { w.approve("b") }, nil, []string{"b"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := start(t)
			w.revoke("a", "b", "c")
			if slices.Contains(c.held, "short") {
				w.put(revoked("short", origin.Add(time.Minute)))
			}
			versions := held(w, c.held...)
			if c.meanwhile != nil {
				c.meanwhile(w)
			}
			client := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{
				ResourceNamesSubscribe: c.subscribe, InitialResourceVersions: versions,
			})
			client.gets(c.live, c.removed)
			w.put(revoked("a", later.Add(time.Hour)))
			client.gets([]string{"a"}, nil)
		})
	}
}

// What a client says that it holds counts for its first request alone.
func TestNameHeldAtFirstIsAnsweredWhenSubscribedAgain(t *testing.T) {
	t.Parallel()
	w := start(t)
	c := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{
		ResourceNamesSubscribe: []string{"a", "b"}, InitialResourceVersions: map[string]string{"a": text(w.revoke("a"))},
	})
	resp := c.next()
	c.change(nil, []string{"a"})
	c.change([]string{"a"}, nil)
	c.ack(resp)
	c.gets([]string{"a"}, nil)
}

func TestNameHeldAtFirstAndGivenUpIsPartOfEverything(t *testing.T) {
	t.Parallel()
	w := start(t)
	c := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{
		ResourceNamesSubscribe: []string{"a", "b"}, InitialResourceVersions: map[string]string{"a": text(w.revoke("a"))},
	})
	resp := c.next()
	c.change(nil, []string{"a"})
	c.change([]string{"*"}, nil)
	c.ack(resp)
	c.gets([]string{"a"}, nil)
}

// A gateway that comes from another replica may hold what this one has not got
// yet. That is no reason to remove it: a revoked token would pass.
func TestHeldVersionsAheadOfThisReplicaAreWaitedFor(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name      string
		subscribe []string
	}{{"everything", nil}, {"names", []string{"a", "b", "c"}}}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := start(t)
			w.hub.Store(1003)
			w.revoke("a") // 1001
			client := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{
				ResourceNamesSubscribe: c.subscribe, InitialResourceVersions: map[string]string{"a": "1001", "b": "1003"},
			})
			client.change(nil, nil) // does not take away the answer
			w.approve("a")          // 1002
			client.quiet(100 * time.Millisecond)
			w.revoke("b") // 1003
			var removed []string
			for len(removed) == 0 {
				resp := client.accept()
				if len(resp.GetResources()) != 0 && c.subscribe == nil {
					t.Errorf("%v is sent again", names(resp))
				}
				removed = slices.DeleteFunc(resp.GetRemovedResources(), func(name string) bool { return name == "c" })
			}
			if !slices.Equal(removed, []string{"a"}) {
				t.Errorf("removed %v, want a", removed)
			}
		})
	}
	t.Run("and nothing to say then", func(t *testing.T) {
		w := start(t)
		w.hub.Store(1001)
		client := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{InitialResourceVersions: map[string]string{"a": "1001"}})
		client.change(nil, nil)
		client.quiet(50 * time.Millisecond)
		w.revoke("a")
		client.gets(nil, nil)
	})
	t.Run("names, then everything", func(t *testing.T) {
		w := start(t)
		w.hub.Store(1002)
		client := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{
			ResourceNamesSubscribe: []string{"b", "gone"}, InitialResourceVersions: map[string]string{"b": "1002", "gone": "5"},
		})
		client.change([]string{"*"}, nil)
		client.quiet(time.Second) // until it is surely read
		w.revoke("a", "b")
		client.gets([]string{"a", "b"}, []string{"gone"})
	})
	t.Run("beyond the hub's last", func(t *testing.T) {
		w := start(t)
		w.hub.Store(1003)
		client := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{InitialResourceVersions: map[string]string{"b": "1004"}})
		client.gets(nil, []string{"b"})
	})
	t.Run("one beyond the hub's last hides none before it", func(t *testing.T) {
		w := start(t)
		w.hub.Store(1001)
		client := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{InitialResourceVersions: map[string]string{"a": "1001", "b": "1002"}})
		client.quiet(50 * time.Millisecond)
		w.revoke("a")
		client.gets(nil, []string{"b"})
	})
	t.Run("given up meanwhile", func(t *testing.T) {
		w := start(t)
		w.hub.Store(1002)
		w.revoke("a")
		client := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{
			ResourceNamesSubscribe: []string{"*", "a"}, InitialResourceVersions: map[string]string{"a": "1001", "b": "1002"},
		})
		client.change(nil, []string{"a"})
		client.quiet(time.Second) // until it is surely read
		w.revoke("b")
		client.gets([]string{"a"}, nil)
	})
	t.Run("a hub that does not answer", func(t *testing.T) {
		w := start(t, func(c *xds.Config) {
			c.Last = func(context.Context) (uint64, error) { return 0, errors.New("no leader") }
		})
		client := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{InitialResourceVersions: map[string]string{"b": "1004"}})
		if got := client.end(); got.Code() != codes.Unavailable {
			t.Errorf("the stream ended with %v, want UNAVAILABLE", got)
		}
	})
}

func TestUnknownNamesThatAClientHoldsAreRemoved(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.revoke("a")
	c := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{InitialResourceVersions: map[string]string{
		"a": "of another log", "unknown": "7", "sha256:nonsense": "8", "": "9",
	}})
	c.gets([]string{"a"}, []string{"", "sha256:nonsense", "unknown"})
}

// 40,000 names are about 2.4 MB in one request.
func TestInitialVersionsOfALargeSet(t *testing.T) {
	t.Parallel()
	w := start(t, func(c *xds.Config) { c.MaxReceive = 16 << 20 })
	w.revoke(fortyThousand()...)
	held, versions := map[string]int64{}, map[string]string{}
	for c := range w.log.Snapshot().Since(0, w.clock.Now()) {
		held[c.Name()], versions[c.Name()] = c.Expiry, text(c.Version)
	}
	more := uuids(2, 20_000)
	w.approve(fortyThousand()[:5_000]...)
	head := w.revoke(more...)
	c := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{InitialResourceVersions: versions})
	c.held = held
	got := 0
	for _, resp := range c.follow(head) {
		got += len(resp.GetResources())
		if n := len(resp.GetResources()) + len(resp.GetRemovedResources()); n > mostTokens {
			t.Errorf("a response has %d names", n)
		}
	}
	if got != len(more) {
		t.Errorf("%d tokens are sent, want the %d that were not held", got, len(more))
	}
	same(t, c.held, w.truth())
}

// Held names are not sent again, even if the first answer is refused.
func TestInitialVersionsSurviveARefusal(t *testing.T) {
	t.Parallel()
	w := start(t)
	versions := map[string]string{"a": text(w.revoke("a")), "b": text(w.revoke("b")), "gone": "3"}
	w.revoke("c")
	c := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{InitialResourceVersions: versions})
	resp := c.next()
	c.nack(resp)
	w.refusals(1)
	w.clock.move(time.Minute)
	c.gets([]string{"c"}, []string{"gone"})
}
