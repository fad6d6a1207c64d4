package page_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"revocation-adapter/adapter/page"
	"revocation-adapter/adapter/receipts"
	"revocation-adapter/integration/stack"
	"revocation-adapter/revocation"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secret is that of every client here.
const secret = "a-very-long-secret"

// stage is an adapter's control port with the page, a real log behind it, gateways
// that are numbers, and endpoints in the shapes of the control API.
type stage struct {
	page  *page.Page
	url   string
	cut   func() // ends all connections
	log   *revocation.Log
	fleet *fleet
	api   *api
	out   *stack.Output // the log of the process

	late     atomic.Int64 // by how much the page's clock is ahead
	secrets  atomic.Int64 // how often clients were given others
	removed  atomic.Bool  // no client is an operator any more
	notReady atomic.Bool
	version  atomic.Uint64
}

func newStage(tb testing.TB) *stage {
	tb.Helper()
	s := &stage{log: revocation.NewLog(time.Minute), fleet: newFleet(), out: &stack.Output{}}
	s.version.Store(1_795_179_102_638_318)
	s.log.Publish(s.version.Load())
	log := logrus.New()
	log.SetOutput(s.out)
	log.SetLevel(logrus.DebugLevel)
	p, err := page.New(page.Config{
		Revocations: s.log, Status: s.status, Sources: sources, DeadLetters: s.countLetters,
		Gateways: s.fleet.gateways, Await: s.fleet.await,
		Stored: s.stored, Authenticate: authenticate, Operator: func(string) bool { return !s.removed.Load() },
		Secret: func(id string) string { return fmt.Sprint(id, s.secrets.Load()) },
		Log:    log, Now: s.now,
	})
	if err != nil {
		tb.Fatal(err)
	}
	s.page, s.api = p, &api{stage: s}
	s.serve(tb)
	return s
}

// serve answers until the test ends, with the time that the control port allows.
func (s *stage) serve(tb testing.TB) {
	tb.Helper()
	mux := http.NewServeMux()
	s.page.Register(mux)
	s.api.register(mux)
	server := httptest.NewUnstartedServer(mux)
	server.Config.ReadTimeout = 2 * time.Second // shorter than the adapter's: a stream must outlive it
	server.Start()
	s.url, s.cut = server.URL, server.CloseClientConnections
	ctx, cancel := context.WithCancel(tb.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.page.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			tb.Errorf("the page ended with %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
		server.Close()
		if strings.Contains(s.out.String(), secret) {
			tb.Error("a secret is in the log")
		}
	})
}

func (s *stage) now() time.Time { return time.Now().Add(time.Duration(s.late.Load())) }

func (s *stage) status() any {
	if s.notReady.Load() {
		return map[string]any{"ready": false, "reason": "the log is not complete yet", "hub": "connected"}
	}
	return map[string]any{"ready": true, "hub": "connected"}
}

func sources() any {
	return []map[string]any{
		{"name": "nats", "connected": true, "server": "127.0.0.1:4222", "events": 4711, "last_event": time.Now(), "lag_seconds": 0.002, "errors": 0},
		{"name": "full sync", "connected": false, "events": 12, "lag_seconds": 0, "errors": 3, "last_error": "the control plane answers 503"},
	}
}

func (s *stage) countLetters(context.Context) (int, error) { return len(s.api.list()), nil }

func authenticate(_ context.Context, _, id, given string) ([]string, error) {
	roles := map[string][]string{"alice": {"revoke_any", "operator"}, "app": {"revoke"}}
	switch {
	case id == "away":
		return nil, fmt.Errorf("the bucket of clients: %w", page.ErrCannotTell)
	case given != secret || roles[id] == nil:
		return nil, errors.New("wrong")
	}
	return roles[id], nil
}

// stored says that the hub stored everything six seconds before it was published.
func (s *stage) stored(_ context.Context, c revocation.Change) (time.Time, error) {
	if c.Name() == "of-a-clock-ahead" {
		return time.Now().Add(time.Hour), nil
	}
	return s.now().Add(-6 * time.Second), nil
}

// change revokes or approves a token id, and publishes it.
func (s *stage) change(t *testing.T, jti string, state revocation.State) uint64 {
	t.Helper()
	version := s.append(t, jti, state)
	s.log.Publish(version)
	return version
}

func (s *stage) append(t *testing.T, jti string, state revocation.State) uint64 {
	t.Helper()
	version := s.version.Add(1)
	err := s.log.Append(version, revocation.Revocation{
		Domain: revocation.DomainToken, Key: jti, Digest: revocation.DigestOf(revocation.DomainToken, jti),
		State: state, Kind: revocation.KindJWT, Expiry: time.Now().Add(time.Hour).UnixMilli(), Lifetime: revocation.Dated,
	})
	if err != nil {
		t.Fatal(err)
	}
	return version
}

// fleet is gateways that confirm what they are told to.
type fleet struct {
	mu     sync.Mutex
	all    []receipts.Gateway
	stuck  map[string]bool // that confirm nothing
	head   uint64          // what all others have confirmed
	change chan struct{}
	asked  receipts.Query
	cannot int // gateways that cannot be told
}

func newFleet() *fleet { return &fleet{change: make(chan struct{}), stuck: map[string]bool{}} }

// join adds n gateways that have confirmed a version.
func (f *fleet) join(n int, version uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range n {
		f.all = append(f.all, receipts.Gateway{
			Name: fmt.Sprintf("gw-%04d", len(f.all)+1), Address: fmt.Sprintf("10.0.%d.%d:4%04d", i/250, i%250+1, i), Replica: fmt.Sprintf("adapter-%d", i%3+1),
			Protocols: []string{"rtds"}, Version: version, Since: time.Now().Add(-time.Hour), Connected: true,
		})
	}
	f.head = version
}

func (f *fleet) edit(what func(all []receipts.Gateway)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	what(f.all)
	close(f.change)
	f.change = make(chan struct{})
}

// confirm has all gateways confirm a version that are not stuck.
func (f *fleet) confirm(version uint64) {
	f.edit(func(all []receipts.Gateway) {
		f.head = version
		for i := range all {
			if all[i].Connected && !f.stuck[all[i].Name] {
				all[i].Version, all[i].Lag = version, 0
			} else if all[i].Connected {
				all[i].Lag = version - all[i].Version
			}
		}
	})
}

func (f *fleet) gateways(context.Context) ([]receipts.Gateway, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.all), nil
}

func (f *fleet) await(ctx context.Context, q receipts.Query, wait time.Duration) (receipts.Receipt, error) {
	over := time.After(wait)
	for {
		r, changed := f.receipt(q)
		if len(r.Pending) == 0 || wait == 0 {
			return r, nil
		}
		select {
		case <-changed:
		case <-over:
			return r, nil
		case <-ctx.Done():
			return r, ctx.Err()
		}
	}
}

func (f *fleet) receipt(q receipts.Query) (r receipts.Receipt, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.Version, r.Cannot = q.Version, f.cannot
	if len(q.Parts) > 0 && len(q.Parts[0].Tenants) > 0 {
		f.asked = q
	}
	for _, g := range f.all {
		switch {
		case !g.Connected:
			r.Unreachable = append(r.Unreachable, g.Name)
		case g.Version >= q.Version:
			r.Enforced++
		default:
			r.Pending = append(r.Pending, g.Name)
		}
	}
	return r, f.change
}

// lastQuery is the last that named tenants.
func (f *fleet) lastQuery() receipts.Query {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}
