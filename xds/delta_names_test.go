package xds_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// A name that is not revoked is answered as removed.
func TestDeltaNamesAreAnsweredByName(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		first  []string // subscribed to
		script func(t *testing.T, w *world, c *deltaClient)
	}{
		{"revoked", []string{"a", "c"}, func(t *testing.T, _ *world, c *deltaClient) {
			t.Helper()
			c.gets([]string{"a", "c"}, nil)
		}},
		{"unknown", []string{"a", "unknown"}, func(t *testing.T, w *world, c *deltaClient) {
			t.Helper()
			c.gets([]string{"a"}, []string{"unknown"})
			w.revoke("unknown")
			c.gets([]string{"unknown"}, nil)
		}},
		{"only changes among them", []string{"a", "x"}, func(t *testing.T, w *world, c *deltaClient) {
			t.Helper()
			c.gets([]string{"a"}, []string{"x"})
			w.revoke("y")
			w.revoke("x")
			c.gets([]string{"x"}, nil)
			w.approve("b")
			w.approve("a")
			c.gets(nil, []string{"a"})
		}},
		{"newly subscribed", []string{"a"}, func(t *testing.T, _ *world, c *deltaClient) {
			t.Helper()
			c.gets([]string{"a"}, nil)
			c.change([]string{"b", "unknown"}, nil)
			c.gets([]string{"b"}, []string{"unknown"})
		}},
		{"subscribed again", []string{"a"}, func(t *testing.T, _ *world, c *deltaClient) {
			t.Helper()
			c.gets([]string{"a"}, nil)
			c.change([]string{"a"}, nil)
			c.gets([]string{"a"}, nil)
		}},
		{"unsubscribed", []string{"a", "b"}, func(t *testing.T, w *world, c *deltaClient) {
			t.Helper()
			c.gets([]string{"a", "b"}, nil)
			w.revoke("b")
			resp := c.next()
			c.change(nil, []string{"a"})
			c.ack(resp)
			until(t, "both requests are taken", func() bool { return w.metric(lagMetric, t.Name()) == 0 })
			w.revoke("a")
			w.revoke("b")
			c.gets([]string{"b"}, nil)
			c.change([]string{"a"}, nil)
			c.gets([]string{"a"}, nil)
		}},
		{"unsubscribed from all", []string{"a"}, func(t *testing.T, w *world, c *deltaClient) {
			t.Helper()
			c.gets([]string{"a"}, nil)
			c.change(nil, []string{"a"})
			c.settle()
			w.revoke("a")
			c.change([]string{"b"}, nil)
			c.gets([]string{"b"}, nil)
		}},
		{"unsubscribed from everything", []string{"*"}, func(t *testing.T, w *world, c *deltaClient) {
			t.Helper()
			c.gets([]string{"a", "b", "c"}, nil)
			c.change(nil, []string{"*"})
			c.settle()
			w.revoke("d")
			c.change([]string{"d"}, nil)
			c.gets([]string{"d"}, nil)
		}},
		{"names to everything", []string{"a"}, func(t *testing.T, w *world, c *deltaClient) {
			t.Helper()
			c.gets([]string{"a"}, nil)
			c.change([]string{"*"}, nil)
			c.gets([]string{"a", "b", "c"}, nil)
			w.revoke("d")
			c.gets([]string{"d"}, nil)
		}},
		{"names to everything while a response is in flight", []string{"a"}, func(t *testing.T, _ *world, c *deltaClient) {
			t.Helper()
			resp := c.next()
			c.change([]string{"*"}, nil)
			c.ack(resp)
			c.gets([]string{"a", "b", "c"}, nil)
		}},
		{"names to everything while a response is in flight that is refused", []string{"a"}, func(t *testing.T, w *world, c *deltaClient) {
			t.Helper()
			resp := c.next()
			c.change([]string{"*"}, nil)
			c.nack(resp)
			w.refusals(1)
			w.clock.move(time.Minute)
			c.gets([]string{"a", "b", "c"}, nil)
		}},
		{"everything to names", []string{"*"}, func(t *testing.T, w *world, c *deltaClient) {
			t.Helper()
			c.gets([]string{"a", "b", "c"}, nil)
			c.change([]string{"b"}, []string{"*"})
			c.gets([]string{"b"}, nil)
			w.revoke("a")
			w.revoke("b")
			c.gets([]string{"b"}, nil)
		}},
		{"everything to names and back", []string{"*"}, func(t *testing.T, _ *world, c *deltaClient) {
			t.Helper()
			c.gets([]string{"a", "b", "c"}, nil)
			c.change([]string{"b"}, []string{"*"})
			c.gets([]string{"b"}, nil)
			c.change([]string{"*"}, nil)
			c.gets([]string{"a", "b", "c"}, nil)
		}},
		{"unsubscribed under everything, live", []string{"*", "a"}, func(t *testing.T, w *world, c *deltaClient) {
			t.Helper()
			c.gets([]string{"a", "b", "c"}, nil)
			c.change(nil, []string{"a"})
			c.gets([]string{"a"}, nil)
			w.revoke("d")
			c.gets([]string{"d"}, nil)
		}},
		{"unsubscribed under everything, not live", []string{"*", "unknown"}, func(t *testing.T, _ *world, c *deltaClient) {
			t.Helper()
			c.gets([]string{"a", "b", "c"}, []string{"unknown"})
			c.change(nil, []string{"unknown"})
			c.gets(nil, []string{"unknown"})
		}},
		{"unsubscribed under everything, never subscribed", []string{"*"}, func(t *testing.T, w *world, c *deltaClient) {
			t.Helper()
			c.gets([]string{"a", "b", "c"}, nil)
			c.change(nil, []string{"a"})
			c.settle()
			w.revoke("d")
			c.gets([]string{"d"}, nil)
		}},
		{"unsubscribed under everything while a response is in flight", []string{"*", "a", "b"}, func(t *testing.T, w *world, c *deltaClient) {
			t.Helper()
			c.gets([]string{"a", "b", "c"}, nil)
			w.revoke("d")
			resp := c.next()
			w.approve("b")
			c.change(nil, []string{"a", "b"})
			c.ack(resp)
			c.gets([]string{"a"}, []string{"b"})
		}},
		{"unsubscribed under everything while a response is in flight that is refused", []string{"*", "a"}, func(t *testing.T, w *world, c *deltaClient) {
			t.Helper()
			c.gets([]string{"a", "b", "c"}, nil)
			w.revoke("d")
			resp := c.next()
			c.change(nil, []string{"a"})
			c.nack(resp)
			w.refusals(1)
			w.clock.move(time.Minute)
			c.gets([]string{"a", "d"}, nil)
		}},
		{"answered and refused", []string{"a"}, func(t *testing.T, w *world, c *deltaClient) {
			t.Helper()
			c.gets([]string{"a"}, nil)
			c.change([]string{"b", "unknown"}, nil)
			resp := c.next()
			c.nack(resp)
			c.nack(resp) // whoever says it twice loses nothing
			w.refusals(1)
			w.clock.move(time.Minute)
			c.gets([]string{"b"}, []string{"unknown"})
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := startWith(t, "a", "b", "c")
			c.script(t, w, w.deltaWith(t, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: c.first}))
		})
	}
}

