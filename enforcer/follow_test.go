package enforcer_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"revocation-adapter/enforcer"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
)

func TestFollows(t *testing.T) {
	h, c := newHub(), clockAt(epoch)
	h.completeAt(epoch)
	h.revoke("one")
	a := serve(t, h)
	e := build(t, configOf(c, a))
	wantVerdict(t, e, jwtOf("other"), enforcer.Stale)
	if e.NotReady() == "" {
		t.Error("it is ready and knows nothing")
	}
	run(t, e)
	reaches(t, e, h.revoke("two"))
	wantVerdict(t, e, jwtOf("one"), enforcer.Revoked)
	wantVerdict(t, e, jwtOf("two"), enforcer.Revoked)
	wantVerdict(t, e, jwtOf("three"), enforcer.Pass)
	if reason := e.NotReady(); reason != "" {
		t.Errorf("not ready: %s", reason)
	}
	h.rule("azp", "client", epoch.Add(time.Millisecond))
	reaches(t, e, h.approve("one"))
	wantVerdict(t, e, jwtOf("one"), enforcer.Pass)
	token := jwtOf("one")
	token.Claims = map[string][]string{"azp": {"x", "client"}}
	if d := e.Check(token); d.Verdict != enforcer.Revoked || d.Rule != "azp" {
		t.Errorf("a rule names it: %+v", d)
	}
	token.IssuedAt++
	wantVerdict(t, e, token, enforcer.Pass)
}

// Whatever breaks, what an enforcer holds is gone on from: a whole set is sent
// once, to whoever has nothing.
func TestReconnectsResume(t *testing.T) {
	h, c := newHub(), clockAt(epoch)
	h.completeAt(epoch)
	for i := range 100 {
		h.revoke(fmt.Sprint("jti ", i))
	}
	a, b := serve(t, h), serve(t, h)
	for _, each := range []*adapter{a, b} {
		each.set(func(a *adapter) { a.page, a.limit = 7, 3 }) // 21 tokens, and it breaks
	}
	e := build(t, configOf(c, a, b))
	stop := run(t, e)
	reaches(t, e, h.version)
	for i := range 20 {
		a.set(func(*adapter) {})
		b.set(func(*adapter) {})
		reaches(t, e, h.revoke(fmt.Sprint("later ", i)))
	}
	stop()
	run(t, e) // the same enforcer, again
	reaches(t, e, h.revoke("last"))
	c.advance(time.Second)
	sent, resets := 0, 0
	for _, each := range []*adapter{a, b} {
		each.look(func(a *adapter) { sent, resets = sent+a.sent, resets+a.resets })
	}
	if resets != 1 {
		t.Errorf("%d whole sets were sent in %d batches, want one", resets, sent)
	}
	for i := range 100 {
		wantVerdict(t, e, jwtOf(fmt.Sprint("jti ", i)), enforcer.Revoked)
	}
}

func TestFailsOverFromSilence(t *testing.T) {
	h, c := newHub(), clockAt(epoch)
	h.completeAt(epoch)
	a, b := serve(t, h), serve(t, h)
	a.set(func(a *adapter) { a.mute = true })
	b.set(func(a *adapter) { a.mute = true })
	e := start(t, configOf(c, a, b))
	eventually(t, "both were tried", func() bool {
		tried := true
		for _, each := range []*adapter{a, b} {
			each.look(func(a *adapter) { tried = tried && a.streams > 0 })
		}
		return tried
	})
	b.set(func(a *adapter) { a.mute = false })
	reaches(t, e, h.revoke("one"))
	wantVerdict(t, e, jwtOf("one"), enforcer.Revoked)
	heartbeats := time.NewTicker(50 * time.Millisecond)
	defer heartbeats.Stop()
	eventually(t, "there is one connection", func() bool {
		<-heartbeats.C
		h.completeAt(epoch)
		return a.conns.open.Load() == 0 && b.conns.open.Load() == 1
	})
}

// An adapter that has not come as far as another had is no fault, and no news.
func TestBehind(t *testing.T) {
	h := newHub()
	h.completeAt(epoch)
	a := serve(t, h)
	e := start(t, configOf(clockAt(epoch), a))
	version := h.revoke("one")
	reaches(t, e, version)
	a.look(func(a *adapter) { a.say = append(a.say, step{from: 5, to: 5, head: 5}.response()) })
	reaches(t, e, h.revoke("two"))
	a.look(func(a *adapter) {
		if len(a.nacks) > 0 || a.streams != 1 || a.resets != 1 {
			t.Errorf("%d streams, %d whole sets, refused %v", a.streams, a.resets, a.nacks)
		}
	})
}

