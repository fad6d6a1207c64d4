package xds

import (
	"context"
	"strconv"
	"sync"
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

	mu     sync.Mutex
	parked []watch
	timed  int    // of parked, those that wait for a time as well
	served uint64 // version that the parked watches were last served
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
// publish is called first, with every new version.
func (c *Cache) run(ctx context.Context, publish func(*revocation.Snapshot)) error {
	var spare []watch
	shown := c.log.Snapshot()
	for {
		var retry <-chan time.Time
		if c.waitsForTime() {
			retry = time.After(retryEvery)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-shown.Next():
		case <-retry:
		}
		s := c.log.Snapshot()
		if s.Version() != shown.Version() {
			publish(s)
		}
		shown = s
		spare = c.serve(s, spare)
	}
}

// serve answers the parked watches from s and returns memory for the next time.
func (c *Cache) serve(s *revocation.Snapshot, spare []watch) []watch {
	taken := c.take(s.Version(), spare)
	now := c.now()
	for i, w := range taken {
		if !w.serve(s, now) {
			c.park(w, s.Version())
		}
		taken[i] = nil
	}
	return taken
}

// serveOrPark gives a new watch its answer, or keeps it until there is one.
func (c *Cache) serveOrPark(w watch) {
	for {
		s := c.log.Snapshot()
		if w.serve(s, c.now()) || c.park(w, s.Version()) {
			return
		}
	}
}

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
		return 0, status.Error(codes.Unavailable, "the hub does not say how far its log goes")
	}
	if version > last {
		return 0, nil
	}
	return version, nil
}
