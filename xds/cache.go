package xds

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"revocation-adapter/revocation"
)

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
	hub   func() string                         // identity of the hub's log
	fresh func() (version uint64, at time.Time) // what the log is known to hold
	memos [kinds + 1]memo                       // by kind, and of those who ask for some tenants

	scratch sync.Pool // of *[]byte, for encoders
	packers chan *packer
	pages   pages
	current atomic.Pointer[revocation.Snapshot] // what streams are served from
	told    atomic.Pointer[freshness]           // of which they are to be told

	// These are run's.
	ticked bool // who waits for a time is due
	beaten bool // who is told how fresh the log is, is due

	mu   sync.Mutex
	lots [lots]lot
}

// lot is where watches wait for the same thing.
type lot struct {
	parked []watch
	timed  int    // of parked, those that wait for a time as well
	served uint64 // newest that they wait for, as they saw it
}

// wait is what a watch waits for, beside time.
type wait uint8

const (
	forVersions wait = iota // each that is published
	forRules                // those at which rules changed
	forBatches              // each that is published, and each heartbeat

	lots = 3
)

// newest is how far s has come with what is waited for.
func (w wait) newest(s *revocation.Snapshot) uint64 {
	if w == forRules {
		return rules.newest(s)
	}
	return s.Version()
}

func (c *Cache) open(cfg Config) {
	c.log, c.grace, c.last, c.now = cfg.Revocations, cfg.Grace, cfg.Last, cfg.Now
	c.hub, c.fresh = cfg.Identity, cfg.Complete
	c.current.Store(c.log.Snapshot())
	for i := range c.memos {
		c.memos[i].entries = make([]*memoEntry, memoSize)
	}
	c.memos[kinds].entries = make([]*memoEntry, memoAudience)
	c.told.Store(&freshness{})
	c.packers = make(chan *packer, 2)
	c.pages.held = map[pageKey]*page{}
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
	index int  // in its lot, plus one; 0: not parked
	wait  wait // which lot it is; set before it is parked, as the next
	timed bool // waits for a time as well
}

func (p *parking) place() *parking { return p }

// park keeps w until something after seen is served. It refuses, if there has
// been something meanwhile.
func (c *Cache) park(w watch, seen *revocation.Snapshot) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := w.place()
	l := &c.lots[p.wait]
	if l.served > p.wait.newest(seen) {
		return false
	}
	l.parked = append(l.parked, w)
	p.index = len(l.parked)
	if p.timed {
		l.timed++
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
	l := &c.lots[p.wait]
	end := len(l.parked) - 1
	l.parked[p.index-1] = l.parked[end]
	l.parked[p.index-1].place().index = p.index
	l.parked[end] = nil
	l.parked = l.parked[:end]
	l.left(p)
}

// left keeps count of a watch that is parked no longer.
func (l *lot) left(p *parking) {
	if p.timed {
		l.timed--
	}
	p.index = 0
}

// take empties a lot, into spare if it fits, unless s brings nothing that its
// watches wait for.
func (c *Cache) take(from wait, s *revocation.Snapshot, spare []watch) []watch {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &c.lots[from]
	if from.newest(s) <= l.served && (l.timed == 0 || !c.ticked) && (from != forBatches || !c.beaten) {
		return nil
	}
	l.served = max(l.served, from.newest(s))
	if len(l.parked) == 0 {
		return nil
	}
	taken := l.parked
	l.parked = spare[:0]
	for _, w := range taken {
		l.left(w.place())
	}
	return taken
}

func (c *Cache) waitsForTime() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	timed := 0
	for i := range c.lots {
		timed += c.lots[i].timed
	}
	return timed > 0
}

// run serves the parked watches until ctx ends, whenever the log has published:
// publish is called first, with every version that is served.
//
// A version that comes alone is served at once. One that comes while the streams
// are still busy with the one before waits, and what follows is coalesced with
// it: otherwise each event would find some streams parked and wake them for one
// token, and a burst would take all the processor's time, the hub's included.
func (c *Cache) run(ctx context.Context, publish func(*revocation.Snapshot)) error {
	var spare [lots][]watch
	retry := time.NewTicker(retryEvery)
	defer retry.Stop()
	for {
		shown := c.current.Load()
		c.ticked, c.beaten = false, false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-shown.Next():
		case <-retry.C:
			c.pages.forget(c.now)
			c.ticked, c.beaten = c.waitsForTime(), c.beat()
			if !c.ticked && !c.beaten {
				continue
			}
		}
		s := c.log.Snapshot()
		if s.Version() != shown.Version() {
			publish(s)
		}
		c.current.Store(s)
		served := 0
		for from := range spare {
			served += c.serve(wait(from), s, &spare[from])
		}
		if s.Version() == shown.Version() {
			continue // a heartbeat alone must not hold up what comes next
		}
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

// serve answers the watches of a lot from s, and returns how many were answered.
// Spare is memory, for the next time too.
func (c *Cache) serve(from wait, s *revocation.Snapshot, spare *[]watch) (answered int) {
	taken := c.take(from, s, *spare)
	if len(taken) == 0 {
		return 0
	}
	*spare = taken
	now := c.now()
	for i, w := range taken {
		if w.serve(s, now) {
			answered++
		} else {
			c.park(w, s)
		}
		taken[i] = nil
	}
	return answered
}

// serveOrPark gives a new watch its answer, or keeps it until there is one. The
// first answer of a stream is as new as the log, so that a set that is not
// complete yet is never shown; the others keep pace with the parked.
func (c *Cache) serveOrPark(w watch, first bool) {
	for s := c.current.Load(); ; s = c.current.Load() {
		if first {
			s = c.log.Snapshot()
		}
		if w.serve(s, c.now()) || c.park(w, s) {
			return
		}
	}
}

var errNoLast = status.Error(codes.Unavailable, "the hub does not say how far its log goes")

// position says where a client that claims version stands: there, or at 0 if
// the version is none of ours, or was reached by another audience. A version
// ahead of this replica but not of the hub's log is ours: the answer waits for
// it. Where nobody can say, the client is told to try another replica. Proof is
// what the version must end with.
func (c *Cache) position(ctx context.Context, claim, proof string) (uint64, error) {
	text, same := strings.CutSuffix(claim, proof)
	version, err := strconv.ParseUint(text, 10, 64)
	if err != nil || !same {
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