func TestFirstRequest(t *testing.T) {
	h := newHub()
	h.proof = "proof-with-dashes"
	h.completeAt(epoch)
	a := serve(t, h)
	cfg := configOf(clockAt(epoch), a)
	cfg.Tenants = []string{"acme", "-1234"}
	e := start(t, cfg)
	version := h.revoke("one")
	reaches(t, e, version)
	eventually(t, "the batch is acknowledged", func() (acked bool) {
		a.look(func(a *adapter) { acked = a.acked == fmt.Sprintf("%d-proof-with-dashes", version) })
		return acked
	})
	a.set(func(*adapter) {})
	reaches(t, e, h.revoke("two"))
	a.look(func(a *adapter) {
		for i, want := range []string{"", fmt.Sprintf("%d-proof-with-dashes", version)} {
			r := a.first[i]
			if r.GetTypeUrl() != enforcer.BatchType || r.GetVersionInfo() != want || r.GetNode().GetId() != "enforcer" {
				t.Errorf("request %d: %v, want version %q", i, r, want)
			}
			if got := r.GetNode().GetMetadata().AsMap(); !reflect.DeepEqual(got, map[string]any{
				"instanceIdentifier": "gateway-1", "tenants": []any{"acme", "-1234"},
			}) {
				t.Errorf("request %d: metadata %v", i, got)
			}
		}
	})
}

func TestRefusesOnTheStream(t *testing.T) {
	h := newHub()
	h.completeAt(epoch)
	a := serve(t, h)
	e := start(t, configOf(clockAt(epoch), a))
	version := h.revoke("one")
	reaches(t, e, version)
	a.look(func(a *adapter) {
		a.say = append(a.say, respond(&revocationv1.Batch{Digests: []byte("short"), FromVersion: version, ToVersion: version + 5, HeadVersion: version + 5}, "hub"))
	})
	reaches(t, e, h.revoke("two"))
	a.look(func(a *adapter) {
		if len(a.nacks) != 1 || !strings.Contains(a.nacks[0].GetErrorDetail().GetMessage(), "digests of 5 bytes") ||
			a.nacks[0].GetVersionInfo() != fmt.Sprintf("%d-hub", version) || a.streams != 1 {
			t.Errorf("%d streams, refused %v", a.streams, a.nacks)
		}
	})
}

// What ends a stream, whatever it is, ends nothing else: another one is opened,
// and goes on.
func TestStreamsThatEnd(t *testing.T) {
	missed := func(b *revocationv1.Batch) { b.FromVersion, b.ToVersion, b.HeadVersion = 1<<50, 1<<50, 1<<50 }
	huge := func(b *revocationv1.Batch) { b.Removed = make([]byte, 9<<20) }
	tests := []struct {
		name   string
		say    func(b *revocationv1.Batch)
		end    error
		resets int
	}{
		{"with an error", nil, status.Error(codes.Internal, "x"), 1},
		{"as if all was well", nil, errFine, 1},
		{"after a gap", missed, nil, 2},
		{"with a response that is too long", huge, nil, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHub()
			h.completeAt(epoch)
			a := serve(t, h)
			e := start(t, configOf(clockAt(epoch), a))
			reaches(t, e, h.revoke("one"))
			a.look(func(a *adapter) {
				if a.end = tt.end; tt.say != nil {
					b := &revocationv1.Batch{}
					tt.say(b)
					a.say = append(a.say, respond(b, "hub"))
				}
			})
			reaches(t, e, h.revoke("two"))
			eventually(t, "another stream is open", func() (open bool) {
				a.look(func(a *adapter) { open = a.streams == 2 })
				return open
			})
			reaches(t, e, h.revoke("three"))
			a.look(func(a *adapter) {
				if a.resets != tt.resets {
					t.Errorf("%d whole sets, want %d", a.resets, tt.resets)
				}
			})
			for _, jti := range []string{"one", "two", "three"} {
				wantVerdict(t, e, jwtOf(jti), enforcer.Revoked)
			}
		})
	}
}

// Of many adapters, those that are away, that refuse, and that are behind do not
// matter.
func TestOneGoodAdapterIsEnough(t *testing.T) {
	h := newHub()
	h.completeAt(epoch)
	away, refuses, behind, good := serve(t, h), serve(t, h), serve(t, h), serve(t, h)
	away.stop()
	refuses.set(func(a *adapter) { a.refuse = status.Error(codes.InvalidArgument, "unknown type URL") })
	behind.set(func(a *adapter) { a.reach = h.version })
	e := start(t, configOf(clockAt(epoch), away, refuses, behind, good))
	for i := range 3 {
		version := h.revoke(fmt.Sprint(i))
		reaches(t, e, version)
		good.set(func(*adapter) {}) // and again from the next in the list
	}
	wantVerdict(t, e, jwtOf("0"), enforcer.Revoked)
}

