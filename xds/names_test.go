package xds_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"revocation-adapter/revocation"
)

// ask changes the names of a stream, as an ACK of the last response.
func (c *sotwClient) ask(nonce string, names ...string) {
	c.names = names
	c.send(&discovery.DiscoveryRequest{ResponseNonce: nonce})
}

// settle returns once the server has taken the last request: it asks for one
// name more, which is answered.
func (c *sotwClient) settle(nonce string) {
	c.t.Helper()
	c.ask(nonce, append(slices.Clone(c.names), "settled")...)
	c.gets()
}

// gets fails unless the next response holds exactly these names; it is ACKed.
func (c *sotwClient) gets(names ...string) (nonce string) {
	c.t.Helper()
	resp := c.accept()
	got := jtis(c.t, resp)
	slices.Sort(got)
	slices.Sort(names)
	if !slices.Equal(got, names) {
		c.t.Fatalf("got %.300q, want %.300q", got, names)
	}
	return resp.GetNonce()
}

func TestNamesAreAnsweredByName(t *testing.T) {
	t.Parallel()
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			cases := []struct {
				name   string
				script func(t *testing.T, w *world)
			}{
				{"revoked", func(t *testing.T, w *world) {
					t.Helper()
					w.subscribe(t, s, "", "a", "c").gets("a", "c")
				}},
				{"not revoked", func(t *testing.T, w *world) {
					t.Helper()
					c := w.subscribe(t, s, "", "unknown")
					c.gets()
					w.revoke("unknown")
					c.gets("unknown")
				}},
				{"approved and expired", func(t *testing.T, w *world) {
					t.Helper()
					w.approve("a")
					w.put(revoked("b", origin.Add(-grace)))
					w.subscribe(t, s, "", "a", "b", "c").gets("c")
				}},
				{"whole, whatever version is claimed", func(t *testing.T, w *world) {
					t.Helper()
					w.subscribe(t, s, "1003", "a", "c").gets("a", "c")
				}},
				{"a digest", func(t *testing.T, w *world) {
					t.Helper()
					opaque := ofDomain(revocation.DomainOpaque, "secret")
					w.put(opaque)
					w.subscribe(t, s, "", opaque.Name(), "sha256:nonsense").gets(opaque.Name())
				}},
				{"only changes among them", func(t *testing.T, w *world) {
					t.Helper()
					c := w.subscribe(t, s, "", "a", "x")
					c.gets("a")
					w.revoke("y")
					w.revoke("x", "z")
					c.gets("x")
					w.approve("a") // cannot be said
					w.put(revoked("x", later.Add(time.Hour)))
					c.gets("x")
				}},
				{"one more is answered whole", func(t *testing.T, w *world) {
					t.Helper()
					c := w.subscribe(t, s, "", "a")
					nonce := c.gets("a")
					c.ask(nonce, "a", "b")
					nonce = c.gets("b")
					c.ask(nonce, "a", "b", "unknown")
					c.gets()
					w.revoke("a", "b", "c")
					c.gets("a", "b")
				}},
				{"one that was dropped is of no interest", func(t *testing.T, w *world) {
					t.Helper()
					c := w.subscribe(t, s, "", "a", "b")
					nonce := c.gets("a", "b")
					c.ask(nonce, "b")
					c.settle(nonce)
					w.revoke("a")
					w.revoke("b")
					c.gets("b")
				}},
				{"one that was dropped and is wanted again", func(t *testing.T, w *world) {
					t.Helper()
					c := w.subscribe(t, s, "", "a", "b")
					nonce := c.gets("a", "b")
					c.ask(nonce, "b")
					c.ask(nonce, "a", "b")
					c.gets("a")
				}},
				{"all dropped", func(t *testing.T, w *world) {
					t.Helper()
					c := w.subscribe(t, s, "", "a")
					nonce := c.gets("a")
					c.ask(nonce)
					c.settle(nonce)
					w.revoke("a")
					c.ask(nonce, "c")
					c.gets("c")
				}},
				{"names with everything", func(t *testing.T, w *world) {
					t.Helper()
					c := w.subscribe(t, s, "", "*", "a")
					c.gets("a", "b", "c")
					w.revoke("d")
					c.gets("d")
				}},
				{"from names to everything", func(t *testing.T, w *world) {
					t.Helper()
					c := w.subscribe(t, s, "", "a")
					c.ask(c.gets("a"), "*")
					c.gets("a", "b", "c")
					w.revoke("d")
					c.gets("d")
				}},
				{"from names to everything, with the ACK", func(t *testing.T, w *world) {
					t.Helper()
					c := w.subscribe(t, s, "", "a")
					resp := c.next()
					c.names = []string{"*"}
					c.ack(resp)
					c.gets("a", "b", "c")
				}},
				{"from nothing to everything", func(t *testing.T, w *world) {
					t.Helper()
					c := w.subscribe(t, s, "", "a")
					nonce := c.gets("a")
					c.ask(nonce)
					c.ask(nonce, "*")
					c.gets("a", "b", "c")
				}},
				{"from names to everything, refused once", func(t *testing.T, w *world) {
					t.Helper()
					c := w.subscribe(t, s, "", "a")
					c.ask(c.gets("a"), "*")
					c.nack(c.next()) // at the version of the last answer by name
					w.refusals(1)
					w.clock.move(time.Minute)
					c.gets("a", "b", "c")
					w.revoke("d")
					c.gets("d")
				}},
				{"from everything to names and back", func(t *testing.T, w *world) {
					t.Helper()
					c := w.subscribe(t, s, "", "*")
					c.ask(c.gets("a", "b", "c"), "b")
					c.ask(c.gets("b"), "*")
					nonce := c.gets("a", "b", "c")
					w.revoke("d")
					c.gets("d")
					c.ask(nonce, "*") // stale: nothing
					w.revoke("e")
					c.gets("e")
				}},
				{"from the nameless everything to names", func(t *testing.T, w *world) {
					t.Helper()
					c := w.subscribe(t, s, "")
					c.ask(c.gets("a", "b", "c"), "b")
					c.gets("b")
					w.revoke("a")
					w.revoke("b")
					c.gets("b")
				}},
				{"newly asked and refused", func(t *testing.T, w *world) {
					t.Helper()
					c := w.subscribe(t, s, "", "a")
					c.ask(c.gets("a"), "a", "b")
					resp := c.next()
					c.nack(resp)
					c.nack(resp) // whoever says it twice loses nothing
					w.refusals(1)
					w.clock.move(time.Minute)
					c.gets("a", "b")
				}},
			}
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) {
					c.script(t, startWith(t, "a", "b", "c"))
				})
			}
		})
	}
}

