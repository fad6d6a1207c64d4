package xds

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"revocation-adapter/revocation"
)

// TypeURL is the type of what is served: wso2.discovery.keymgt.RevokedToken.
const TypeURL = "type.googleapis.com/wso2.discovery.keymgt.RevokedToken"

// retryEvery is how often watches that wait for a time, not for a version, are
// looked at.
const retryEvery = 100 * time.Millisecond

// Cache answers every stream of every protocol from one revocation.Log. Streams
// hold a position in it and nothing else; what they wait for is parked here and
// served by one goroutine.
type Cache struct {
	log   *revocation.Log
	grace time.Duration
	last  func(context.Context) (uint64, error) // last sequence of the hub's log
	now   func() time.Time
	memo  memo

	scratch sync.Pool                           // of *[]byte, for encoders
	current atomic.Pointer[revocation.Snapshot] // what streams are served from

	mu     sync.Mutex
	parked []watch
	timed  int    // of parked, those that wait for a time as well
	served uint64 // version of current, as the parked watches saw it
}

func (c *Cache) open(cfg Config) {
	c.log, c.grace, c.last, c.now = cfg.Revocations, cfg.Grace, cfg.Last, cfg.Now
	c.current.Store(c.log.Snapshot())
}

// watch is a stream that waits.
type watch interface {
	// serve answers from s if there is an answer, and says whether the watch is
	// done: answered, or cancelled. A watch that is not done stays parked.
	serve(s *revocation.Snapshot, now time.Time) (done bool)
	// place is where the watch is parked; the cache's, under its lock.
	place() *parking
}

// parking is embedded in a watch.
type parking struct {
	index int  // in Cache.parked, plus one; 0: not parked
	timed bool // waits for a time as well as for a version; set before it is parked
}

func (p *parking) place() *parking { return p }

// park keeps w until a version after seen is served. It refuses, if there has
// been one meanwhile.
func (c *Cache) park(w watch, seen uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.served > seen {
		return false
	}
	p := w.place()
	c.parked = append(c.parked, w)
	p.index = len(c.parked)
	if p.timed {
		c.timed++
	}
	return true
}

// unpark forgets w, if it is parked.
func (c *Cache) unpark(w watch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := w.place()
	if p.index == 0 {
		return
	}
	end := len(c.parked) - 1
	c.parked[p.index-1] = c.parked[end]
	c.parked[p.index-1].place().index = p.index
	c.parked[end] = nil
	c.parked = c.parked[:end]
	c.left(p)
}

// left keeps count of a watch that is parked no longer.
func (c *Cache) left(p *parking) {
	if p.timed {
		c.timed--
	}
	p.index = 0
}

// take empties the parking lot, into spare if it fits.
func (c *Cache) take(version uint64, spare []watch) []watch {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.parked
	c.parked = spare[:0]
	c.served = version
	for _, w := range taken {
		c.left(w.place())
	}
	return taken
}

func (c *Cache) waitsForTime() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.timed > 0
}

// run serves the parked watches until ctx ends, whenever the log has published:
// publish is called first, with every version that is served.
//
// A version that comes alone is served at once. One that comes while the streams
// are still busy with the one before waits, and what follows is coalesced with
// it: otherwise each event would find some streams parked and wake them for one
// token, and a burst would take all the processor's time, the hub's included.
func (c *Cache) run(ctx context.Context, publish func(*revocation.Snapshot)) error {
	var spare []watch
	retry := time.NewTicker(retryEvery)
	defer retry.Stop()
	for {
		shown := c.current.Load()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-shown.Next():
		case <-retry.C:
			if !c.waitsForTime() {
				continue
			}
		}
		s := c.log.Snapshot()
		if s.Version() != shown.Version() {
			publish(s)
		}
		c.current.Store(s)
		var served int
		spare, served = c.serve(s, spare)
		if pause := breath(served); pause > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(pause):
			}
		}
	}
}

// What a push costs the processor, roughly, the longest that the next round
// waits for one, and the shortest that is worth a timer.
const (
	perPush   = 100 * time.Microsecond
	maxBreath = 500 * time.Millisecond
	minBreath = time.Millisecond
)

// breath is how long to let streams catch up after some were served.
func breath(served int) time.Duration {
	pause := min(maxBreath, time.Duration(served)*perPush)
	if pause < minBreath {
		return 0
	}
	return pause
}

// serve answers the parked watches from s. It returns memory for the next time,
// and how many were answered.
func (c *Cache) serve(s *revocation.Snapshot, spare []watch) ([]watch, int) {
	taken, answered := c.take(s.Version(), spare), 0
	now := c.now()
	for i, w := range taken {
		if w.serve(s, now) {
			answered++
		} else {
			c.park(w, s.Version())
		}
		taken[i] = nil
	}
	return taken, answered
}

// serveOrPark gives a new watch its answer, or keeps it until there is one. The
// first answer of a stream is as new as the log, so that a set that is not
// complete yet is never shown; the others keep pace with the parked.
func (c *Cache) serveOrPark(w watch, first bool) {
	for s := c.current.Load(); ; s = c.current.Load() {
		if first {
			s = c.log.Snapshot()
		}
		if w.serve(s, c.now()) || c.park(w, s.Version()) {
			return
		}
	}
}

var errNoLast = status.Error(codes.Unavailable, "the hub does not say how far its log goes")

// position says where a client that claims version stands: there, or at 0 if
// the version is none of ours. A version ahead of this replica but not of the
// hub's log is ours: the answer waits for it. Where nobody can say, the client
// is told to try another replica.
func (c *Cache) position(ctx context.Context, claim string) (uint64, error) {
	version, err := strconv.ParseUint(claim, 10, 64)
	if err != nil {
		return 0, nil //nolint:nilerr // not a version of ours: the whole set
	}
	if version <= c.log.Snapshot().Version() {
		return version, nil
	}
	last, err := c.last(ctx)
	if err != nil {
		return 0, errNoLast
	}
	if version > last {
		return 0, nil
	}
	return version, nil
}
