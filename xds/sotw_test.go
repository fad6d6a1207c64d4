package xds_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"revocation-adapter/revocation"
	"revocation-adapter/xds"
)

// A response holds at most this many tokens and fewer bytes than that.
const (
	mostTokens = 16_000
	tooLarge   = 2_000_000
)

// rising fails unless every response is within its bounds and at a version of
// its own, the last one at head.
func rising(t *testing.T, all []*discovery.DiscoveryResponse, head uint64) {
	t.Helper()
	previous := uint64(0)
	for i, resp := range all {
		if n := len(resp.GetResources()); n > mostTokens {
			t.Errorf("response %d has %d tokens", i, n)
		}
		if n := proto.Size(resp); n >= tooLarge {
			t.Errorf("response %d has %d bytes", i, n)
		}
		if resp.GetTypeUrl() != xds.TypeURL {
			t.Errorf("response %d is of type %q", i, resp.GetTypeUrl())
		}
		version := number(t, resp.GetVersionInfo())
		if version <= previous {
			t.Errorf("response %d is at version %d after %d", i, version, previous)
		}
		previous = version
	}
	if previous != head {
		t.Errorf("the set ends at version %d, want %d", previous, head)
	}
}

func TestNewStreamGetsTheWholeSetInChunks(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		tokens []string
		fewest int // responses
	}{
		{"one token", uuids(1, 1), 1},
		{"as many as a chunk holds", fortyThousand()[:mostTokens], 1},
		{"one more than that", fortyThousand()[:mostTokens+1], 2},
		{"40,000 tokens", fortyThousand(), 3},
		{"short and long", slices.Concat(uuids(1, 8_000), long(2, 1_000), uuids(3, 100)), 2},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, s := range services {
				t.Run(s.name, func(t *testing.T) {
					w := start(t)
					head := w.revoke(c.tokens...)
					client := w.subscribe(t, s, "")
					all := client.follow(head)
					rising(t, all, head)
					if len(all) < c.fewest || len(all) > c.fewest+1 {
						t.Errorf("%d responses, want %d", len(all), c.fewest)
					}
					same(t, client.held, w.truth())
				})
			}
		})
	}
}

func TestLongJtisMakeSmallChunks(t *testing.T) {
	t.Parallel()
	w := start(t)
	head := w.revoke(long(1, 40_000)...)
	c := w.subscribe(t, streamTokens, "")
	all := c.follow(head)
	rising(t, all, head)
	if len(all) < 42 || len(all) > 46 {
		t.Errorf("%d responses for 80 MB", len(all))
	}
	same(t, c.held, w.truth())
}

func TestAfterTheSetOnlyChanges(t *testing.T) {
	t.Parallel()
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			w := start(t)
			c := w.subscribe(t, s, "")
			c.follow(w.revoke(uuids(1, 100)...))
			for i := range 20 {
				name := fmt.Sprint("new ", i)
				head := w.revoke(name)
				resp := c.accept()
				if got := jtis(t, resp); !slices.Equal(got, []string{name}) || resp.GetVersionInfo() != text(head) {
					t.Fatalf("%d tokens at %s, want %q at %d", len(got), resp.GetVersionInfo(), name, head)
				}
			}
			same(t, c.held, w.truth())
		})
	}
}

func TestChangesWhileAResponseIsInFlightAreCoalesced(t *testing.T) {
	t.Parallel()
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			w := start(t)
			c, witness := w.subscribe(t, s, ""), w.witness(t)
			first := c.next()
			var head uint64
			for i := range 500 {
				head = w.revoke(fmt.Sprint("new ", i))
			}
			witness.follow(head)
			c.ack(first)
			resp := c.accept()
			if n := len(resp.GetResources()); n != 500 || resp.GetVersionInfo() != text(head) || resp.GetNonce() != "2" {
				t.Errorf("%d tokens at %s with nonce %s, want 500 at %d with 2", n, resp.GetVersionInfo(), resp.GetNonce(), head)
			}
		})
	}
}

func TestEmptySetIsAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			t.Run("never revoked", func(t *testing.T) {
				w := start(t)
				c := w.subscribe(t, s, "")
				if resp := c.next(); len(resp.GetResources()) != 0 || resp.GetVersionInfo() != "1000" {
					t.Errorf("got %v", resp)
				}
			})
			t.Run("all approved", func(t *testing.T) {
				w := start(t)
				w.revoke("a")
				head := w.approve("a")
				c := w.subscribe(t, s, "")
				if resp := c.next(); len(resp.GetResources()) != 0 || resp.GetVersionInfo() != text(head) {
					t.Errorf("got %v", resp)
				}
			})
			t.Run("all expired", func(t *testing.T) {
				w := start(t)
				head := w.put(revoked("a", origin))
				w.clock.move(grace)
				c := w.subscribe(t, s, "")
				if resp := c.next(); len(resp.GetResources()) != 0 || resp.GetVersionInfo() != text(head) {
					t.Errorf("got %v", resp)
				}
			})
			t.Run("a log that never held anything", func(t *testing.T) {
				w := start(t, func(c *xds.Config) { c.Revocations = revocation.NewLog(grace) })
				c := w.subscribe(t, s, "")
				if resp := c.next(); len(resp.GetResources()) != 0 || resp.GetVersionInfo() != "0" {
					t.Errorf("got %v", resp)
				}
				c.quiet(50 * time.Millisecond)
			})
		})
	}
}