// change changes the subscription and answers nothing.
func (c *deltaClient) change(subscribe, unsubscribe []string) {
	c.send(&discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: subscribe, ResourceNamesUnsubscribe: unsubscribe})
}

// settle returns once the server has taken the last request: it subscribes to
// one name more, which is answered.
func (c *deltaClient) settle() {
	c.t.Helper()
	c.change([]string{"settled"}, nil)
	c.gets(nil, []string{"settled"})
}

// gets fails unless the next response holds exactly these names and removes
// exactly those; it is ACKed.
func (c *deltaClient) gets(live, removed []string) {
	c.t.Helper()
	resp := c.accept()
	got, gone := names(resp), resp.GetRemovedResources()
	slices.Sort(got)
	slices.Sort(gone)
	if !slices.Equal(got, live) || !slices.Equal(gone, removed) {
		c.t.Fatalf("got %.300q and removed %.300q, want %q and %q", got, gone, live, removed)
	}
}

func TestManyNamesAreAnsweredInDeltaChunks(t *testing.T) {
	t.Parallel()
	w := start(t)
	all := fortyThousand()
	w.revoke(all[:30_000]...)
	c := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: all})
	seen := map[string]bool{}
	for len(seen) < len(all) {
		resp := c.accept()
		for _, name := range slices.Concat(names(resp), resp.GetRemovedResources()) {
			if seen[name] {
				t.Fatalf("%s is answered twice", name)
			}
			seen[name] = true
		}
		if n := len(resp.GetResources()) + len(resp.GetRemovedResources()); n == 0 || n > mostTokens {
			t.Fatalf("a response with %d names", n)
		}
	}
	same(t, c.held, w.truth())
}

// No key is that long, but a client may ask.
func TestNameLongerThanAChunkIsAnswered(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.revoke("a", "z")
	endless := fmt.Sprintf("b%01000000d", 0)
	c := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"a", endless, "z"}})
	answered := map[string]bool{}
	for i := range 3 {
		resp := c.accept()
		for _, name := range slices.Concat(names(resp), resp.GetRemovedResources()) {
			answered[name] = true
		}
		if len(answered) == 3 {
			break
		}
		if i == 2 {
			t.Errorf("%d of 3 names are answered after three responses", len(answered))
		}
	}
	w.revoke("a")
	c.gets([]string{"a"}, nil)
}
