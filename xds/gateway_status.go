package xds

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"revocation-adapter/revocation"
)

// GatewayStatus is how a gateway is that holds a stream here.
type GatewayStatus struct {
	Name      string    `json:"name"`
	Address   string    `json:"address"` // of the peer that opened a stream last
	Protocols []string  `json:"protocols"`
	Types     []string  `json:"types"`             // what its streams carry: tokens, rules, batches
	Tenants   []string  `json:"tenants,omitempty"` // none: all
	Since     time.Time `json:"since"`
	Version   uint64    `json:"version"` // newest that it ACKed, over all its streams; 0: none
	Behind    uint64    `json:"behind"`  // versions that it has yet to ACK, of what it wants
	NACKs     uint64    `json:"nacks,omitempty"`
	LastNACK  string    `json:"last_nack,omitempty"` // its reason, at most 200 bytes
}

// Changes counts what changes a GatewayStatus beside ACKs and NACKs. While it
// stands still the same gateways hold the same streams.
func (s *Server) Changes() uint64 { return s.gateways.changes.Load() }

// Gateways are those that hold a stream now, by name.
func (s *Server) Gateways() []GatewayStatus {
	head := s.cfg.Revocations.Snapshot()
	var all []GatewayStatus
	s.gateways.each(func(g *gateway) { all = append(all, g.status(head)) })
	slices.SortFunc(all, func(a, b GatewayStatus) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// status is under gateways.mu, as all that follows.
func (g *gateway) status(head *revocation.Snapshot) GatewayStatus {
	s := GatewayStatus{
		Name: g.name, Address: g.address, Since: g.since, Behind: g.behind(head), NACKs: g.nacks.Load(),
		Protocols: g.protocols(), Tenants: g.tenants(),
	}
	for k := range kind(kinds) {
		if slices.ContainsFunc(g.views, func(v *view) bool { return v.carries(k) }) {
			s.Types = append(s.Types, k.String())
		}
		for _, v := range g.views {
			s.Version = max(s.Version, v.reached(k))
		}
	}
	if reason := g.lastNACK.Load(); reason != nil {
		s.LastNACK = *reason
	}
	return s
}

func (g *gateway) protocols() (names []string) {
	for p := range protocol(protocols) {
		if g.speaks(p) {
			names = append(names, p.String())
		}
	}
	return names
}

func (g *gateway) speaks(p protocol) bool {
	return slices.ContainsFunc(g.views, func(v *view) bool { return v.streams[p] > 0 })
}

// limited is 1 if one of its streams carries some tenants only.
func (g *gateway) limited() int {
	if slices.ContainsFunc(g.views, func(v *view) bool { return v.audience != nil }) {
		return 1
	}
	return 0
}

// tenants are those that its streams ask for; none if one of them asks for all.
func (g *gateway) tenants() []string {
	names := map[string]struct{}{}
	for _, v := range g.views {
		if v.audience == nil {
			return nil
		}
		maps.Copy(names, v.audience.tenants)
	}
	return slices.Sorted(maps.Keys(names))
}
