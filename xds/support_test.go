package xds_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"revocation-adapter/revocation"
	"revocation-adapter/xds"
)

// Most of these tests wait: more than there are processors may run at once.
func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.parallel").Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		if err := flag.Set("test.parallel", "8"); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

// grace is that of every log here.
const grace = 10 * time.Minute

// within bounds every wait for something that must come, on a machine that is
// busy with other things too.
const within = 2 * time.Minute

// stopWithin is how long a server may take to stop.
const stopWithin = 5 * time.Second

// origin is when the clocks of the tests begin.
var origin = time.UnixMilli(1_700_000_000_000)

// later is an expiry that no test reaches.
var later = origin.Add(100 * 24 * time.Hour)

// clock is the server's time. It stands still unless it is moved, or runs rate
// times as fast as the real one.
type clock struct {
	moved atomic.Int64 // nanoseconds after origin
	rate  atomic.Int64
	began time.Time
}

func newClock() *clock { return &clock{began: time.Now()} }

func (c *clock) Now() time.Time {
	run := time.Duration(c.rate.Load()) * time.Since(c.began)
	return origin.Add(time.Duration(c.moved.Load()) + run)
}

func (c *clock) move(d time.Duration) { c.moved.Add(int64(d)) }

// world is a log and a server of it, and what the log should hold.
type world struct {
	t        *testing.T
	log      *revocation.Log
	clock    *clock
	server   *xds.Server
	logged   *logrustest.Hook
	metrics  *prometheus.Registry
	address  string
	hub      atomic.Uint64 // the hub's last sequence, where it is beyond the log's
	complete atomic.Pointer[completeness]
	stop     context.CancelFunc
	stopped  chan struct{}
	result   error // of Run, after stopped

	mu      sync.Mutex
	version uint64            // appended last
	live    map[string]int64  // what is revoked, by its name: the expiry in milliseconds
	rules   map[string]int64  // the same of rules: what was issued before it is revoked
	tenants map[string]string // of all that was ever put
}

// completeness is what the adapter knows of the hub.
type completeness struct {
	version uint64
	at      time.Time
}

// start serves an empty log on a free port until the test ends. Configure
// changes the configuration before.
func start(t *testing.T, configure ...func(*xds.Config)) *world {
	t.Helper()
	w := &world{
		t: t, log: revocation.NewLog(grace), clock: newClock(), metrics: prometheus.NewRegistry(),
		stopped: make(chan struct{}), version: 1000, live: map[string]int64{}, rules: map[string]int64{}, tenants: map[string]string{},
	}
	w.log.Publish(w.version)
	logger, hook := logrustest.NewNullLogger()
	logger.SetReportCaller(true)
	w.logged = hook
	cfg := xds.Config{
		Revocations: w.log, Grace: grace,
		NotReady: func() string { return "" },
		Last: func(context.Context) (uint64, error) {
			return max(w.hub.Load(), w.log.Snapshot().Version()), nil
		},
		Identity: func() string { return "hub" },
		Complete: func() (uint64, time.Time) {
			if c := w.complete.Load(); c != nil {
				return c.version, c.at
			}
			return 0, time.Time{}
		},
		Label: "commonEnforcerLabel", MaxReceive: 4 << 20,
		Log: logger, Metrics: w.metrics, Now: w.clock.Now,
	}
	for _, change := range configure {
		change(&cfg)
	}
	server, err := xds.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.server = server
	w.run(server)
	return w
}

func (w *world) run(server *xds.Server) {
	w.t.Helper()
	lis, err := new(net.ListenConfig).Listen(w.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.address = lis.Addr().String()
	ctx, stop := context.WithCancel(w.t.Context())
	w.stop = stop
	go func() {
		defer close(w.stopped)
		w.result = server.Run(ctx, lis)
	}()
	w.t.Cleanup(w.shutDown)
}

// shutDown ends the server and waits for it.
func (w *world) shutDown() {
	w.t.Helper()
	w.stop()
	select {
	case <-w.stopped:
	case <-time.After(stopWithin):
		w.t.Fatalf("Run has not returned %v after its context ended", stopWithin)
	}
	if !errors.Is(w.result, context.Canceled) {
		w.t.Errorf("Run returned %v, want %v", w.result, context.Canceled)
	}
}

// put appends revocations, each at the next version, and publishes them at once.
func (w *world) put(changes ...revocation.Revocation) uint64 {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range changes {
		w.version++
		if err := w.log.Append(w.version, r); err != nil {
			w.t.Error(err)
		}
		w.tenants[r.Name()] = r.Tenant
		switch {
		case r.Domain == revocation.DomainRefresh:
		case r.Domain == revocation.DomainRule && r.State == revocation.Revoked:
			w.rules[r.Name()] = r.Before
		case r.Domain == revocation.DomainRule:
			delete(w.rules, r.Name())
		case r.State == revocation.Revoked:
			w.live[r.Name()] = r.Expiry
		default:
			delete(w.live, r.Name())
		}
	}
	w.log.Publish(w.version)
	return w.version
}

// revoke puts tokens that expire later than any test.
func (w *world) revoke(names ...string) uint64 {
	w.t.Helper()
	changes := make([]revocation.Revocation, len(names))
	for i, name := range names {
		changes[i] = revoked(name, later)
	}
	return w.put(changes...)
}

func (w *world) approve(names ...string) uint64 {
	w.t.Helper()
	changes := make([]revocation.Revocation, len(names))
	for i, name := range names {
		changes[i] = approved(name)
	}
	return w.put(changes...)
}

// truth is what a gateway must refuse now.
func (w *world) truth() map[string]int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	truth := maps.Clone(w.live)
	now := w.clock.Now().UnixMilli()
	maps.DeleteFunc(truth, func(_ string, expiry int64) bool { return gone(expiry, now) })
	return truth
}

