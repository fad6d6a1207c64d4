package receipts_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	"revocation-adapter/adapter/receipts"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
	"revocation-adapter/xds"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*msgBlock).flushLoop"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

// patience is with what must happen at some time.
const patience = time.Minute

func fatal(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// eventually waits until happened says so.
func eventually(tb testing.TB, what string, happened func() bool) {
	tb.Helper()
	again, late := time.NewTicker(5*time.Millisecond), time.NewTimer(patience)
	defer again.Stop()
	defer late.Stop()
	for !happened() {
		select {
		case <-again.C:
		case <-late.C:
			tb.Fatalf("after %s still not: %s", patience, what)
		}
	}
}

func quiet() logrus.FieldLogger {
	logger, _ := logrustest.NewNullLogger()
	return logger
}

// hub is a NATS server that several replicas share.
func hub(tb testing.TB) *server.Server {
	tb.Helper()
	s, err := server.NewServer(&server.Options{
		ServerName: "hub", Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: tb.TempDir(), NoLog: true, NoSigs: true,
	})
	fatal(tb, err)
	s.Start()
	tb.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(patience) {
		tb.Fatal("the NATS server is not ready")
	}
	return s
}

// replica is what of an adapter has to do with receipts: its hub, its log, and its
// gateways.
type replica struct {
	*receipts.Receipts
	log     *revocation.Log
	server  *xds.Server
	address string
	conn    *grpc.ClientConn // of the gateways that share one
	version uint64
	hub     *messaging.Hub
	stop    func() // everything
}

// begun is the version of every log at first.
const begun = 1000

// start runs a replica until the test ends.
func start(tb testing.TB, s *server.Server, name string) *replica {
	tb.Helper()
	logger := quiet()
	hub, err := messaging.Open(tb.Context(), messaging.Config{
		External: messaging.ExternalConfig{URLs: []string{s.ClientURL()}, Replicas: 1},
		Limits:   messaging.Limits{MaxLive: 1000, MaxPending: 1000, MaxPendingBytes: 1 << 20},
		Log:      logger, Now: time.Now,
	})
	fatal(tb, err)
	r := &replica{log: revocation.NewLog(time.Minute), version: begun, hub: hub}
	r.log.Publish(begun)
	r.server, err = xds.New(xds.Config{
		Revocations: r.log, Grace: time.Minute, NotReady: func() string { return "" },
		Last:     func(context.Context) (uint64, error) { return r.log.Snapshot().Version(), nil },
		Identity: func() string { return "hub" }, Complete: func() (uint64, time.Time) { return 0, time.Time{} },
		Label: "label", MaxReceive: 4 << 20, Log: logger, Metrics: prometheus.NewRegistry(), Now: time.Now,
	})
	fatal(tb, err)
	r.Receipts, err = receipts.New(receipts.Config{
		Hub: hub, Server: r.server, Name: name, Memory: time.Minute, Log: logger,
	})
	fatal(tb, err)
	lis, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	fatal(tb, err)
	r.address = lis.Addr().String()
	stopReceipts := run(tb, name+"'s receipts", r.Run)
	stopServer := run(tb, name+"'s server", func(ctx context.Context) error { return r.server.Run(ctx, lis) })
	r.stop = func() {
		stopServer()
		stopReceipts()
		hub.Close()
	}
	tb.Cleanup(r.stop)
	return r
}

// run runs a part until it is stopped, which may be done twice.
func run(tb testing.TB, what string, part func(context.Context) error) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- part(ctx) }()
	stopped := false
	return func() {
		cancel()
		if stopped {
			return
		}
		stopped = true
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				tb.Errorf("%s returned %v", what, err)
			}
		case <-time.After(patience):
			tb.Errorf("%s does not end", what)
		}
	}
}

// three replicas that know each other.
func three(tb testing.TB) (*server.Server, []*replica) {
	tb.Helper()
	s := hub(tb)
	all := []*replica{start(tb, s, "r1"), start(tb, s, "r2"), start(tb, s, "r3")}
	for _, r := range all {
		eventually(tb, "all replicas are known", func() bool { return len(r.Replicas()) == 3 })
	}
	return s, all
}

