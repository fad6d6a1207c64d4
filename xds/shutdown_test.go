package xds_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	keymgtservice "revocation-adapter/resources/proto/wso2/discovery/service/keymgt"
	"revocation-adapter/revocation"
	"revocation-adapter/xds"
)

// stalled dials as a client whose windows do not grow.
func (w *world) stalled() *grpc.ClientConn {
	w.t.Helper()
	return w.dial(grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<10))
}

// A deployed enforcer never comes back to a stream that ends with OK.
func TestEveryStreamEndsWithUnavailableAtShutdown(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.revoke(threeChunks()...)
	head := w.revoke("last")
	w.hub.Store(head + 100)
	cases := []struct {
		name string
		open func(t *testing.T) func() *status.Status
	}{
		{"parked", func(t *testing.T) func() *status.Status {
			t.Helper()
			c := w.subscribe(t, streamTokens, text(head))
			c.accept()
			return c.end
		}},
		{"parked, aggregated", func(t *testing.T) func() *status.Status {
			t.Helper()
			c := w.subscribe(t, aggregated, text(head))
			c.accept()
			return c.end
		}},
		{"in the middle of the set", func(t *testing.T) func() *status.Status {
			t.Helper()
			c := w.subscribe(t, streamTokens, "")
			c.accept()
			c.next()
			return c.end
		}},
		{"waits for the head", func(t *testing.T) func() *status.Status {
			t.Helper()
			return w.subscribe(t, streamTokens, text(head+50)).end
		}},
		{"by name", func(t *testing.T) func() *status.Status {
			t.Helper()
			c := w.subscribe(t, aggregated, "", "last")
			c.accept()
			return c.end
		}},
		{"refused", func(t *testing.T) func() *status.Status {
			t.Helper()
			c := w.subscribe(t, streamTokens, "")
			c.nack(c.next())
			return c.end
		}},
		{"no first request yet", func(t *testing.T) func() *status.Status {
			t.Helper()
			conn := w.dial()
			c := openOn(t.Context(), t, streamTokens, conn)
			other := openOn(t.Context(), t, aggregated, conn) // arrives after it
			other.send(&discovery.DiscoveryRequest{})
			other.next()
			return c.end
		}},
		{"no first request yet, delta", func(t *testing.T) func() *status.Status {
			t.Helper()
			conn := w.dial()
			c := deltaOn(t.Context(), t, conn)
			other := openOn(t.Context(), t, aggregated, conn)
			other.send(&discovery.DiscoveryRequest{})
			other.next()
			return c.end
		}},
		{"delta, parked", func(t *testing.T) func() *status.Status {
			t.Helper()
			c := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"last"}})
			c.accept()
			return c.end
		}},
		{"delta, in the middle of the set", func(t *testing.T) func() *status.Status {
			t.Helper()
			c := w.delta(t)
			c.accept()
			c.next()
			return c.end
		}},
		{"reads nothing", func(t *testing.T) func() *status.Status {
			t.Helper()
			stream := stall(t, w, false)
			return func() *status.Status { return read(t.Context(), t, stream.Recv).end() }
		}},
		{"reads nothing, and ACKs", func(t *testing.T) func() *status.Status {
			t.Helper()
			stream := stall(t, w, true)
			return func() *status.Status { return read(t.Context(), t, stream.Recv).end() }
		}},
		{"delta, reads nothing", func(t *testing.T) func() *status.Status {
			t.Helper()
			stream, err := discovery.NewAggregatedDiscoveryServiceClient(w.stalled()).DeltaAggregatedResources(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: xds.TypeURL}); err != nil {
				t.Fatal(err)
			}
			return func() *status.Status { return read(t.Context(), t, stream.Recv).end() }
		}},
	}
	ends := make([]func() *status.Status, len(cases))
	for i, c := range cases {
		ends[i] = c.open(t)
	}
	until(t, "all streams are served", func() bool {
		return w.metric("revocation_adapter_xds_responses_total", "sotw") >= 9 &&
			w.metric("revocation_adapter_xds_responses_total", "delta") >= 4
	})
	w.shutDown()
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := ends[i]()
			if got.Code() != codes.Unavailable {
				t.Errorf("the stream ended with %v, want UNAVAILABLE", got)
			}
			// Who reads is told; the others lose their connection.
			if reads := !strings.Contains(c.name, "reads nothing"); reads && !strings.Contains(got.Message(), "connect again") {
				t.Errorf("the stream ended with %v", got)
			}
		})
	}
}

