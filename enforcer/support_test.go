package enforcer_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revocation-adapter/enforcer"
	"revocation-adapter/revocation"
)

const grace = 10 * time.Minute

// epoch is a test's beginning.
var epoch = time.UnixMilli(1_800_000_000_000)

// clock is a time that a test sets.
type clock struct{ micros atomic.Int64 }

func clockAt(at time.Time) *clock {
	c := &clock{}
	c.micros.Store(at.UnixMicro())
	return c
}

func (c *clock) now() time.Time          { return time.UnixMicro(c.micros.Load()) }
func (c *clock) advance(d time.Duration) { c.micros.Add(d.Microseconds()) }

func configOf(c *clock, adapters ...*adapter) enforcer.Config {
	cfg := enforcer.Config{
		Instance: "gateway-1", Grace: grace, MaxStaleness: time.Minute,
		Now: c.now, Metrics: prometheus.NewRegistry(),
	}
	for _, a := range adapters {
		cfg.Adapters = append(cfg.Adapters, a.address)
	}
	return cfg
}

func build(tb testing.TB, cfg enforcer.Config) *enforcer.Enforcer {
	tb.Helper()
	e, err := enforcer.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	e.Hasten()
	return e
}

// run runs e until the test ends, or the function that it returns is called.
func run(tb testing.TB, e *enforcer.Enforcer) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			tb.Errorf("Run ended with %v", err)
		}
	})
	tb.Cleanup(stop)
	return stop
}

func start(tb testing.TB, cfg enforcer.Config) *enforcer.Enforcer {
	tb.Helper()
	e := build(tb, cfg)
	run(tb, e)
	return e
}

// eventually waits until what is so, and fails when it never is.
func eventually(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	deadline := time.After(time.Minute)
	for !is() {
		select {
		case <-deadline:
			tb.Fatalf("never: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

func reaches(tb testing.TB, e *enforcer.Enforcer, version uint64) {
	tb.Helper()
	eventually(tb, "the set reaches the version", func() bool { return e.Freshness().Version >= version })
}

func jwtOf(jti string) enforcer.Token {
	return enforcer.Token{ID: jti, IssuedAt: epoch.UnixMilli(), Expiry: revocation.Never}
}

func wantVerdict(tb testing.TB, e *enforcer.Enforcer, token enforcer.Token, want enforcer.Verdict) {
	tb.Helper()
	if d := e.Check(token); d.Verdict != want {
		tb.Errorf("jti %q, opaque %q: verdict %d, want %d (%+v)", token.ID, token.Opaque, d.Verdict, want, d)
	}
}

// holding is an Enforcer that does not run and knows one key.
func holding(tb testing.TB, d revocation.Domain, key string) *enforcer.Enforcer {
	tb.Helper()
	h := newHub()
	h.put(revocation.DigestOf(d, key), item{revoked: true})
	b, _ := h.batch(0, h.version, true, 1)
	b.CompleteAtMicros = epoch.UnixMicro()
	e := build(tb, configOf(clockAt(epoch), &adapter{address: "127.0.0.1:1"}))
	if err := e.Take(respond(b, "hub")); err != nil {
		tb.Fatal(err)
	}
	return e
}
