package page

import (
	"context"
	"encoding/json"
	"math"
	"slices"
	"time"

	"revocation-adapter/revocation"
)

// How often the page is brought up to date.
const (
	tick       = 250 * time.Millisecond // what changes is shown four times a second at most
	beatTicks  = 4                      // what must be asked for is asked for once a second
	rateTicks  = 20                     // the rate is that of the last five seconds
	newestSpan = 1 << 16                // how many versions are looked through for the newest changes
)

// follower reads the log for the page. Its fields are those of the one who follows.
type follower struct {
	page  *Page
	last  uint64 // version that was read last
	rates [rateTicks]int
	ticks int
}

// logValue is what the page shows of the log as a whole.
type logValue struct {
	Version  uint64  `json:"version"`
	Revoked  int     `json:"revoked"`
	Approved int     `json:"approved"`
	Rate     float64 `json:"rate"` // changes a second
}

// follow shows what the log, the status and the sources say.
func (p *Page) follow(ctx context.Context) error {
	f := &follower{page: p}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		if f.ticks%beatTicks == 0 {
			p.ask(ctx)
		}
		f.read()
		f.ticks++
		p.live.publish()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ask shows what nobody tells the page by itself.
func (p *Page) ask(ctx context.Context) {
	p.sessions.sweep(p.admitted)
	p.put("status", p.cfg.Status())
	p.put("sources", p.cfg.Sources())
	if p.cfg.DeadLetters == nil {
		return
	}
	n, err := p.cfg.DeadLetters(ctx)
	if err != nil {
		p.cfg.Log.WithError(err).Debug("Dead letters cannot be counted")
		p.put("dead_letters", nil)
		return
	}
	p.put("dead_letters", n)
}

func (p *Page) put(name string, what any) {
	if err := p.live.put(name, what); err != nil {
		p.cfg.Log.WithError(err).Error("The page cannot show a value")
	}
}

// read shows what the log has published since the last tick. What was there before
// the log was complete is no news.
func (f *follower) read() {
	s := f.page.cfg.Revocations.Snapshot()
	count, now := 0, f.page.cfg.Now()
	switch {
	case s.Version() == f.last:
	case f.last == 0 || !f.page.ready():
		f.page.live.addChanges(newest(s, f.last, now))
	default:
		var list []change
		count, list = collect(s, f.last, now)
		for i := range list {
			list[i].Seen = now.UnixMilli()
		}
		f.page.live.addChanges(list)
	}
	f.last = s.Version()
	f.rates[f.ticks%rateTicks] = count
	f.page.put("log", logValue{s.Version(), s.Counts().Revoked(), s.Counts().Approved, f.rate()})
}

func (f *follower) rate() float64 {
	total := 0
	for _, n := range f.rates {
		total += n
	}
	return math.Round(10*float64(total)/(rateTicks*tick.Seconds())) / 10
}

// ready says what /readyz says.
func (p *Page) ready() bool {
	text, err := json.Marshal(p.cfg.Status())
	if err != nil {
		return false
	}
	var status struct {
		Ready bool `json:"ready"`
	}
	return json.Unmarshal(text, &status) == nil && status.Ready
}

// newest returns the newest changes after a version. A log of millions is not read
// for fifty.
func newest(s *revocation.Snapshot, version uint64, now time.Time) []change {
	var list []change
	for span := uint64(4 * keptChanges); ; span *= 16 {
		from := max(version, s.Version()-min(s.Version(), span))
		_, list = collect(s, from, now)
		if len(list) >= keptChanges || span >= newestSpan || from == version {
			return list
		}
	}
}

// collect counts what changed after a version, and returns the newest of it, the
// oldest first.
func collect(s *revocation.Snapshot, version uint64, now time.Time) (count int, list []change) {
	var kept []revocation.Change
	for _, series := range []revocation.Series{revocation.Tokens, revocation.Rules} {
		var ring []revocation.Change
		for c := range s.SinceOf(series, version, now) {
			count++
			if ring = append(ring, c); len(ring) >= 2*keptChanges {
				ring = lastOf(ring, keptChanges)
			}
		}
		kept = append(kept, ring...)
	}
	slices.SortFunc(kept, func(a, b revocation.Change) int { return int(int64(a.Version) - int64(b.Version)) })
	for _, c := range lastOf(kept, keptChanges) {
		list = append(list, shownChange(c))
	}
	return count, list
}

func shownChange(c revocation.Change) change {
	shown := change{Version: c.Version, Name: c.Name(), Domain: c.Domain.String(), State: c.State.String(), Tenant: c.Tenant}
	if c.Expiry != revocation.Never {
		shown.Expires = c.Expiry
	}
	return shown
}
