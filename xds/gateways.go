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

	"revocation-adapter/revocation"
)

// gateway is whoever holds streams under one identity.
type gateway struct {
	name    string
	acked   [kinds]atomic.Uint64 // newest version that it ACKed, over all its streams
	nacks   atomic.Uint64
	streams [2]int     // by protocol; under gateways.mu, as the rest
	wanted  [kinds]int // streams that carry the kind
	limited int        // streams that carry some tenants only
}

// ack notes that the gateway is at a version: it said so, or there was nothing to
// tell it up to there.
func (g *gateway) ack(k kind, version uint64) {
	for {
		old := g.acked[k].Load()
		if old >= version || g.acked[k].CompareAndSwap(old, version) {
			return
		}
	}
}

// behind is how many versions the gateway is behind s, with what it wants.
func (g *gateway) behind(s *revocation.Snapshot) (versions uint64) {
	for k := range kind(kinds) {
		acked := g.acked[k].Load()
		if g.wanted[k] > 0 && (acked == 0 || acked < k.newest(s)) {
			versions = max(versions, s.Version()-min(s.Version(), acked))
		}
	}
	return versions
}

func (g *gateway) nack() { g.nacks.Add(1) }

// gateways are those that hold a stream now.
type gateways struct {
	mu     sync.Mutex
	byName map[string]*gateway
}

func (gs *gateways) join(name string, p protocol, a *audience) *gateway {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g := gs.byName[name]
	if g == nil {
		g = &gateway{name: name}
		gs.byName[name] = g
	}
	g.streams[p]++
	if a != nil {
		g.limited++
	}
	return g
}

// want notes that n streams more carry a kind to g.
func (gs *gateways) want(g *gateway, k kind, n int) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g.wanted[k] += n
}

func (gs *gateways) leave(g *gateway, p protocol, a *audience) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if a != nil {
		g.limited--
	}
	if g.streams[p]--; g.streams[sotw]+g.streams[delta] == 0 {
		delete(gs.byName, g.name)
	}
}

// each calls f for every gateway, whose fields f may read.
func (gs *gateways) each(f func(g *gateway)) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	for _, g := range gs.byName {
		f(g)
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
