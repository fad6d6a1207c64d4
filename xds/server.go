// Package xds is the way out: it serves a revocation.Log to gateways.
//
// All protocols go through one Cache. A response carries what changed since the
// stream's position, a new stream gets the whole set in chunks, and a stream
// that the server ends, ends with an error: a deployed enforcer reconnects on
// nothing else. Until the log is complete nobody is served, since a set that is
// incomplete is a lie.
package xds

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync/atomic"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	keymgtservice "revocation-adapter/resources/proto/wso2/discovery/service/keymgt"
	"revocation-adapter/revocation"
)

// Config says what is served, and how.
type Config struct {
	Revocations *revocation.Log
	Grace       time.Duration
	// NotReady says why the log may be incomplete, "" when it is whole.
	NotReady func() string
	// Last is the last sequence of the hub's log, from its leader.
	Last func(context.Context) (uint64, error)
	// Identity tells the hub's log from any other, in letters and digits.
	Identity func() string
	// Complete says up to which version everything is in the log that the hub had
	// stored at a time; zero where that is not known. The version never falls, the
	// time only where the clock that told it was set back.
	Complete func() (version uint64, at time.Time)
	// Claims decides claims of one-time tokens; nil: they are refused.
	Claims ClaimFunc

	Label      string      // printed with every new version
	TLS        *tls.Config // nil: plaintext
	MaxReceive int         // bytes of the largest request
	MaxStreams int64       // at the same time; 0: no limit

	Log     logrus.FieldLogger
	Metrics prometheus.Registerer
	Now     func() time.Time // time.Now, unless a test says otherwise
}

// Server serves gateways.
type Server struct {
	cfg      Config
	cache    Cache
	gateways gateways
	metrics  *metrics
	streams  atomic.Int64 // open now
}

// New returns a server that serves nothing before Run.
func New(cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, gateways: gateways{byName: map[string]*gateway{}}}
	s.cache.open(cfg)
	s.metrics = newMetrics(cfg.Metrics, &s.gateways, cfg.Revocations.Snapshot)
	return s, nil
}

// check reports all that is missing.
func (cfg Config) check() error {
	var faults []error
	for _, field := range []struct {
		name string
		set  bool
	}{
		{"Revocations", cfg.Revocations != nil},
		{"NotReady", cfg.NotReady != nil},
		{"Last", cfg.Last != nil},
		{"Identity", cfg.Identity != nil},
		{"Complete", cfg.Complete != nil},
		{"Log", cfg.Log != nil},
		{"Metrics", cfg.Metrics != nil},
		{"Now", cfg.Now != nil},
	} {
		if !field.set {
			faults = append(faults, fmt.Errorf("xds: %s must be set", field.name))
		}
	}
	if cfg.MaxReceive <= 0 {
		faults = append(faults, fmt.Errorf("xds: MaxReceive must be positive, is %d", cfg.MaxReceive))
	}
	return errors.Join(faults...)
}

// Windows, keepalive and shutdown. Static windows save a quarter of the CPU:
// gateways send little, and nothing is to be estimated.
const (
	windowSize       = 64 << 10
	maxPerConnection = 1000             // streams and calls at the same time; a gateway has one or two
	pingInterval     = 30 * time.Second // of ours, to connections that are silent
	pingTimeout      = 10 * time.Second
	minPing          = 5 * time.Second // of theirs; enforcers ping every 10 s
	stopTimeout      = 2 * time.Second
	healthEvery      = 200 * time.Millisecond
)

// Run serves on lis until ctx ends. Then it ends every stream with UNAVAILABLE.
func (s *Server) Run(ctx context.Context, lis net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	g := grpc.NewServer(append(s.cfg.ServerOptions(), grpc.StreamInterceptor(s.guardStream), grpc.UnaryInterceptor(s.guardCall))...)
	healthy := health.NewServer()
	s.register(ctx, g)
	healthpb.RegisterHealthServer(g, healthy)
	reflection.Register(g)
	group.Go(func() error { return s.cache.run(ctx, s.UpdateEnforcerRevokedTokens) })
	group.Go(func() error { return s.watchHealth(ctx, healthy) })
	group.Go(func() error { return g.Serve(lis) })
	group.Go(func() error {
		<-ctx.Done()
		healthy.Shutdown()
		stop := time.AfterFunc(stopTimeout, g.Stop)
		defer stop.Stop()
		g.GracefulStop()
		return ctx.Err()
	})
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("xds: %w", err)
	}
	return ctx.Err()
}