// present waits until the hub knows of n gateways.
func present(tb testing.TB, s *server.Server, n int) {
	tb.Helper()
	conn, err := nats.Connect(s.ClientURL())
	fatal(tb, err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	fatal(tb, err)
	bucket, err := js.KeyValue(tb.Context(), messaging.PresenceBucket)
	fatal(tb, err)
	eventually(tb, fmt.Sprint(n, " gateways are present"), func() bool {
		keys, err := bucket.ListKeysFiltered(tb.Context(), "gateway.>")
		fatal(tb, err)
		found := 0
		for range keys.Keys() {
			found++
		}
		return found == n
	})
}

// revoke appends a token to the logs of all.
func revoke(tb testing.TB, all []*replica, key string) uint64 {
	tb.Helper()
	return put(tb, all, revocation.Revocation{
		Domain: revocation.DomainToken, Key: key, Digest: revocation.DigestOf(revocation.DomainToken, key),
		State: revocation.Revoked, Expiry: revocation.Never, Lifetime: revocation.Forever,
	})
}

func put(tb testing.TB, all []*replica, record revocation.Revocation) (version uint64) {
	tb.Helper()
	for _, r := range all {
		r.version++
		fatal(tb, r.log.Append(r.version, record))
		r.log.Publish(r.version)
	}
	return all[0].version
}

// gateway holds one stream.
type gateway struct {
	tb     testing.TB
	stream grpc.BidiStreamingClient[discovery.DiscoveryRequest, discovery.DiscoveryResponse]
	url    string
	close  func()
}

// connect opens a stream of a type on a connection of its own, and ACKs the first
// answer.
func (r *replica) connect(tb testing.TB, name, url string, tenants ...string) *gateway {
	tb.Helper()
	conn, err := grpc.NewClient("passthrough:///"+r.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	fatal(tb, err)
	closed := false
	g := r.connectOn(tb, conn, node(name, tenants...), url)
	g.close = func() {
		if !closed {
			closed = true
			fatal(tb, conn.Close())
		}
	}
	tb.Cleanup(g.close)
	return g
}

func (r *replica) connectOn(tb testing.TB, conn *grpc.ClientConn, n *core.Node, url string) *gateway {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	tb.Cleanup(cancel)
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	fatal(tb, err)
	g := &gateway{tb: tb, stream: stream, url: url}
	fatal(tb, stream.Send(&discovery.DiscoveryRequest{TypeUrl: url, Node: n}))
	g.follow(begun)
	return g
}

func node(name string, tenants ...string) *core.Node {
	list := make([]*structpb.Value, len(tenants))
	for i, tenant := range tenants {
		list[i] = structpb.NewStringValue(tenant)
	}
	return &core.Node{Id: "commonEnforcerLabel", Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
		"instanceIdentifier": structpb.NewStringValue(name),
		"tenants":            structpb.NewListValue(&structpb.ListValue{Values: list}),
	}}}
}

// receive returns the next response.
func (g *gateway) receive() *discovery.DiscoveryResponse {
	g.tb.Helper()
	resp, err := g.stream.Recv()
	fatal(g.tb, err)
	return resp
}

func (g *gateway) ack(resp *discovery.DiscoveryResponse) {
	g.tb.Helper()
	fatal(g.tb, g.stream.Send(&discovery.DiscoveryRequest{
		TypeUrl: g.url, VersionInfo: resp.GetVersionInfo(), ResponseNonce: resp.GetNonce(),
	}))
}

// follow ACKs responses until a version has come.
func (g *gateway) follow(version uint64) {
	g.tb.Helper()
	for at := uint64(0); at < version; {
		resp := g.receive()
		g.ack(resp)
		var err error
		text := resp.GetVersionInfo()
		for i, c := range text {
			if c < '0' || c > '9' {
				text = text[:i]
				break
			}
		}
		if at, err = strconv.ParseUint(text, 10, 64); err != nil {
			g.tb.Fatal(err)
		}
	}
}

// tokensAt asks about tokens that were revoked.
func tokensAt(version uint64, tenants ...string) receipts.Query {
	return receipts.Query{Version: version, Parts: []receipts.Part{
		{Series: revocation.Tokens, State: revocation.Revoked, Tenants: tenants},
	}}
}

// stands is a receipt without what it took, in short.
func stands(r receipts.Receipt) string {
	return fmt.Sprintf("enforced %d, pending %q, unreachable %q, not concerned %d, cannot %d",
		r.Enforced, r.Pending, r.Unreachable, r.NotConcerned, r.Cannot)
}

// comes waits until a replica says how gateways stand now.
func (r *replica) comes(tb testing.TB, q receipts.Query, want string) {
	tb.Helper()
	got := ""
	defer func() {
		if tb.Failed() {
			tb.Logf("it said last: %s", got)
		}
	}()
	eventually(tb, want, func() bool {
		receipt, err := r.Await(tb.Context(), q, 0)
		fatal(tb, err)
		got = stands(receipt)
		return got == want
	})
}

// awaiting is an Await under way.
func (r *replica) awaiting(tb testing.TB, q receipts.Query, wait time.Duration) <-chan receipts.Receipt {
	tb.Helper()
	answer := make(chan receipts.Receipt, 1)
	go func() {
		receipt, err := r.Await(tb.Context(), q, wait)
		if err != nil {
			tb.Errorf("Await: %v", err)
		}
		answer <- receipt
	}()
	return answer
}

func silent(tb testing.TB, answer <-chan receipts.Receipt) {
	tb.Helper()
	select {
	case r := <-answer:
		tb.Fatalf("the answer comes too early: %s", stands(r))
	case <-time.After(200 * time.Millisecond):
	}
}

func answered(tb testing.TB, answer <-chan receipts.Receipt, want string) {
	tb.Helper()
	select {
	case r := <-answer:
		if got := stands(r); got != want || r.Took <= 0 {
			tb.Errorf("the receipt after %s is: %s\nwant: %s", r.Took, got, want)
		}
	case <-time.After(2 * patience):
		tb.Fatal("the answer does not come")
	}
}
