package enforcer_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"revocation-adapter/enforcer"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// world is one enforcer, its adapters, and what happens to them.
type world struct {
	t        *testing.T
	rng      *rand.Rand
	clock    *clock       // the adapters'
	behind   atomic.Int64 // how far the enforcer's clock is, in microseconds; negative: ahead
	hub      *hub
	adapters []*adapter
	cfg      enforcer.Config
	rebased  int

	e    atomic.Pointer[enforcer.Enforcer] // the one that runs now
	stop func()

	mu      sync.Mutex
	witness []witness // tokens that stay revoked
}

// witness is a token that was revoked at a time, and is never approved.
type witness struct {
	raw   string
	early enforcer.Token // as it was read before
	at    time.Time
}

// refused returns what e says of the token, read before or now, where that is not
// that it is revoked.
func (w witness) refused(e *enforcer.Enforcer) (enforcer.Decision, bool) {
	if d := e.Check(w.early); d.Verdict != enforcer.Revoked {
		return d, false
	}
	token, err := e.Parse(w.raw)
	d := e.Check(token)
	return d, err == nil && d.Verdict == enforcer.Revoked
}

// TestModel lets everything happen to an enforcer, and compares it with a map
// whenever it settles. All the time, a token that was revoked by the time of which
// the enforcer says that it knows all until then must be refused. Its clock is wrong
// now and then: who hears nothing goes stale all the same, and nothing is forgotten.
func TestModel(t *testing.T) {
	seeds := uint64(8)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, seed)
			ctx, cancel := context.WithCancel(t.Context())
			var readers sync.WaitGroup
			readers.Go(func() { w.read(ctx) })
			for range 8 {
				for range 12 {
					w.step()
				}
				w.settle()
				w.restartInALoad()
			}
			cancel()
			readers.Wait()
		})
	}
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 7)), clock: clockAt(epoch), hub: newHub()}
	w.hub.now = w.clock.now
	for range 3 {
		w.adapters = append(w.adapters, serve(t, w.hub))
	}
	w.cfg = configOf(w.clock, w.adapters...)
	w.cfg.Now = func() time.Time { return w.clock.now().Add(-time.Duration(w.behind.Load()) * time.Microsecond) }
	w.cfg.SnapshotFile = filepath.Join(t.TempDir(), "set")
	w.cfg.SnapshotEvery = 30 * time.Millisecond
	w.begin()
	for range 50 {
		w.revoke()
	}
	return w
}

func (w *world) begin() {
	w.runs(build(w.t, again(w.cfg)))
}

func (w *world) runs(e *enforcer.Enforcer) {
	w.e.Store(e)
	w.stop = run(w.t, e)
}

// read looks for a breach until ctx ends.
func (w *world) read(ctx context.Context) {
	for ctx.Err() == nil {
		e := w.e.Load()
		complete := e.Freshness().Complete
		w.mu.Lock()
		witness := w.witness
		w.mu.Unlock()
		for _, each := range witness {
			if each.at.After(complete) {
				break
			}
			// A set of another hub may have come between, of which it is not known.
			if d, refused := each.refused(e); !refused && !e.Freshness().Complete.Before(complete) {
				w.t.Errorf("jti %q, revoked at %v, passes a set that is complete at %v: %+v", each.early.ID, each.at, complete, d)
				return
			}
		}
	}
}

// step is one thing that happens.
func (w *world) step() {
	w.clock.advance(time.Duration(w.rng.IntN(1000)) * time.Millisecond)
	a := w.adapters[w.rng.IntN(len(w.adapters))]
	switch w.rng.IntN(18) {
	case 0, 1, 2, 3:
		for range 1 + w.rng.IntN(20) {
			w.revoke()
		}
	case 4, 5:
		w.hub.approve(w.fleeting())
	case 6:
		w.hub.put(w.rule().digest, item{})
	case 7:
		a.set(func(a *adapter) { a.page, a.limit = 1+w.rng.IntN(30), w.rng.IntN(6) })
	case 8:
		a.set(func(a *adapter) { a.reach = w.hub.head() })
	case 9:
		a.set(func(a *adapter) { a.mute = true })
	case 10:
		w.lie(a)
	case 11:
		w.hub.compact()
	case 12:
		w.rebased++
		w.hub.rebase(fmt.Sprint("hub", w.rebased), uint64(w.rng.IntN(100_000)))
	case 13:
		w.stop()
		w.begin()
	case 14:
		w.clock.advance(time.Duration(w.rng.IntN(10)) * time.Minute)
	case 15:
		for _, a := range w.adapters {
			a.set(func(*adapter) {})
		}
	case 16:
		w.behind.Store(w.rng.Int64N(2*time.Hour.Microseconds()) - time.Hour.Microseconds())
		w.e.Load().Purge()
	case 17:
		w.cutOff()
	}
}

// cutOff lets the enforcer hear nothing for longer than MaxStaleness, after its
// clock may have been set back.
func (w *world) cutOff() {
	w.stop()
	w.behind.Add(w.rng.Int64N(2) * w.rng.Int64N(time.Hour.Microseconds()))
	e := w.e.Load()
	e.Purge()
	e.Save()
	w.clock.advance(w.cfg.MaxStaleness + time.Second)
	if f := e.Freshness(); !f.Stale {
		w.t.Errorf("it heard nothing for long: %+v", f)
	}
	e = build(w.t, again(w.cfg))
	if f := e.Freshness(); !f.Stale {
		w.t.Errorf("it heard nothing for long, and was restarted: %+v", f)
	}
	w.runs(e)
}