// ServerOptions are those of the gRPC server. The benchmark's raw server uses
// them too, so that both are measured alike.
func (cfg Config) ServerOptions() []grpc.ServerOption {
	opts := []grpc.ServerOption{
		grpc.ForceServerCodecV2(newSharing()),
		grpc.StaticStreamWindowSize(windowSize), grpc.StaticConnWindowSize(windowSize),
		grpc.MaxRecvMsgSize(cfg.MaxReceive),
		grpc.MaxConcurrentStreams(maxPerConnection),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingInterval, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
	}
	if cfg.TLS != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(cfg.TLS)))
	}
	return opts
}

// register adds the services. Their streams end with ctx: without that, a
// graceful stop would wait for ever.
func (s *Server) register(ctx context.Context, g *grpc.Server) {
	w := wayOut{
		cache:      &s.cache,
		serve:      func(str stream.Stream, typeURL string) error { return s.serveSotw(ctx, str, typeURL) },
		serveDelta: func(str stream.DeltaStream, typeURL string) error { return s.serveDelta(ctx, str, typeURL) },
	}
	keymgtservice.RegisterRevokedTokenDiscoveryServiceServer(g, rtds{wayOut: w})
	revocationv1.RegisterRuleDiscoveryServiceServer(g, ruleService{wayOut: w})
	discovery.RegisterAggregatedDiscoveryServiceServer(g, ads{wayOut: w})
	revocationv1.RegisterClaimServiceServer(g, claimService{server: s})
}

// watchHealth keeps the gRPC health service at what NotReady says.
func (s *Server) watchHealth(ctx context.Context, healthy *health.Server) error {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for {
		state := healthpb.HealthCheckResponse_SERVING
		if s.cfg.NotReady() != "" {
			state = healthpb.HealthCheckResponse_NOT_SERVING
		}
		healthy.SetServingStatus("", state)
		healthy.SetServingStatus(keymgtservice.RevokedTokenDiscoveryService_ServiceDesc.ServiceName, state)
		healthy.SetServingStatus(revocationv1.RuleDiscoveryService_ServiceDesc.ServiceName, state)
		healthy.SetServingStatus(revocationv1.ClaimService_ServiceDesc.ServiceName, state)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// UpdateEnforcerRevokedTokens tells of a new version, which the parked streams
// get next.
func (s *Server) UpdateEnforcerRevokedTokens(snapshot *revocation.Snapshot) {
	s.cfg.Log.Info("New Revoked token cache update for the label: ", s.cfg.Label, " version: ", snapshot.Version())
}

// refused tells of a gateway that refuses a response.
func (s *Server) refused(g *gateway, p protocol, c *chunk, fault *status.Status) {
	s.metrics.nacks.WithLabelValues(p.String()).Inc()
	s.cfg.Log.WithFields(logrus.Fields{
		"gateway": g.name, "protocol": p.String(), "type": c.kind.url(), "version": c.to,
		"code": fault.GetCode(), "reason": fmt.Sprintf("%.200s", fault.GetMessage()),
	}).Warn("A gateway refuses a version, it will be offered again")
}

// told tells of a gateway that wants some tenants only.
func (s *Server) told(g *gateway, p protocol, a *audience) {
	names := slices.Sorted(maps.Keys(a.tenants))
	s.cfg.Log.WithFields(logrus.Fields{
		"gateway": g.name, "protocol": p.String(), "tenants": fmt.Sprintf("%.500q", names[:min(len(names), shownTenants)]), "of": len(names),
	}).Info("A gateway asks for some tenants only")
}

// shownTenants is how many tenants of a gateway are logged.
const shownTenants = 10