// A client that is done with sending is not served any longer, and is told so.
func TestHalfClosedStreamEndsWithUnavailable(t *testing.T) {
	t.Parallel()
	w := start(t)
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			c := w.subscribe(t, s, "")
			c.accept()
			if err := c.stream.(grpc.ClientStream).CloseSend(); err != nil {
				t.Fatal(err)
			}
			if got := c.end(); got.Code() != codes.Unavailable {
				t.Errorf("the stream ended with %v, want UNAVAILABLE", got)
			}
		})
	}
	t.Run("delta", func(t *testing.T) {
		c := w.delta(t)
		c.accept()
		if err := c.stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if got := c.end(); got.Code() != codes.Unavailable {
			t.Errorf("the stream ended with %v, want UNAVAILABLE", got)
		}
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 200 { // whichever part notices first
		lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server, err := xds.New(minimal())
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Run(ended, lis); !errors.Is(err, context.Canceled) {
			t.Fatalf("Run returned %v, want %v", err, context.Canceled)
		}
		if err := lis.Close(); !errors.Is(err, net.ErrClosed) {
			t.Fatal("the listener is still open")
		}
	}
}

// minimal is a configuration that serves an empty log.
func minimal() xds.Config {
	return xds.Config{
		Revocations: revocation.NewLog(grace), NotReady: func() string { return "" }, Now: time.Now,
		Last: func(context.Context) (uint64, error) { return 0, nil }, MaxReceive: 4 << 20,
		Identity: func() string { return "hub" }, Complete: func() (uint64, time.Time) { return 0, time.Time{} },
		Log: logrus.New(), Metrics: prometheus.NewRegistry(),
	}
}

func TestRunReportsAListenerThatFails(t *testing.T) {
	t.Parallel()
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := lis.Close(); err != nil {
		t.Fatal(err)
	}
	server, err := xds.New(minimal())
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Run(t.Context(), lis); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v, want the listener's fault", err)
	}
}

func TestNewRefusesWhatIsIncomplete(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		remove func(c *xds.Config)
		want   string
	}{
		{"no revocations", func(c *xds.Config) { c.Revocations = nil }, "xds: Revocations must be set"},
		{"no readiness", func(c *xds.Config) { c.NotReady = nil }, "xds: NotReady must be set"},
		{"no last version", func(c *xds.Config) { c.Last = nil }, "xds: Last must be set"},
		{"no identity", func(c *xds.Config) { c.Identity = nil }, "xds: Identity must be set"},
		{"no completeness", func(c *xds.Config) { c.Complete = nil }, "xds: Complete must be set"},
		{"no log", func(c *xds.Config) { c.Log = nil }, "xds: Log must be set"},
		{"no metrics", func(c *xds.Config) { c.Metrics = nil }, "xds: Metrics must be set"},
		{"no clock", func(c *xds.Config) { c.Now = nil }, "xds: Now must be set"},
		{"no limit of a request", func(c *xds.Config) { c.MaxReceive = 0 }, "xds: MaxReceive must be positive, is 0"},
		{"a negative limit", func(c *xds.Config) { c.MaxReceive = -1 }, "xds: MaxReceive must be positive, is -1"},
		{"two faults", func(c *xds.Config) { c.Log, c.MaxReceive = nil, 0 }, "xds: Log must be set\nxds: MaxReceive must be positive, is 0"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			cfg := minimal()
			c.remove(&cfg)
			if _, err := xds.New(cfg); err == nil || err.Error() != c.want {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// readiness is a reason that changes.
type readiness struct{ why atomic.Pointer[string] }

func (r *readiness) set(why string)          { r.why.Store(&why) }
func (r *readiness) reason() string          { return *r.why.Load() }
func (r *readiness) configure(c *xds.Config) { c.NotReady = r.reason }

func TestNobodyIsServedBeforeTheLogIsComplete(t *testing.T) {
	t.Parallel()
	var ready readiness
	ready.set("1,234 messages are still to come")
	w := start(t, ready.configure)
	w.revoke("a")
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			got := w.subscribe(t, s, "").end()
			if got.Code() != codes.Unavailable || !strings.Contains(got.Message(), "1,234 messages") {
				t.Errorf("ended with %v", got)
			}
		})
	}
	if got := w.delta(t).end(); got.Code() != codes.Unavailable {
		t.Errorf("delta ended with %v", got)
	}
	client := keymgtservice.NewRevokedTokenDiscoveryServiceClient(w.dial())
	if _, err := client.FetchTokens(t.Context(), &discovery.DiscoveryRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("FetchTokens answered %v", err)
	}
	if n := w.metric("revocation_adapter_xds_refused_streams_total", ""); n != 4 {
		t.Errorf("%v refusals counted, want 4", n)
	}

	ready.set("")
	served := w.subscribe(t, streamTokens, "")
	served.gets("a")
	w.delta(t).gets([]string{"a"}, nil)

	ready.set("the hub is gone") // those that are served stay
	w.revoke("b")
	served.gets("b")
	if got := w.subscribe(t, streamTokens, "").end(); got.Code() != codes.Unavailable {
		t.Errorf("a new stream ended with %v", got)
	}
}