// ruleTruth is truth for rules: until when what they match was issued. None of
// them expires in these tests.
func (w *world) ruleTruth() map[string]int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.rules)
}

// theirs says whether what is called name is told to who asks for tenants.
func (w *world) theirs(name string, tenants []string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	tenant := w.tenants[name]
	return len(tenants) == 0 || tenant == "" || slices.Contains(tenants, tenant)
}

func gone(expiry, now int64) bool {
	return expiry != revocation.Never && expiry+grace.Milliseconds() <= now
}

func revoked(name string, expiry time.Time) revocation.Revocation {
	return revocation.Revocation{
		Domain: revocation.DomainToken, Key: name, Digest: revocation.DigestOf(revocation.DomainToken, name),
		State: revocation.Revoked, Kind: revocation.KindJWT, Expiry: expiry.UnixMilli(), Lifetime: revocation.Dated,
	}
}

func approved(name string) revocation.Revocation {
	r := revoked(name, later)
	r.State = revocation.Approved
	return r
}

// rule is one that covers what was issued before a time, in milliseconds.
func rule(key string, before int64) revocation.Revocation {
	r := ofDomain(revocation.DomainRule, key)
	r.Before = before
	return r
}

func withdrawn(key string) revocation.Revocation {
	r := rule(key, 1)
	r.State = revocation.Approved
	return r
}

// of is r as a tenant's.
func of(tenant string, r revocation.Revocation) revocation.Revocation {
	r.Tenant = tenant
	return r
}

// ofDomain is a revoked key of another domain than a token's.
func ofDomain(d revocation.Domain, key string) revocation.Revocation {
	r := revoked(key, later)
	r.Domain, r.Kind, r.Digest = d, revocation.KindNone, revocation.DigestOf(d, key)
	if d.Secret() {
		r.Key = ""
	}
	return r
}

// uuids are n jtis, the same for the same seed.
func uuids(seed uint64, n int) []string {
	rng := rand.New(rand.NewPCG(seed, 7))
	names := make([]string, n)
	for i := range names {
		a, b := rng.Uint64(), rng.Uint64()
		names[i] = fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", a>>32, a>>16&0xffff, a&0xffff, b>>48, b&0xffffffffffff)
	}
	return names
}

var fortyThousand = sync.OnceValue(func() []string { return uuids(1, 40_000) })

// long are n jtis of 2,000 bytes.
func long(seed uint64, n int) []string {
	names := uuids(seed, n)
	for i := range names {
		names[i] += strings.Repeat("x", 2000-len(names[i]))
	}
	return names
}

// threeChunks are tokens that fill two chunks and begin a third.
var threeChunks = sync.OnceValue(func() []string { return long(1, 2200) })

// dial connects to the server as a client with gRPC's defaults does.
func (w *world) dial(opts ...grpc.DialOption) *grpc.ClientConn {
	w.t.Helper()
	opts = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, opts...)
	conn, err := grpc.NewClient("passthrough:///"+w.address, opts...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() }) // nothing depends on how
	return conn
}

// until waits for a condition that has no event of its own.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick, late := time.NewTicker(5*time.Millisecond), time.NewTimer(within)
	defer tick.Stop()
	defer late.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("never: %s", what)
		}
	}
}

// lines are the logged entries with a message.
func (w *world) lines(message string) (found []*logrus.Entry) {
	for _, e := range w.logged.AllEntries() {
		if e.Message == message {
			found = append(found, e)
		}
	}
	return found
}
