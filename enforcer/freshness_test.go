package enforcer_test

import (
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"revocation-adapter/enforcer"
)

// The machine begins with a wrong clock, hears from an adapter, is set right, and
// hears nothing any more: the set grows old from then on.
func TestClockSetBack(t *testing.T) {
	whole := step{reset: true, to: 20, head: 20, at: time.Hour, revoke: "a", version: 20, completeAt: time.Hour}
	tests := []struct {
		name string
		look func(t *testing.T, e *enforcer.Enforcer)
	}{
		{"by the purge", func(_ *testing.T, e *enforcer.Enforcer) { e.Purge() }},
		{"by a check", func(t *testing.T, e *enforcer.Enforcer) { wantVerdict(t, e, jwtOf("x"), enforcer.Pass) }},
		{"by who asks how fresh it is", func(_ *testing.T, e *enforcer.Enforcer) { e.Freshness() }},
		{"by who asks whether it is ready", func(_ *testing.T, e *enforcer.Enforcer) { e.NotReady() }},
		{"by a batch", func(t *testing.T, e *enforcer.Enforcer) {
			take(t, e, step{from: 20, to: 21, head: 21, revoke: "b", at: -time.Hour}.response())
		}},
		{"by a response without one", func(t *testing.T, e *enforcer.Enforcer) {
			r := step{}.response()
			r.Resources, r.VersionInfo = nil, "22-hub"
			take(t, e, r)
		}},
		{"while a set is loaded", func(t *testing.T, e *enforcer.Enforcer) {
			take(t, e, step{reset: true, to: 30, head: 40, at: -time.Hour}.response())
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := clockAt(epoch.Add(time.Hour))
			e := build(t, configOf(c, &adapter{address: "127.0.0.1:1"}))
			whole.check(t, e)
			c.advance(-time.Hour)
			tt.look(t, e)
			c.advance(time.Minute) // no look before: it would do what is tested
			wantVerdict(t, e, jwtOf("y"), enforcer.Pass)
			c.advance(time.Second)
			wantVerdict(t, e, jwtOf("x"), enforcer.Stale)
			wantVerdict(t, e, jwtOf("a"), enforcer.Revoked)
			c.advance(time.Hour) // what it said of this hour, it said by a wrong clock
			wantVerdict(t, e, jwtOf("x"), enforcer.Stale)
			if f := e.Freshness(); !f.Stale || !f.Complete.Equal(epoch) {
				t.Errorf("%+v", f)
			}
		})
	}
}

func take(t *testing.T, e *enforcer.Enforcer, r *discovery.DiscoveryResponse) {
	t.Helper()
	if err := e.Take(r); err != nil {
		t.Fatal(err)
	}
}

// What was said of a set that is loaded is no fresher than the clock either.
func TestClockSetBackInALoad(t *testing.T) {
	tests := []struct {
		name     string
		complete uint64 // of the first batch
	}{
		{"said of what had come", 3},
		{"said of what was to come", 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := clockAt(epoch.Add(time.Hour))
			e := build(t, configOf(c, &adapter{address: "127.0.0.1:1"}))
			step{reset: true, to: 3, head: 5, complete: tt.complete, at: time.Hour, version: 3, stale: true}.check(t, e)
			c.advance(-time.Hour)
			e.Purge()
			c.advance(2 * time.Hour)
			take(t, e, step{from: 3, to: 5, head: 5, at: -time.Hour}.response())
			if f := e.Freshness(); !f.Stale || !f.Complete.Equal(epoch) {
				t.Errorf("%+v", f)
			}
		})
	}
}

// A restart does not bring back what a wrong clock said.
func TestClockSetBackBeforeARestart(t *testing.T) {
	c := clockAt(epoch.Add(time.Hour))
	cfg, _ := withFile(t, c, &adapter{address: "127.0.0.1:1"})
	e := build(t, cfg)
	step{reset: true, to: 20, head: 20, at: time.Hour, version: 20, completeAt: time.Hour}.check(t, e)
	e.Save()
	c.advance(-time.Hour)
	if f := build(t, again(cfg)).Freshness(); f.Stale || !f.Complete.Equal(epoch) {
		t.Errorf("restarted at once: %+v", f)
	}
	e.Save()
	c.advance(30 * time.Minute)
	e = build(t, again(cfg))
	if f := e.Freshness(); !f.Stale || !f.Complete.Equal(epoch) {
		t.Errorf("restarted later: %+v", f)
	}
}

// Each restart would find the file as fresh as now, were it not written again.
func TestClockSetBackWhileItWasDown(t *testing.T) {
	c := clockAt(epoch.Add(time.Hour))
	cfg, _ := withFile(t, c, &adapter{address: "127.0.0.1:1"})
	e := build(t, cfg)
	step{reset: true, to: 20, head: 20, at: time.Hour, version: 20, completeAt: time.Hour}.check(t, e)
	e.Save()
	c.advance(-time.Hour)
	e = build(t, again(cfg))
	e.Save()
	c.advance(30 * time.Minute)
	if f := build(t, again(cfg)).Freshness(); !f.Stale || !f.Complete.Equal(epoch) {
		t.Errorf("%+v", f)
	}
}

