package main

import (
	"context"
	"net"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"google.golang.org/grpc"

	"revocation-adapter/resources/proto/wso2/discovery/keymgt"
	keymgtservice "revocation-adapter/resources/proto/wso2/discovery/service/keymgt"
	"revocation-adapter/revocation"
	"revocation-adapter/xds"
)

// linear is what one would take off the shelf: go-control-plane's LinearCache.
type linear struct {
	keymgtservice.UnimplementedRevokedTokenDiscoveryServiceServer
	cache  *cache.LinearCache
	server sotw.Server
}

func newLinear() *linear { return &linear{cache: cache.NewLinearCache(xds.TypeURL)} }

func (l *linear) fill(n int) error {
	held := make(map[string]types.Resource, n)
	for i := range n {
		held[jti("held", i)] = revoked(jti("held", i))
	}
	l.cache.SetResources(held)
	return nil
}

func revoked(jti string) types.Resource {
	return &keymgt.RevokedToken{Jti: jti, Expirytime: revocation.Never / 1_000_000}
}

func (l *linear) push(i int) {
	if err := l.cache.UpdateResource(jti("push", i), revoked(jti("push", i))); err != nil {
		panic(err) // the benchmark is wrong
	}
}

func (l *linear) run(ctx context.Context, lis net.Listener) error {
	l.server = sotw.NewServer(ctx, l.cache, nil)
	g := grpc.NewServer(serverConfig(nil, nil).ServerOptions()...)
	keymgtservice.RegisterRevokedTokenDiscoveryServiceServer(g, l)
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	return g.Serve(lis)
}

// StreamTokens serves one gateway.
func (l *linear) StreamTokens(str keymgtservice.RevokedTokenDiscoveryService_StreamTokensServer) error {
	return l.server.StreamHandler(str, xds.TypeURL)
}
