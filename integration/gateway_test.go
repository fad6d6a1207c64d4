package integration_test

import (
	"context"
	"maps"
	"strconv"
	"sync"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"revocation-adapter/resources/proto/wso2/discovery/keymgt"
	keymgtservice "revocation-adapter/resources/proto/wso2/discovery/service/keymgt"
)

const typeURL = "type.googleapis.com/wso2.discovery.keymgt.RevokedToken"

// The protocols that a gateway may speak.
const (
	rtds  = "rtds"
	sotw  = "sotw"
	delta = "delta"
)

// gateway does what a deployed enforcer does: it keeps a map, ACKs, and
// reconnects when its stream ends with an error, but never after OK.
type gateway struct {
	protocol string
	conn     *grpc.ClientConn
	node     *core.Node

	mu       sync.Mutex
	held     map[string]int64  // jti to expiry
	versions map[string]string // delta: per resource
	version  string            // ACKed last
	seen     int               // tokens received, repeated or not
	ends     []codes.Code      // of its streams
}

// connectGateway runs a gateway until the test ends.
func connectGateway(t *testing.T, a *adapter, protocol, version string) *gateway {
	t.Helper()
	return runGateway(t, a.dial(t, nil), protocol, version)
}

func runGateway(t *testing.T, conn *grpc.ClientConn, protocol, version string) *gateway {
	t.Helper()
	g := &gateway{
		protocol: protocol, conn: conn, version: version,
		held: map[string]int64{}, versions: map[string]string{},
		node: &core.Node{Id: "commonEnforcerLabel", Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			"instanceIdentifier": structpb.NewStringValue("gw-" + protocol),
		}}},
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { g.run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return g
}

func (g *gateway) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := g.stream(ctx)
		g.mu.Lock()
		g.ends = append(g.ends, status.Code(err))
		g.mu.Unlock()
		if err == nil {
			return // as the deployed enforcer: never again
		}
	}
}

func (g *gateway) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wait := grpc.WaitForReady(true)
	if g.protocol == delta {
		str, err := discovery.NewAggregatedDiscoveryServiceClient(g.conn).DeltaAggregatedResources(ctx, wait)
		if err != nil {
			return err
		}
		return g.delta(str)
	}
	open := func() (grpc.BidiStreamingClient[discovery.DiscoveryRequest, discovery.DiscoveryResponse], error) {
		if g.protocol == sotw {
			return discovery.NewAggregatedDiscoveryServiceClient(g.conn).StreamAggregatedResources(ctx, wait)
		}
		return keymgtservice.NewRevokedTokenDiscoveryServiceClient(g.conn).StreamTokens(ctx, wait)
	}
	str, err := open()
	if err != nil {
		return err
	}
	return g.sotw(str)
}

func (g *gateway) sotw(str grpc.BidiStreamingClient[discovery.DiscoveryRequest, discovery.DiscoveryResponse]) error {
	req := &discovery.DiscoveryRequest{Node: g.node, TypeUrl: typeURL, VersionInfo: g.acked()}
	for {
		_ = str.Send(req) // the reason comes from Recv
		resp, err := str.Recv()
		if err != nil {
			return end(err)
		}
		if err := g.take(resp.GetResources(), nil, resp.GetVersionInfo()); err != nil {
			return err
		}
		req = &discovery.DiscoveryRequest{TypeUrl: typeURL, VersionInfo: resp.GetVersionInfo(), ResponseNonce: resp.GetNonce()}
	}
}

func (g *gateway) delta(str discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient) error {
	g.mu.Lock()
	req := &discovery.DeltaDiscoveryRequest{Node: g.node, TypeUrl: typeURL, InitialResourceVersions: maps.Clone(g.versions)}
	g.mu.Unlock()
	for {
		_ = str.Send(req) // the reason comes from Recv
		resp, err := str.Recv()
		if err != nil {
			return end(err)
		}
		var anys []*anypb.Any
		g.mu.Lock()
		for _, r := range resp.GetResources() {
			anys = append(anys, r.GetResource())
			g.versions[r.GetName()] = r.GetVersion()
		}
		g.mu.Unlock()
		if err := g.take(anys, resp.GetRemovedResources(), resp.GetSystemVersionInfo()); err != nil {
			return err
		}
		req = &discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: resp.GetNonce()}
	}
}

// end is nil where the stream ended with OK.
func end(err error) error {
	if status.Code(err) == codes.Unknown && err.Error() == "EOF" {
		return nil
	}
	return err
}

func (g *gateway) take(added []*anypb.Any, removed []string, version string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, any := range added {
		var token keymgt.RevokedToken
		if err := any.UnmarshalTo(&token); err != nil {
			return err
		}
		g.held[token.GetJti()] = token.GetExpirytime()
		g.seen++
	}
	for _, name := range removed {
		delete(g.held, name)
		delete(g.versions, name)
	}
	g.version = version
	return nil
}

func (g *gateway) acked() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.version
}

func (g *gateway) number(t *testing.T) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(g.acked(), 10, 64)
	if err != nil {
		t.Fatalf("version %q is no decimal integer", g.acked())
	}
	return n
}

func (g *gateway) holds(jti string) bool {
	_, ok := g.expiry(jti)
	return ok
}

func (g *gateway) expiry(jti string) (int64, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	ms, ok := g.held[jti]
	return ms, ok
}

func (g *gateway) count() (held, seen int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.held), g.seen
}

func (g *gateway) endings() []codes.Code {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]codes.Code(nil), g.ends...)
}

// awaits waits until the gateway holds every jti.
func (g *gateway) awaits(t *testing.T, jtis ...string) {
	t.Helper()
	for _, jti := range jtis {
		eventually(t, g.protocol+" gateway holds "+jti, func() bool { return g.holds(jti) })
	}
}