// restartInALoad restarts a settled enforcer when a part of a whole set has come,
// and lets it hear from a replica that lags: nothing is forgotten.
func (w *world) restartInALoad() {
	w.t.Helper()
	w.stop()
	head, proof := w.hub.head(), w.hub.proofNow()
	part, _ := w.hub.batch(0, head, true, 1+w.rng.IntN(10))
	take(w.t, w.e.Load(), respond(part, proof))
	w.e.Load().Save()
	e := build(w.t, again(w.cfg))
	old, _ := w.hub.batch(0, head-1-w.rng.Uint64N(20), true, 1<<16)
	take(w.t, e, respond(old, proof))
	for _, each := range w.witness {
		if d, refused := each.refused(e); !refused {
			w.t.Errorf("jti %q passes after a restart: %+v", each.early.ID, d)
		}
	}
	w.runs(e)
}

func (w *world) fleeting() string { return fmt.Sprint("fleeting ", w.rng.IntN(60)) }

type ruleOf struct {
	value  string
	digest revocation.Digest
}

func (w *world) rule() ruleOf {
	value := fmt.Sprint("fleeting ", w.rng.IntN(10))
	return ruleOf{value, revocation.Rule{Claim: "sub", Value: value}.Digest()}
}

// revoke revokes something: for ever, until it is approved, or until it expires.
func (w *world) revoke() {
	id := fmt.Sprint("witness ", w.rng.Uint64())
	w.clock.advance(time.Microsecond) // no two at one time: what was complete before, does not hold it
	witness := witness{raw: signed(fmt.Sprintf(`{"jti":%q,"iat":%d,"azp":%q}`, id, epoch.Unix(), "by rule "+id))}
	var err error
	if witness.early, err = w.e.Load().Parse(witness.raw); err != nil {
		w.t.Fatal(err)
	}
	switch w.rng.IntN(6) {
	case 0:
		w.hub.revoke(w.fleeting())
		return
	case 1:
		w.hub.put(tokenDigest(fmt.Sprint("dated ", w.rng.IntN(1000))), item{revoked: true, seconds: w.clock.now().Unix() + w.rng.Int64N(1200)})
		return
	case 2:
		w.hub.rule("sub", w.rule().value, epoch.Add(time.Millisecond))
		return
	case 3:
		w.hub.rule("azp", "by rule "+id, epoch.Add(time.Hour))
	default:
		w.hub.revoke(id)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	witness.at = w.hub.completed()
	w.witness = append(w.witness, witness)
}

// lie makes an adapter say what is no batch, or that something was missed.
func (w *world) lie(a *adapter) {
	head := w.hub.head()
	b := &revocationv1.Batch{Digests: []byte("no digest"), FromVersion: head, ToVersion: head, HeadVersion: head}
	if w.rng.IntN(2) == 0 {
		b.Digests, b.FromVersion, b.ToVersion, b.HeadVersion = nil, head+1, head+2, head+2
	}
	a.look(func(a *adapter) { a.say = append(a.say, respond(b, w.hub.proofNow())) })
}

// settle makes everything well, and compares.
func (w *world) settle() {
	w.t.Helper()
	for _, a := range w.adapters {
		a.set(func(a *adapter) { a.page, a.limit, a.reach, a.mute, a.say = 1<<16, 0, 1<<62, false, nil })
	}
	w.behind.Store(0)
	w.clock.advance(time.Microsecond)
	w.hub.revoke("mark")
	at := w.hub.completed()
	e := w.e.Load()
	eventually(w.t, "the set is complete", func() bool {
		return e.Freshness().Complete.Equal(at) && e.Freshness().Version == w.hub.head()
	})
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	for i := range 60 {
		w.compare(e, fmt.Sprint("fleeting ", i))
	}
	for i := range 1000 {
		w.compare(e, fmt.Sprint("dated ", i))
	}
	for i := range 10 {
		w.compareRule(e, fmt.Sprint("fleeting ", i))
	}
	for _, each := range w.witness {
		if d, refused := each.refused(e); !refused {
			w.t.Errorf("jti %q: %+v", each.early.ID, d)
		}
	}
}

func (w *world) compare(e *enforcer.Enforcer, jti string) {
	w.t.Helper()
	it := w.hub.items[tokenDigest(jti)]
	want := enforcer.Pass
	if it.revoked && (it.seconds == 0 || time.Unix(it.seconds, 0).Add(grace).After(w.clock.now())) {
		want = enforcer.Revoked
	}
	wantVerdict(w.t, e, jwtOf(jti), want)
}

func (w *world) compareRule(e *enforcer.Enforcer, value string) {
	w.t.Helper()
	want := enforcer.Pass
	if w.hub.items[revocation.Rule{Claim: "sub", Value: value}.Digest()].revoked {
		want = enforcer.Revoked
	}
	token := jwtOf("of a rule")
	token.Claims = map[string][]string{"sub": {value}}
	wantVerdict(w.t, e, token, want)
}
