package xds

import (
	"context"
	"crypto/tls"
	"strings"
	"sync"
	"sync/atomic"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// gateway is whoever holds streams under one identity.
type gateway struct {
	name    string
	acked   atomic.Uint64 // newest version that it ACKed, over all its streams
	nacks   atomic.Uint64
	streams [2]int // by protocol; under gateways.mu
}

func (g *gateway) ack(version uint64) {
	for {
		old := g.acked.Load()
		if old >= version || g.acked.CompareAndSwap(old, version) {
			return
		}
	}
}

func (g *gateway) nack() { g.nacks.Add(1) }

// gateways are those that hold a stream now.
type gateways struct {
	mu     sync.Mutex
	byName map[string]*gateway
}

func (gs *gateways) join(name string, p protocol) *gateway {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g := gs.byName[name]
	if g == nil {
		g = &gateway{name: name}
		gs.byName[name] = g
	}
	g.streams[p]++
	return g
}

func (gs *gateways) leave(g *gateway, p protocol) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if g.streams[p]--; g.streams[sotw]+g.streams[delta] == 0 {
		delete(gs.byName, g.name)
	}
}

// each calls f for every gateway.
func (gs *gateways) each(f func(g *gateway, streams [2]int)) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	for _, g := range gs.byName {
		f(g, g.streams)
	}
}

// Node metadata that names an instance: deployed enforcers all have one node id.
const instanceKey = "instanceIdentifier"

// maxName bounds what a gateway may call itself, in bytes.
const maxName = 256

// identity is the certificate's subject and the node's instance identifier;
// without them the node id and the peer's address.
func identity(ctx context.Context, node *core.Node) string {
	p, _ := peer.FromContext(ctx)
	var parts []string
	if subject := subjectOf(p); subject != "" {
		parts = append(parts, subject)
	}
	if instance := node.GetMetadata().GetFields()[instanceKey].GetStringValue(); instance != "" {
		parts = append(parts, instance)
	}
	if len(parts) == 0 {
		parts = append(parts, node.GetId())
		if p != nil {
			parts = append(parts, p.Addr.String())
		}
	}
	name := strings.ToValidUTF8(strings.Join(parts, "/"), "?")
	return strings.ToValidUTF8(name[:min(len(name), maxName)], "")
}

func subjectOf(p *peer.Peer) string {
	if p == nil {
		return ""
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return ""
	}
	return subjectOfState(info.State)
}

func subjectOfState(state tls.ConnectionState) string {
	if len(state.VerifiedChains) == 0 || len(state.PeerCertificates) == 0 {
		return ""
	}
	return state.PeerCertificates[0].Subject.String()
}
