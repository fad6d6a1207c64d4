package xds_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"

	"revocation-adapter/xds"
)

// The deployed enforcer opens a second stream if this takes too long.
func TestResumeWithNothingNewIsAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			w := start(t)
			head := w.revoke(uuids(1, 10)...)
			c := w.subscribe(t, s, text(head))
			resp := c.accept()
			if len(resp.GetResources()) != 0 || resp.GetVersionInfo() != text(head) {
				t.Errorf("got %v, want nothing at %d", resp, head)
			}
			w.revoke("a")
			if resp := c.accept(); resp.GetNonce() != "2" || !slices.Equal(jtis(t, resp), []string{"a"}) {
				t.Errorf("then %v, want a with nonce 2", resp)
			}
		})
	}
}

// An enforcer that resumes still carries the nonce of its former stream.
func TestNonceOfAFormerStreamMeansNothing(t *testing.T) {
	t.Parallel()
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			w := start(t)
			c := w.open(t, s)
			c.version = "1000"
			c.send(&discovery.DiscoveryRequest{ResponseNonce: "1", ErrorDetail: refusal("of the former stream")})
			if resp := c.accept(); resp.GetVersionInfo() != "1000" || resp.GetNonce() != "1" {
				t.Errorf("got %v", resp)
			}
			if refusals := w.lines(refusalLine); len(refusals) != 0 {
				t.Errorf("a refusal is logged: %v", refusals[0].Data)
			}
		})
	}
}

func TestVersionsThatClientsClaim(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, claim string
		whole       bool
	}{
		{"none", "", true},
		{"zero", "0", true},
		{"before the log", "17", true},
		{"a word", "latest", true},
		{"negative", "-1001", true},
		{"with a sign", "+1010", true},
		{"with a fraction", "1010.0", true},
		{"too large for 64 bits", "18446744073709551616", true},
		{"beyond the hub's last", "1021", true},
		{"the largest number", "18446744073709551615", true},
		{"in the middle", "1005", false},
	}
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			w := start(t)
			head := w.revoke(uuids(1, 10)...)
			w.hub.Store(head + 10)
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) {
					want := 10
					if !c.whole {
						want = 5
					}
					resp := w.subscribe(t, s, c.claim).accept()
					if n := len(resp.GetResources()); n != want || resp.GetVersionInfo() != text(head) {
						t.Errorf("%d tokens at %s, want %d at %d", n, resp.GetVersionInfo(), want, head)
					}
				})
			}
		})
	}
}

func TestVersionAheadOfThisReplicaWaitsForIt(t *testing.T) {
	t.Parallel()
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			w := start(t)
			w.hub.Store(1003)
			c := w.subscribe(t, s, "1002")
			w.revoke("a") // 1001
			c.quiet(100 * time.Millisecond)
			w.revoke("b") // 1002
			if resp := c.accept(); len(resp.GetResources()) != 0 || resp.GetVersionInfo() != "1002" {
				t.Errorf("got %v, want nothing at 1002", resp)
			}
			w.revoke("c") // 1003
			if resp := c.accept(); !slices.Equal(jtis(t, resp), []string{"c"}) || resp.GetVersionInfo() != "1003" {
				t.Errorf("got %v, want c at 1003", resp)
			}
		})
	}
}

func TestWaitForTheHeadSurvivesAskingForEverything(t *testing.T) {
	t.Parallel()
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			var asked atomic.Int64 // once for each request
			w := start(t, func(c *xds.Config) {
				c.Last = func(context.Context) (uint64, error) { asked.Add(1); return 1002, nil }
			})
			c := w.subscribe(t, s, "1002", "a")
			c.ask("", "*")
			until(t, "the server has taken both", func() bool { return asked.Load() == 2 })
			c.quiet(50 * time.Millisecond)
			w.revoke("a", "b")
			c.gets("a", "b")
		})
	}
}

// A late ACK of another stream's response must not take away the answer that
// the first request waits for.
func TestWaitForTheHeadSurvivesAForeignACK(t *testing.T) {
	t.Parallel()
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			w := start(t)
			w.hub.Store(1002)
			c := w.subscribe(t, s, "1002")
			c.send(&discovery.DiscoveryRequest{ResponseNonce: "of another stream"})
			c.quiet(50 * time.Millisecond) // until the server has taken both
			w.revoke("a", "b")
			if resp := c.accept(); len(resp.GetResources()) != 0 || resp.GetVersionInfo() != "1002" {
				t.Errorf("got %v, want nothing at 1002", resp)
			}
		})
	}
}

func TestHubThatDoesNotAnswerEndsTheStream(t *testing.T) {
	t.Parallel()
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			w := start(t, func(c *xds.Config) {
				c.Last = func(context.Context) (uint64, error) { return 0, errors.New("no leader") }
			})
			if got := w.subscribe(t, s, "1001").end(); got.Code() != codes.Unavailable {
				t.Errorf("a version ahead: the stream ended with %v", got)
			}
			if resp := w.subscribe(t, s, "1000").accept(); resp.GetVersionInfo() != "1000" {
				t.Errorf("a version of ours needs no hub, got %v", resp)
			}
		})
	}
}

func TestBrokenSyncResumesWhereItStood(t *testing.T) {
	t.Parallel()
	cases := []struct {
		service   service
		chunks    int // ACKed
		lastTaken bool
	}{
		{streamTokens, 0, false},
		{streamTokens, 0, true},
		{aggregated, 1, false},
		{streamTokens, 1, true},
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%s after %d chunks, the next taken: %v", c.service.name, c.chunks, c.lastTaken), func(t *testing.T) {
			resumeAfter(t, c.service, c.chunks, c.lastTaken)
		})
	}
}

// resumeAfter breaks a sync of three chunks after some, changes the set, and
// continues on another stream.
func resumeAfter(t *testing.T, s service, chunks int, lastACKed bool) {
	t.Helper()
	w := start(t)
	all := threeChunks()
	w.revoke(all...)
	ctx, hangUp := context.WithCancel(t.Context())
	broken := openOn(ctx, t, s, w.dial())
	broken.send(&discovery.DiscoveryRequest{})
	for range chunks {
		broken.accept()
	}
	if last := broken.next(); lastACKed {
		broken.take(last)
	}
	hangUp()
	w.approve(all[len(all)-1])
	w.put(revoked(all[0], later.Add(time.Hour)))
	head := w.revoke("new")

	resumed := w.subscribe(t, s, broken.version)
	resumed.held = broken.held
	before := len(broken.held)
	responses := resumed.follow(head)
	rising(t, responses, head)
	got := 0
	for _, r := range responses {
		got += len(r.GetResources())
	}
	again := min(1, before) // all[0] has changed
	if want := len(w.truth()) - before + again; got != want {
		t.Errorf("%d tokens after %d, want %d: the rest", got, before, want)
	}
	same(t, resumed.held, w.truth())
}

func TestReconnectGetsWhatCameSince(t *testing.T) {
	t.Parallel()
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			w := start(t)
			held := w.revoke(uuids(1, 1000)...)
			head := w.revoke("b", "a", "c")
			c := w.subscribe(t, s, text(held))
			resp := c.accept()
			if got := jtis(t, resp); !slices.Equal(got, []string{"b", "a", "c"}) || resp.GetVersionInfo() != text(head) {
				t.Errorf("%d tokens at %s, want three at %d", len(got), resp.GetVersionInfo(), head)
			}
			w.revoke("d")
			if got := jtis(t, c.accept()); !slices.Equal(got, []string{"d"}) {
				t.Errorf("then %q, want d", got)
			}
		})
	}
}
