package xds

import (
	"context"
	"slices"

	"revocation-adapter/revocation"
)

// Concern names a version, and what was changed up to it that is asked about.
type Concern struct {
	Version uint64
	Parts   []Part
}

// Part is one sort of what was changed.
type Part struct {
	Series revocation.Series
	State  revocation.State
	// Tenants are those of what was changed. Without any, or with "" among them, it
	// is for every gateway.
	Tenants []string
}

// Figure is how a gateway stands to a Concern.
type Figure uint8

// The figures. Where a gateway stands differently to several parts, the greatest
// counts.
const (
	// Gone gateways held a stream while somebody waited, and hold none now.
	Gone Figure = 1 + iota
	// NotConcerned gateways are not told of it: it is of other tenants, or a token
	// where only rules are asked for.
	NotConcerned
	// Enforced gateways have ACKed the version, over all their streams.
	Enforced
	// Cannot be told: the state of the world only adds, and who asks for tokens
	// alone hears of no rule.
	Cannot
	// Pending gateways have not ACKed it yet.
	Pending
)

// Standing is how each gateway stands, by its name.
type Standing map[string]Figure

// Await returns how the gateways stand to c as soon as none of those that hold a
// stream here is pending, and when ctx ends in any case. Who waits beside too many
// others is answered at once.
func (s *Server) Await(ctx context.Context, c Concern) Standing {
	w := &waiter{concern: c, wake: make(chan struct{}, 1), standing: Standing{}}
	attended := s.gateways.attend(w)
	defer s.gateways.dismiss(w)
	for {
		next := w.aim(s.cfg.Revocations.Snapshot())
		if s.gateways.assess(w) == 0 || !attended {
			return w.standing
		}
		select {
		case <-w.wake:
		case <-next:
		case <-ctx.Done():
			s.gateways.assess(w)
			return w.standing
		}
	}
}

// Stands says how a gateway that holds no stream would stand to c if it came back
// as it was: NotConcerned, Cannot or Gone.
func (g GatewayStatus) Stands(c Concern) Figure {
	figure := NotConcerned
	for _, part := range c.Parts {
		figure = max(figure, g.stands(part))
	}
	if figure == Pending {
		return Gone
	}
	return figure
}

func (g GatewayStatus) stands(part Part) Figure {
	hears := len(g.Tenants) == 0 || part.everybodys() ||
		slices.ContainsFunc(part.Tenants, func(tenant string) bool { return slices.Contains(g.Tenants, tenant) })
	if !hears {
		return NotConcerned
	}
	var has lanes
	for k := range kind(kinds) {
		for p := range protocol(protocols) {
			has[k][p] = slices.Contains(g.Types, k.String()) && slices.Contains(g.Protocols, p.String())
		}
	}
	return has.figure(part)
}

// lanes are the ways on which a gateway is told: kinds, by protocol.
type lanes [kinds][protocols]bool

// figure is Pending where one of them carries the part.
func (has lanes) figure(part Part) Figure {
	for _, lane := range part.carriers() {
		if has[lane.kind][lane.form] {
			return Pending
		}
	}
	switch {
	case has == lanes{}: // it has not said yet what it wants
		return Pending
	case part.Series == revocation.Tokens && !has.carry(tokens):
		return NotConcerned
	}
	return Cannot
}

func (has lanes) carry(k kind) bool { return has[k][sotw] || has[k][delta] }

type lane struct {
	kind kind
	form protocol
}

// carriers are the lanes that carry a part. The state of the world says only what
// is revoked.
func (part Part) carriers() []lane {
	k := kind(part.Series) // each series has its own kind
	if part.State == revocation.Approved {
		return []lane{{batches, sotw}, {k, delta}}
	}
	return []lane{{batches, sotw}, {k, sotw}, {k, delta}}
}

// everybodys says whether a part is told to every gateway.
func (part Part) everybodys() bool {
	return len(part.Tenants) == 0 || slices.Contains(part.Tenants, "")
}

// heard says whether an audience is told of some of a part.
func (a *audience) heard(part Part) bool {
	return a == nil || part.everybodys() || slices.ContainsFunc(part.Tenants, a.hears)
}
