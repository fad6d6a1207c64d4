package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"revocation-adapter/integration/chaos/history"
	"revocation-adapter/resources/proto/wso2/discovery/keymgt"
	keymgtservice "revocation-adapter/resources/proto/wso2/discovery/service/keymgt"
	"revocation-adapter/xds"
)

// gateways is how many there are.
const gateways = 50

// How a gateway notices that a replica is gone. The adapter's keepalive policy
// allows a ping every 10 s.
const (
	pingEvery    = 10 * time.Second
	pingTimeout  = 3 * time.Second
	connectLimit = 2 * time.Second
	failoverWait = 200 * time.Millisecond
)

// protocol is how a gateway reads.
type protocol int

const (
	rtds protocol = iota // StreamTokens
	sotw                 // StreamAggregatedResources
	delta
)

func (p protocol) String() string { return [...]string{"rtds", "sotw", "delta"}[p] }

// protocolOf makes half of the gateways delta ones.
func protocolOf(number int) protocol { return min(protocol(number%4), delta) }

func nameOf(number int) string { return fmt.Sprintf("%s-%d", protocolOf(number), number) }

// gateway holds one stream to one replica, and goes on to the next when it
// ends. It keeps what it has, and resumes with its version.
type gateway struct {
	number   int
	replicas []string
	record   *recorder
	version  string
	held     map[string]string // delta: name to version
}

// run reads until ctx ends.
func (g *gateway) run(ctx context.Context) {
	pause := time.NewTicker(failoverWait)
	defer pause.Stop()
	for at := g.number; ctx.Err() == nil; at++ {
		_ = g.follow(ctx, at%len(g.replicas)) // why it ended changes nothing: on to the next
		if ctx.Err() == nil {
			g.record.failover()
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
}

func (g *gateway) follow(ctx context.Context, replica int) error {
	conn, err := grpc.NewClient(g.replicas[replica], grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectLimit}))
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it is given up
	switch protocolOf(g.number) {
	case delta:
		str, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
		if err != nil {
			return err
		}
		return g.delta(str, replica)
	case sotw:
		str, err := discovery.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
		if err != nil {
			return err
		}
		return g.sotw(str, replica)
	default:
		str, err := keymgtservice.NewRevokedTokenDiscoveryServiceClient(conn).StreamTokens(ctx)
		if err != nil {
			return err
		}
		return g.sotw(str, replica)
	}
}

func (g *gateway) node() *core.Node {
	return &core.Node{Id: "chaos", Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
		"instanceIdentifier": structpb.NewStringValue(nameOf(g.number)),
	}}}
}

func (g *gateway) sotw(str grpc.BidiStreamingClient[discovery.DiscoveryRequest, discovery.DiscoveryResponse], replica int) error {
	req := &discovery.DiscoveryRequest{Node: g.node(), TypeUrl: xds.TypeURL, VersionInfo: g.version}
	for {
		if err := str.Send(req); err != nil {
			return err
		}
		resp, err := str.Recv()
		if err != nil {
			return err
		}
		added, err := names(resp.GetResources())
		if err == nil {
			err = g.take(resp.GetVersionInfo(), history.Response{Replica: replica, Added: added})
		}
		if err != nil {
			return err
		}
		req = &discovery.DiscoveryRequest{TypeUrl: xds.TypeURL, VersionInfo: g.version, ResponseNonce: resp.GetNonce()}
	}
}

func (g *gateway) delta(str grpc.BidiStreamingClient[discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse], replica int) error {
	req := &discovery.DeltaDiscoveryRequest{Node: g.node(), TypeUrl: xds.TypeURL, InitialResourceVersions: g.held}
	for {
		if err := str.Send(req); err != nil {
			return err
		}
		resp, err := str.Recv()
		if err != nil {
			return err
		}
		var anys []*anypb.Any
		for _, r := range resp.GetResources() {
			anys = append(anys, r.GetResource())
		}
		added, err := names(anys)
		if err == nil {
			err = g.take(resp.GetSystemVersionInfo(), history.Response{Replica: replica, Added: added, Removed: resp.GetRemovedResources()})
		}
		if err != nil {
			return err
		}
		for _, r := range resp.GetResources() {
			g.held[r.GetName()] = r.GetVersion()
		}
		for _, name := range resp.GetRemovedResources() {
			delete(g.held, name)
		}
		req = &discovery.DeltaDiscoveryRequest{TypeUrl: xds.TypeURL, ResponseNonce: resp.GetNonce()}
	}
}

// take records a response, which is then acknowledged.
func (g *gateway) take(version string, r history.Response) (err error) {
	if r.Version, err = strconv.ParseUint(version, 10, 64); err != nil {
		return fmt.Errorf("version %q: %w", version, err)
	}
	r.Gateway = g.number
	g.version = version
	g.record.response(r)
	return nil
}

func names(resources []*anypb.Any) ([]string, error) {
	var all []string
	for _, resource := range resources {
		var t keymgt.RevokedToken
		if err := resource.UnmarshalTo(&t); err != nil {
			return nil, err
		}
		all = append(all, t.GetJti())
	}
	return all, nil
}
