package xds

import (
	"context"
	"strings"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	keymgtservice "revocation-adapter/resources/proto/wso2/discovery/service/keymgt"
)

// wayOut is what all services serve from. Of a stream's type URL nothing else is
// served on it; resource.AnyType leaves it to the requests.
type wayOut struct {
	cache      *Cache
	serve      func(str stream.Stream, typeURL string) error
	serveDelta func(str stream.DeltaStream, typeURL string) error
}

// rtds is the service that Choreo Connect's enforcers know.
type rtds struct {
	keymgtservice.UnimplementedRevokedTokenDiscoveryServiceServer
	wayOut
}

// StreamTokens serves one enforcer, state of the world.
func (r rtds) StreamTokens(str keymgtservice.RevokedTokenDiscoveryService_StreamTokensServer) error {
	return r.serve(str, TypeURL)
}

// FetchTokens answers one chunk after the request's version_info. The caller
// repeats it until the version stands still.
func (r rtds) FetchTokens(ctx context.Context, req *discovery.DiscoveryRequest) (*discovery.DiscoveryResponse, error) {
	return r.cache.fetch(ctx, tokens, req)
}

// ruleService serves rules to clients that use no aggregated stream.
type ruleService struct {
	revocationv1.UnimplementedRuleDiscoveryServiceServer
	wayOut
}

// StreamRules serves one client, state of the world.
func (r ruleService) StreamRules(str revocationv1.RuleDiscoveryService_StreamRulesServer) error {
	return r.serve(str, RuleTypeURL)
}

// DeltaRules serves one client, incrementally.
func (r ruleService) DeltaRules(str revocationv1.RuleDiscoveryService_DeltaRulesServer) error {
	return r.serveDelta(str, RuleTypeURL)
}

// FetchRules is FetchTokens for rules.
func (r ruleService) FetchRules(ctx context.Context, req *discovery.DiscoveryRequest) (*discovery.DiscoveryResponse, error) {
	return r.cache.fetch(ctx, rules, req)
}

// fetch answers one chunk after the request's version. A version that this
// replica has not reached yet, or after which nothing of what is asked for has
// changed, is answered with itself, so that who repeats it comes to an end.
func (c *Cache) fetch(ctx context.Context, k kind, req *discovery.DiscoveryRequest) (*discovery.DiscoveryResponse, error) {
	if t := req.GetTypeUrl(); t != "" && t != k.url() {
		return nil, status.Errorf(codes.InvalidArgument, "type URL %.200q is not served here, only %s", t, k.url())
	}
	to, err := audienceOf(req.GetNode())
	if err != nil {
		return nil, err
	}
	position, err := c.position(ctx, req.GetVersionInfo(), to.suffix())
	if err != nil {
		return nil, err
	}
	s, same := c.log.Snapshot(), &discovery.DiscoveryResponse{VersionInfo: req.GetVersionInfo(), TypeUrl: k.url()}
	if position > 0 && position >= k.newest(s) {
		return same, nil
	}
	answer := c.chunk(s, position, memoKey{kind: k, form: sotw}, to, c.now())
	if position > 0 && to != nil && answer.entries == 0 {
		return same, nil
	}
	return answer.response(), nil
}

// ads is the aggregated service, both protocols.
type ads struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	wayOut
}

// StreamAggregatedResources serves one client, state of the world.
func (a ads) StreamAggregatedResources(str discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return a.serve(str, resource.AnyType)
}

// DeltaAggregatedResources serves one client, incrementally.
func (a ads) DeltaAggregatedResources(str discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return a.serveDelta(str, resource.AnyType)
}

// discoveryService says whether a method is one of xDS. Health and reflection
// end as they do.
func discoveryService(method string) bool {
	return strings.HasPrefix(method, "/"+revocationv1.RuleDiscoveryService_ServiceDesc.ServiceName+"/") ||
		strings.HasPrefix(method, "/"+keymgtservice.RevokedTokenDiscoveryService_ServiceDesc.ServiceName+"/") ||
		strings.HasPrefix(method, "/"+discovery.AggregatedDiscoveryService_ServiceDesc.ServiceName+"/")
}

// guardStream refuses xDS streams while the log is not complete, and ends every
// one with an error: go-control-plane ends them with OK, after which a deployed
// enforcer would never come back.
func (s *Server) guardStream(srv any, str grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if !discoveryService(info.FullMethod) {
		return handler(srv, str)
	}
	leave, err := s.admit()
	if err != nil {
		return err
	}
	defer leave()
	if err := handler(srv, str); err != nil {
		return err
	}
	return status.Error(codes.Unavailable, "the stream is over: connect again")
}

func (s *Server) guardCall(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if !discoveryService(info.FullMethod) {
		return handler(ctx, req)
	}
	leave, err := s.admit()
	if err != nil {
		return nil, err
	}
	defer leave()
	return handler(ctx, req)
}

// ready refuses whoever comes while the log is not complete.
func (s *Server) ready() error {
	why := s.cfg.NotReady()
	if why == "" {
		return nil
	}
	s.metrics.refused.Inc()
	return status.Errorf(codes.Unavailable, "not ready, try another adapter: %s", why)
}

// admit lets a stream or a call in, which must leave when it is over.
func (s *Server) admit() (leave func(), err error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	leave = func() { s.streams.Add(-1) }
	if n := s.streams.Add(1); s.cfg.MaxStreams > 0 && n > s.cfg.MaxStreams {
		leave()
		s.metrics.refused.Inc()
		return nil, status.Error(codes.Unavailable, "this adapter serves as many streams as it may: try another")
	}
	return leave, nil
}
