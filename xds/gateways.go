package xds

import (
	"context"
	"crypto/tls"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"revocation-adapter/revocation"
)

// gateway is whoever holds streams under one identity.
type gateway struct {
	name, address string
	since         time.Time
	nacks         atomic.Uint64
	lastNACK      atomic.Pointer[string]
	views         []*view // one for each set of tenants that its streams ask for; under gateways.mu
}

// view is what those streams of a gateway have come to that ask for the same
// tenants. What was reached with some tenants says nothing about others.
type view struct {
	gateway  *gateway
	all      *gateways
	audience *audience
	acked    [kinds][protocols]atomic.Uint64 // newest version that it ACKed, over all the view's streams
	wanted   [kinds][protocols]int           // streams that carry the kind; under gateways.mu, as the next
	streams  [protocols]int
}

// ack notes that the gateway has a version.
func (v *view) ack(k kind, p protocol, version uint64) { v.raise(k, p, 0, version) }

// pass notes that there was nothing to tell the gateway after a version that it
// has. One that has begun anew since does not have it.
func (v *view) pass(k kind, p protocol, from, to uint64) { v.raise(k, p, from, to) }

func (v *view) raise(k kind, p protocol, from, to uint64) {
	for acked := &v.acked[k][p]; ; {
		old := acked.Load()
		if old >= to || old < from {
			return
		}
		if acked.CompareAndSwap(old, to) {
			v.all.acked(v.gateway.name)
			return
		}
	}
}

// begin notes what the gateway says that it has when it opens a stream, or asks
// for everything anew: no more than that, whatever an older stream of it has
// ACKed, for it may have been restarted since.
func (v *view) begin(k kind, p protocol, version uint64) {
	v.acked[k][p].Store(version)
	v.all.changed(v.gateway.name)
}

// reached is the newest version of a kind that was ACKed, by either protocol.
func (v *view) reached(k kind) uint64 { return max(v.acked[k][sotw].Load(), v.acked[k][delta].Load()) }

// carries says whether a stream of the view carries a kind. Under gateways.mu.
func (v *view) carries(k kind) bool { return v.wanted[k][sotw]+v.wanted[k][delta] > 0 }

// behind is how many versions the gateway is behind s, with what it wants. Under
// gateways.mu.
func (g *gateway) behind(s *revocation.Snapshot) (versions uint64) {
	for _, v := range g.views {
		for k := range kind(kinds) {
			acked := v.reached(k)
			if v.carries(k) && (acked == 0 || acked < k.newest(s)) {
				versions = max(versions, s.Version()-min(s.Version(), acked))
			}
		}
	}
	return versions
}

// maxFault is how much of a refusal's reason is kept, in bytes.
const maxFault = 200

func (g *gateway) nack(reason string) {
	reason = strings.ToValidUTF8(reason[:min(len(reason), maxFault)], "?")
	g.lastNACK.Store(&reason)
	g.nacks.Add(1)
}

// gateways are those that hold a stream now, and who waits for their ACKs.
type gateways struct {
	changes atomic.Uint64             // counts what is not an ACK
	waiters atomic.Pointer[[]*waiter] // nil: nobody waits; written under mu, never in place

	mu     sync.Mutex
	byName map[string]*gateway
}

// caller is who opens a stream.
type caller struct {
	name, address string
	at            time.Time
	form          protocol
	audience      *audience
}

func (gs *gateways) join(c caller) *view {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g := gs.byName[c.name]
	if g == nil {
		g = &gateway{name: c.name, since: c.at}
		gs.byName[c.name] = g
	}
	g.address = c.address
	v := g.view(gs, c.audience)
	v.streams[c.form]++
	gs.changed(c.name)
	return v
}

// view is that of an audience, which is made where there is none. Under
// gateways.mu.
func (g *gateway) view(gs *gateways, a *audience) *view {
	for _, v := range g.views {
		if v.audience.suffix() == a.suffix() {
			return v
		}
	}
	v := &view{gateway: g, all: gs, audience: a}
	g.views = append(g.views, v)
	return v
}

// want notes that n streams more carry a kind to the gateway.
func (gs *gateways) want(v *view, k kind, p protocol, n int) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if v.wanted[k][p] += n; v.wanted[k][p] == 0 {
		v.acked[k][p].Store(0) // who comes again says what he has
	}
	gs.changed(v.gateway.name)
}

func (gs *gateways) leave(v *view, p protocol) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g := v.gateway
	if v.streams[p]--; v.streams[sotw]+v.streams[delta] == 0 {
		g.views = slices.DeleteFunc(g.views, func(other *view) bool { return other == v })
	}
	if len(g.views) == 0 {
		delete(gs.byName, g.name)
	}
	gs.changed(g.name)
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

// addressOf is that of the peer.
func addressOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
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