// A clock that was ahead for a while drops nothing that counts when it is right
// again: not in memory, and not in the file.
func TestClockAhead(t *testing.T) {
	for name, glitch := range map[string]func(e *enforcer.Enforcer, cfg enforcer.Config) *enforcer.Enforcer{
		"by the purge": func(e *enforcer.Enforcer, _ enforcer.Config) *enforcer.Enforcer {
			e.Purge()
			return e
		},
		"by a snapshot": func(e *enforcer.Enforcer, cfg enforcer.Config) *enforcer.Enforcer {
			e.Save()
			return build(t, again(cfg))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := clockAt(epoch)
			cfg, _ := withFile(t, c, &adapter{address: "127.0.0.1:1"})
			e := build(t, cfg)
			b := step{reset: true, to: 5, head: 5, revoke: "a"}.batch()
			b.Expiries, _ = appendExpiry(nil, epoch.Add(time.Hour).Unix(), 0)
			take(t, e, respond(b, "hub"))
			c.advance(24 * time.Hour)
			e = glitch(e, cfg)
			c.advance(-24 * time.Hour)
			wantVerdict(t, e, jwtOf("a"), enforcer.Revoked)
			wantVerdict(t, e, jwtOf("x"), enforcer.Pass)
		})
	}
}

// A clock that stands near the epoch makes nothing fresh of which it is not known.
func TestClockAtTheEpoch(t *testing.T) {
	e := build(t, configOf(clockAt(time.Unix(5, 0)), &adapter{address: "127.0.0.1:1"}))
	r := step{reset: true, to: 5, head: 5}.batch()
	r.CompleteVersion, r.CompleteAtMicros = 0, 0
	take(t, e, respond(r, "hub"))
	wantVerdict(t, e, jwtOf("x"), enforcer.Stale)
}

// How fresh a set of another hub is, only the other hub's adapters can say.
func TestSetsOfAnotherHub(t *testing.T) {
	const unknown = -2 * time.Hour
	tests := []struct {
		name  string
		steps []step
		want  time.Duration // since epoch
	}{
		{"of which nothing is said", []step{
			{reset: true, to: 5, head: 5, at: unknown},
		}, unknown},
		{"said with the last batch", []step{
			{reset: true, to: 3, head: 5, at: unknown},
			{from: 3, to: 5, head: 5, at: time.Second},
		}, time.Second},
		{"said before, of a part", []step{
			{reset: true, to: 3, head: 5, at: 2 * time.Second},
			{from: 3, to: 4, head: 5, at: time.Second},
			{from: 4, to: 5, head: 5, at: unknown},
		}, 2 * time.Second},
		{"said before, of the whole", []step{
			{reset: true, to: 3, head: 5, complete: 4, at: time.Second},
			{from: 3, to: 5, head: 5, at: unknown},
		}, time.Second},
		{"said of more than has come", []step{
			{reset: true, to: 3, head: 5, complete: 6, at: time.Second},
			{from: 3, to: 5, head: 5, at: unknown},
		}, unknown},
		{"said of a set that was begun again", []step{
			{reset: true, to: 3, head: 5, complete: 4, at: 2 * time.Second},
			{reset: true, to: 5, head: 5, at: unknown},
		}, unknown},
		{"said of the future", []step{
			{reset: true, to: 3, head: 5, at: time.Hour},
			{from: 3, to: 5, head: 5, at: unknown},
		}, 10 * time.Second},
		{"said later", []step{
			{reset: true, to: 5, head: 5, at: unknown},
			{from: 5, to: 5, head: 5, at: time.Second},
		}, time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := build(t, configOf(clockAt(epoch.Add(10*time.Second)), &adapter{address: "127.0.0.1:1"}))
			step{reset: true, to: 20, head: 20, at: 9 * time.Second, revoke: "a b", version: 20, completeAt: 9 * time.Second}.check(t, e)
			for _, s := range tt.steps {
				s.proof = "new"
				r := s.batch()
				if s.at == unknown {
					r.CompleteVersion, r.CompleteAtMicros = 0, 0
				}
				if err := e.Take(respond(r, s.proof)); err != nil {
					t.Fatal(err)
				}
			}
			f, known := e.Freshness(), tt.want != unknown
			if f.Version != 5 || f.Stale == known || (e.NotReady() == "") != known {
				t.Errorf("%+v, %q", f, e.NotReady())
			}
			if known && !f.Complete.Equal(epoch.Add(tt.want)) || !known && !f.Complete.IsZero() {
				t.Errorf("complete at %v", f.Complete)
			}
			want := enforcer.Stale
			if known {
				want = enforcer.Pass
			}
			wantVerdict(t, e, jwtOf("b"), want)
		})
	}
}

func TestStaleness(t *testing.T) {
	tests := []struct {
		name     string
		policy   enforcer.Policy
		patience time.Duration
		after    time.Duration
		want     enforcer.Verdict
		stale    bool
	}{
		{"fresh", enforcer.Deny, time.Minute, time.Minute, enforcer.Pass, false},
		{"denied", enforcer.Deny, time.Minute, time.Minute + 1000, enforcer.Stale, true},
		{"allowed", enforcer.Allow, time.Minute, time.Minute + 1000, enforcer.Pass, true},
		{"never", enforcer.Deny, 0, 1000 * time.Hour, enforcer.Pass, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := clockAt(epoch)
			cfg := configOf(c, &adapter{address: "127.0.0.1:1"})
			cfg.OnStale, cfg.MaxStaleness = tt.policy, tt.patience
			e := build(t, cfg)
			step{reset: true, to: 4, head: 4, revoke: "a", version: 4}.check(t, e)
			c.advance(tt.after)
			if d := e.Check(jwtOf("x")); d.Verdict != tt.want || d.Stale != tt.stale || d.Version != 4 {
				t.Errorf("%+v", d)
			}
			if d := e.Check(jwtOf("a")); d.Verdict != enforcer.Revoked || d.Stale != tt.stale {
				t.Errorf("revoked: %+v", d)
			}
			if f := e.Freshness(); f.Stale != tt.stale || !f.Complete.Equal(epoch) || e.NotReady() != "" {
				t.Errorf("%+v, %s", f, e.NotReady())
			}
		})
	}
}