func TestHealthSaysWhetherTheLogIsComplete(t *testing.T) {
	t.Parallel()
	var ready readiness
	ready.set("not yet")
	w := start(t, ready.configure)
	client := healthpb.NewHealthClient(w.dial())
	for _, service := range []string{"", "wso2.discovery.service.keymgt.RevokedTokenDiscoveryService", "revocation.v1.ClaimService"} {
		ready.set("not yet")
		until(t, "not serving", func() bool { return healthOf(t, client, service) == healthpb.HealthCheckResponse_NOT_SERVING })
		ready.set("")
		until(t, "serving", func() bool { return healthOf(t, client, service) == healthpb.HealthCheckResponse_SERVING })
	}
}

func healthOf(t *testing.T, client healthpb.HealthClient, service string) healthpb.HealthCheckResponse_ServingStatus {
	t.Helper()
	resp, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
	if err != nil && status.Code(err) != codes.NotFound {
		t.Error(err)
	}
	return resp.GetStatus()
}

// Only xDS streams are given an error: a client of reflection that is done gets
// its OK. A watcher of health hears of the end first.
func TestHealthAndReflectionEndAsTheyDo(t *testing.T) {
	t.Parallel()
	w := start(t)
	conn := w.dial()
	reflect, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := reflect.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	}); err != nil {
		t.Fatal(err)
	}
	answers := read(t.Context(), t, reflect.Recv)
	var services []string
	for _, s := range answers.next().GetListServicesResponse().GetService() {
		services = append(services, s.GetName())
	}
	for _, want := range []string{
		"wso2.discovery.service.keymgt.RevokedTokenDiscoveryService",
		"envoy.service.discovery.v3.AggregatedDiscoveryService", "grpc.health.v1.Health",
		"revocation.v1.ClaimService",
	} {
		if !slices.Contains(services, want) {
			t.Errorf("%s is not listed: %q", want, services)
		}
	}
	if err := reflect.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if got := answers.end(); got.Code() != codes.OK {
		t.Errorf("reflection ended with %v, want OK", got)
	}

	client := healthpb.NewHealthClient(conn)
	until(t, "serving", func() bool { return healthOf(t, client, "") == healthpb.HealthCheckResponse_SERVING })
	watch, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	states := read(t.Context(), t, watch.Recv)
	if got := states.next().GetStatus(); got != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("health is %v at first", got)
	}
	stopped := make(chan struct{})
	go func() { defer close(stopped); w.shutDown() }()
	if got := states.next().GetStatus(); got != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health is %v at the end", got)
	}
	<-stopped
}
