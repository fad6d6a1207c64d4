package page

import (
	"context"
	"maps"
	"slices"
	"time"

	"revocation-adapter/adapter/receipts"
	"revocation-adapter/revocation"
)

// How long gateways are waited for, and how often they are asked for.
const (
	measureAtMost = 10 * time.Second
	storedWithin  = time.Second // the hub may take to say when it stored something
	gatewaysEvery = time.Second
	maxTenants    = 16 // that are told apart in a question; more concern everybody
)

// measure shows how long a version takes from its arrival to the last gateway. One
// is measured at a time: what is published meanwhile goes with the next.
func (p *Page) measure(ctx context.Context) error {
	for seen := p.cfg.Revocations.Snapshot(); ; {
		select {
		case <-seen.Next():
		case <-ctx.Done():
			return ctx.Err()
		}
		s := p.cfg.Revocations.Snapshot()
		if seen.Version() > 0 && p.ready() {
			parts, newest := partsSince(s, seen.Version(), p.cfg.Now())
			p.measureOne(ctx, receipts.Query{Version: s.Version(), Parts: parts}, newest)
		}
		seen = s
		select {
		case <-time.After(tick):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *Page) measureOne(ctx context.Context, q receipts.Query, newest revocation.Change) {
	if len(q.Parts) == 0 {
		return // nothing but expiry
	}
	published := p.cfg.Now()
	r, err := p.cfg.Await(ctx, q, measureAtMost)
	if err != nil {
		p.cfg.Log.WithError(err).Debug("A delivery cannot be measured")
		return
	}
	if r.Enforced == 0 && len(r.Pending) == 0 {
		return // there is no gateway that it concerns
	}
	ended := p.cfg.Now() // before anything is asked that may take its time
	began := p.arrival(ctx, newest, published)
	took := ended.Sub(began)
	p.live.addDelivery(delivery{
		Time: began.UnixMilli(), Version: q.Version, Took: float64(took.Microseconds()) / 1000,
		Enforced: r.Enforced, Pending: len(r.Pending), Unreachable: len(r.Unreachable),
	})
}

// arrival is when the hub stored a change, or the time of its publication here where
// that cannot be told: nobody knows, or the hub's clock is another.
func (p *Page) arrival(ctx context.Context, c revocation.Change, published time.Time) time.Time {
	if p.cfg.Stored == nil || c.Version == 0 {
		return published
	}
	ctx, cancel := context.WithTimeout(ctx, storedWithin)
	defer cancel()
	stored, err := p.cfg.Stored(ctx, c)
	if before := published.Sub(stored); err != nil || before < 0 || before > measureAtMost {
		return published
	}
	return stored
}

// partsSince says what a gateway must be concerned with to be concerned with what
// changed after a version, and what changed last.
func partsSince(s *revocation.Snapshot, version uint64, now time.Time) (parts []receipts.Part, newest revocation.Change) {
	type kind struct {
		series revocation.Series
		state  revocation.State
	}
	found := map[kind]map[string]bool{}
	for c := range s.Since(version, now) {
		if c.Version > newest.Version {
			newest = c
		}
		k := kind{c.Domain.Series(), c.State}
		if found[k] == nil {
			found[k] = map[string]bool{}
		}
		if len(found[k]) <= maxTenants {
			found[k][c.Tenant] = true
		}
	}
	for k, tenants := range found {
		part := receipts.Part{Series: k.series, State: k.state}
		if !tenants[""] && len(tenants) <= maxTenants {
			part.Tenants = slices.Sorted(maps.Keys(tenants))
		}
		parts = append(parts, part)
	}
	return parts, newest
}

// watchGateways keeps the list of gateways up to date while somebody looks at it.
func (p *Page) watchGateways(ctx context.Context) error {
	ticker := time.NewTicker(gatewaysEvery)
	defer ticker.Stop()
	for {
		if len(p.slots) > 0 {
			p.askGateways(ctx)
		}
		select {
		case <-ticker.C:
		case <-p.looked:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *Page) askGateways(ctx context.Context) {
	list, err := p.cfg.Gateways(ctx)
	if err != nil {
		p.put("gateways_error", "the list of gateways cannot be had")
		p.cfg.Log.WithError(err).Debug("Gateways cannot be listed")
		return
	}
	p.put("gateways_error", nil)
	p.live.setGateways(list)
}