// What is offered after a refusal is all names as they are then.
func TestRefusedNamesAreLookedUpAgain(t *testing.T) {
	t.Parallel()
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			w := startWith(t, "a", "b")
			c := w.subscribe(t, s, "", "a", "b", "c", "d")
			c.gets("a", "b")
			w.revoke("c")
			c.nack(c.next())
			w.refusals(1)
			w.witness(t)
			w.approve("a", "c")
			head := w.revoke("d")
			c.quiet(150 * time.Millisecond)
			w.clock.move(100 * time.Millisecond)
			if nonce := c.gets("b", "d"); nonce != "3" || c.version != text(head) {
				t.Errorf("offered again at %s with nonce %s, want %d and 3", c.version, nonce, head)
			}
			w.revoke("c")
			c.gets("c")
		})
	}
}

// No key is that long, but a client may ask.
func TestNameLongerThanAChunkHidesNoOther(t *testing.T) {
	t.Parallel()
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			w := startWith(t, "a")
			c := w.subscribe(t, s, "", "a", "b", strings.Repeat("x", 1_000_000))
			for range 3 { // at most
				if c.accept(); c.held["a"] != 0 {
					break
				}
			}
			head := w.revoke("b")
			for range 3 { // at most
				if c.accept(); c.version == text(head) {
					break
				}
			}
			same(t, c.held, w.truth())
		})
	}
}

func TestManyNamesAreAnsweredInChunks(t *testing.T) {
	t.Parallel()
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			w := start(t)
			all := fortyThousand()
			w.revoke(all...)
			c := w.subscribe(t, s, "", all...)
			for i := 0; len(c.held) < len(all); i++ {
				if n := len(c.accept().GetResources()); n > mostTokens {
					t.Errorf("response %d has %d tokens", i, n)
				}
				if i > 10 {
					t.Fatal("more than ten responses")
				}
			}
			same(t, c.held, w.truth())
		})
	}
}