func TestStaleNonceIsIgnored(t *testing.T) {
	t.Parallel()
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			w := start(t)
			c := w.subscribe(t, s, "")
			c.accept()
			w.revoke("a")
			resp := c.next()
			for _, nonce := range []string{"1", "", "99", "x"} {
				c.send(&discovery.DiscoveryRequest{ResponseNonce: nonce})
				c.send(&discovery.DiscoveryRequest{ResponseNonce: nonce, ErrorDetail: refusal("stale")})
			}
			c.ack(resp)
			w.revoke("b")
			if resp := c.accept(); resp.GetNonce() != "3" || !slices.Equal(jtis(t, resp), []string{"b"}) {
				t.Errorf("got %v, want b with nonce 3", resp)
			}
			if refusals := w.lines(refusalLine); len(refusals) != 0 {
				t.Errorf("%d refusals logged for stale nonces", len(refusals))
			}
		})
	}
}

func TestApprovalMovesTheVersionOn(t *testing.T) {
	t.Parallel()
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			w := start(t)
			c := w.subscribe(t, s, "")
			c.follow(w.revoke("a", "b"))
			head := w.approve("a")
			if resp := c.accept(); len(resp.GetResources()) != 0 || resp.GetVersionInfo() != text(head) {
				t.Errorf("got %v, want nothing at %d", resp, head)
			}
			w.revoke("a")
			if resp := c.accept(); !slices.Equal(jtis(t, resp), []string{"a"}) {
				t.Errorf("got %v, want a again", resp)
			}
		})
	}
}

func TestJtisAreServedByteForByte(t *testing.T) {
	t.Parallel()
	odd := []string{
		"fc8ee897-b3d9-3bb6-a9ca-f4aeb036e5c0", "FC8EE897-B3D9-3BB6-A9CA-F4AEB036E5C0",
		"fc8ee897b3d93bb6a9caf4aeb036e5c0", " a ", "a\nb", "ä", "*", "{}", strings.Repeat("k", revocation.MaxKey),
	}
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			w := start(t)
			c := w.subscribe(t, s, "")
			c.follow(w.revoke(odd...))
			same(t, c.held, w.truth())
		})
	}
}

func TestWhichDomainsAreServed(t *testing.T) {
	t.Parallel()
	opaque := ofDomain(revocation.DomainOpaque, "an opaque token")
	refresh := ofDomain(revocation.DomainRefresh, "a refresh token")
	rule := ofDomain(revocation.DomainRule, "azp=client")
	ruleDigest := revocation.NamePrefix + rule.Digest.String()
	everything := []string{"jti", opaque.Name(), refresh.Name(), "azp=client", ruleDigest}
	want := []string{"jti", revocation.NamePrefix + revocation.DigestOf(revocation.DomainOpaque, "an opaque token").String()}

	cases := []struct {
		name string
		get  func(t *testing.T, w *world, head uint64) map[string]int64
	}{
		{"StreamTokens", func(t *testing.T, w *world, head uint64) map[string]int64 {
			t.Helper()
			c := w.subscribe(t, streamTokens, "")
			c.follow(head)
			return c.held
		}},
		{"StreamTokens by name", func(t *testing.T, w *world, head uint64) map[string]int64 {
			t.Helper()
			c := w.subscribe(t, streamTokens, "", everything...)
			c.follow(head)
			return c.held
		}},
		{"StreamTokens of a tenant", func(t *testing.T, w *world, _ uint64) map[string]int64 {
			t.Helper()
			c := w.open(t, streamTokens)
			c.send(&discovery.DiscoveryRequest{Node: nodeOf(t.Name(), "a")})
			c.accept()
			return c.held
		}},
		{"FetchTokens", func(t *testing.T, w *world, _ uint64) map[string]int64 {
			t.Helper()
			held := map[string]int64{}
			for _, resp := range fetch(t, w, "") {
				for _, token := range tokens(t, resp.GetResources()) {
					held[token.GetJti()] = token.GetExpirytime()
				}
			}
			return held
		}},
		{"delta", func(t *testing.T, w *world, head uint64) map[string]int64 {
			t.Helper()
			c := w.delta(t)
			c.follow(head)
			return c.held
		}},
		{"delta by name", func(t *testing.T, w *world, head uint64) map[string]int64 {
			t.Helper()
			c := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: everything})
			c.follow(head)
			return c.held
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := start(t)
			head := w.put(revoked("jti", later), opaque, refresh, rule)
			held := c.get(t, w, head)
			if len(held) != len(want) {
				t.Errorf("served: %v", held)
			}
			for _, name := range want {
				if held[name] != later.UnixMilli() {
					t.Errorf("%s is not served", name)
				}
			}
		})
	}
}

// Go-control-plane writes the nonce into the message that it is given. Streams
// that began at different times get the same change with different nonces.
func TestNoResponseIsSharedBetweenStreams(t *testing.T) {
	t.Parallel()
	w := start(t)
	var clients []*sotwClient
	for i := range 30 {
		s := streamTokens
		if i%2 == 1 {
			s = aggregated
		}
		c := w.subscribe(t, s, "")
		c.accept()
		clients = append(clients, c)
		w.revoke(fmt.Sprint("new ", i))
		for j, c := range clients {
			if resp := c.accept(); resp.GetNonce() != fmt.Sprint(i-j+2) || len(resp.GetResources()) != 1 {
				t.Fatalf("stream %d got %v, want one token with nonce %d", j, resp, i-j+2)
			}
		}
	}
}
