package messaging

import (
	"cmp"
	"context"
	"fmt"
	"time"
)

// A registry in which nothing was ever put must cost a lookup nothing, and yet no
// grant may be missed that was put before the lookup began, at whichever replica.
// So a replica may rely for a while on the leader's word that the stream has never
// held anything; and whoever puts the first grants is not answered before every
// such word is too old. Once something was put this is over for good.
const (
	emptyFor = time.Second             // how long the word counts, from before it was asked for
	settling = 1200 * time.Millisecond // more, because clocks do not run at the same rate
	longUsed = time.Minute             // ago the first grant was stored, by the hub's clock: nobody relies on such a word
)

// seenGrants is what a replica knows of whether the registry was ever used. It is
// guarded by Grants.mu.
type seenGrants struct {
	used    bool      // something was put, at some time
	settled time.Time // where it is used: from then on nobody believes that it is not
	asked   time.Time // where it is not: when the leader was asked who said so
}

// empty says whether nothing was ever put.
func (g *Grants) empty(ctx context.Context) (bool, error) {
	g.mu.Lock()
	used, asked := g.seen.used, g.seen.asked
	g.mu.Unlock()
	if used {
		return false, nil
	}
	// The wall clock too: the other one stands still in a machine that is suspended.
	if now := time.Now(); now.Sub(asked) < emptyFor && now.Round(0).Sub(asked.Round(0)) < emptyFor {
		return true, nil
	}
	if err := g.count(ctx); err != nil {
		return false, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.seen.used, nil
}

// count asks the leader how many tokens the registry holds.
func (g *Grants) count(ctx context.Context) error {
	asked := time.Now()
	info, err := g.hub.grants.Info(ctx)
	if err != nil {
		return fmt.Errorf("read the registry of grants: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tokens, g.counted = info.State.Msgs, asked
	if info.State.LastSeq == 0 {
		if !g.seen.used {
			g.seen.asked = asked
		}
		return nil
	}
	wait := settling
	if first := info.State.FirstTime; info.State.Msgs > 0 && info.TimeStamp.Sub(first) > longUsed {
		wait = 0
	}
	g.use(wait)
	return nil
}

// use notes that something was put. It is called under mu.
func (g *Grants) use(wait time.Duration) {
	if !g.seen.used {
		g.seen.used, g.seen.settled = true, time.Now().Add(wait)
	}
}

// settled waits until no replica believes that nothing was ever put.
func (g *Grants) settled(ctx context.Context) error {
	g.mu.Lock()
	wait := time.Until(g.seen.settled)
	g.mu.Unlock()
	if wait <= 0 {
		return nil
	}
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("put a grant: %w", ctx.Err())
	}
}

// room says whether more tokens may be put. The count may be a second old.
func (g *Grants) room(ctx context.Context) (bool, error) {
	g.mu.Lock()
	old := time.Since(g.counted) >= time.Second
	g.mu.Unlock()
	if old {
		if err := g.count(ctx); err != nil {
			return false, err
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.tokens < uint64(cmp.Or(g.hub.cfg.Limits.MaxGrants, DefaultMaxGrants)), nil //nolint:gosec // it is checked to be positive
}

// wrote notes that tokens were put that were not there.
func (g *Grants) wrote(tokens uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tokens += tokens
	g.use(settling)
}