// An adapter that has nothing new to say, but says so, is not left.
func TestHeartbeatsKeepAStream(t *testing.T) {
	for try := 1; ; try++ {
		streams, gap := beaten(t)
		switch {
		case streams == 1:
			return
		case gap < 150*time.Millisecond || try == 10: // else the machine was busy: it was silent
			t.Fatalf("%d streams, want one; the longest silence was %s", streams, gap)
		}
	}
}

// beaten follows one of two adapters for a second, which beat all the time, and
// returns how many streams there were, and the longest time between two beats.
func beaten(t *testing.T) (streams int, gap time.Duration) {
	t.Helper()
	h, c := newHub(), clockAt(epoch)
	h.completeAt(epoch)
	a, b := serve(t, h), serve(t, h)
	e := start(t, configOf(c, a, b))
	reaches(t, e, h.revoke("one"))
	last := time.Now()
	for range 20 {
		<-time.After(50 * time.Millisecond)
		c.advance(time.Second)
		h.completeAt(c.now())
		gap = max(gap, time.Since(last))
		last = time.Now()
	}
	eventually(t, "the set is complete", func() bool { return e.Freshness().Complete.Equal(c.now()) })
	for _, each := range []*adapter{a, b} {
		each.look(func(a *adapter) { streams += a.streams })
	}
	return streams, gap
}

// An adapter that is alive, but cut off from its hub, is left before the set is
// stale.
func TestFailsOverFromAnOldLog(t *testing.T) {
	h, c := newHub(), clockAt(epoch)
	h.completeAt(epoch)
	a, b := serve(t, h), serve(t, h)
	a.set(func(a *adapter) { a.cutOff = epoch })
	b.stop()
	e := start(t, configOf(c, a, b))
	reaches(t, e, h.revoke("one"))
	eventually(t, "the set is complete", func() bool { return e.Freshness().Complete.Equal(epoch) })
	b = serveWith(t, h, grpc.NewServer(grpc.WaitForHandlers(true)), b.address)
	c.advance(31 * time.Second)
	eventually(t, "the other adapter is followed", func() bool {
		h.completeAt(c.now())
		return !e.Freshness().Complete.Equal(epoch)
	})
	b.look(func(b *adapter) {
		if b.resets > 0 || b.streams == 0 {
			t.Errorf("%d streams, %d whole sets", b.streams, b.resets)
		}
	})
	wantVerdict(t, e, jwtOf("other"), enforcer.Pass)
}

// A single adapter is not left for its silence: there is nobody else.
func TestSilenceOfTheOnlyAdapter(t *testing.T) {
	h := newHub()
	h.completeAt(epoch)
	a := serve(t, h)
	e := start(t, configOf(clockAt(epoch), a))
	reaches(t, e, h.revoke("one"))
	<-time.After(700 * time.Millisecond)
	a.look(func(a *adapter) {
		if a.streams != 1 {
			t.Errorf("%d streams, want one", a.streams)
		}
	})
}

func TestRunOnce(t *testing.T) {
	a := serve(t, newHub())
	e := start(t, configOf(clockAt(epoch), a))
	eventually(t, "it runs", func() (open bool) {
		a.look(func(a *adapter) { open = a.streams > 0 })
		return open
	})
	if err := e.Run(t.Context()); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("a second Run: %v", err)
	}
}

func TestConfig(t *testing.T) {
	good := func() enforcer.Config { return enforcer.Config{Adapters: []string{"localhost:1"}} }
	tests := []struct {
		name   string
		change func(cfg *enforcer.Config)
		want   string
	}{
		{"no adapter", func(cfg *enforcer.Config) { cfg.Adapters = nil }, "no adapter"},
		{"an adapter without a port", func(cfg *enforcer.Config) { cfg.Adapters = []string{"localhost"} }, `adapter "localhost"`},
		{"a negative grace", func(cfg *enforcer.Config) { cfg.Grace = -1 }, "negative"},
		{"a negative staleness", func(cfg *enforcer.Config) { cfg.MaxStaleness = -1 }, "negative"},
		{"another policy", func(cfg *enforcer.Config) { cfg.OnStale = 7 }, "policy 7"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good()
			tt.change(&cfg)
			if _, err := enforcer.New(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := enforcer.New(good()); err != nil {
		t.Error(err)
	}
}

// Waits grow, and gateways do not wait alike.
func TestRetry(t *testing.T) {
	for n, bound := range map[int]time.Duration{
		1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 7: 6400 * time.Millisecond,
		8: 10 * time.Second, 100: 10 * time.Second, 1 << 40: 10 * time.Second,
	} {
		least, most := time.Hour, time.Duration(0)
		for range 1000 {
			wait := enforcer.Retry(n)
			least, most = min(least, wait), max(most, wait)
		}
		if least <= 0 || least > bound/10 || most > bound || most < bound*9/10 {
			t.Errorf("try %d waits %v to %v, want anything up to %v", n, least, most, bound)
		}
	}
}
