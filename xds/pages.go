package xds

import (
	"sync"
	"time"
)

// Full batches are remembered while gateways load the set, in any order and at
// any pace: to pack one takes a hash of each of its tokens. A million tokens are
// sixteen.
const (
	maxPages = 24 // of about 1.2 MB
	pageLife = 10 * time.Second
)

// pages are full batches by where they begin.
type pages struct {
	mu   sync.Mutex
	held map[pageKey]*page
}

type pageKey struct {
	proof string
	from  uint64
}

type page struct {
	chunk *chunk
	used  time.Time // last
}

func (ps *pages) find(at pageKey, now time.Time) *chunk {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.held[at]
	if p == nil {
		return nil
	}
	p.used = now
	return p.chunk
}

// keep remembers a full batch, if need be in place of the one that was longest
// not used.
func (ps *pages) keep(at pageKey, c *chunk, now time.Time) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.held[at] == nil && len(ps.held) == maxPages {
		ps.evict()
	}
	ps.held[at] = &page{c, now}
}

func (ps *pages) evict() {
	var oldest pageKey
	first := true
	for at, p := range ps.held {
		if first || p.used.Before(ps.held[oldest].used) {
			oldest, first = at, false
		}
	}
	delete(ps.held, oldest)
}

// forget gives back the memory of what nobody loads any more.
func (ps *pages) forget(clock func() time.Time) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if len(ps.held) == 0 {
		return
	}
	now := clock()
	for at, p := range ps.held {
		if now.Sub(p.used) > pageLife {
			delete(ps.held, at)
		}
	}
}
