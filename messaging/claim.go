package messaging

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"revocation-adapter/revocation"
)

// The reasons for which a claim is not decided here and now. It may be made again,
// at any replica, with the same id.
var (
	ErrClaimsNotReady = errors.New("this replica cannot decide claims")
	ErrClaimsBusy     = errors.New("too many claims wait")
)

// How claims are decided.
const (
	claimTimeout  = 5 * time.Second  // of one claim
	claimAttempt  = 2 * time.Second  // of one read or write of the hub
	claimWorkers  = 4                // batches in flight at the same time
	claimBatch    = 500              // tokens in one
	maxClaims     = 20_000           // that wait
	claimMinKept  = time.Minute      // a used token is kept beyond its expiry, however small the grace
	claimsFailing = 10 * time.Second // between two lines about claims that fail
)

// Claims decides who may use a one-time token. The record of the token decides, by
// one compare-and-set: whoever replaces no record, or an approved one, by one that
// names his claim, has it. So it does not matter how many replicas there are, nor
// what any of them knows. Any number of goroutines may claim.
//
// Claims of one token wait for each other here, and one of them goes to the hub.
// Those of many tokens go together: while some batches are in flight, what comes
// gathers for the next.
type Claims struct {
	follower *Follower
	hub      *Hub
	log      *revocation.Log
	writer   *Writer
	metrics  *metrics
	failing  *rate.Sometimes // bounds the lines about what fails

	doubt   atomic.Int64  // when the hub's log was another one, nanoseconds since the epoch; 0: never
	wake    chan struct{} // a nudge that tokens are to be decided
	stopped chan struct{} // closed when nobody decides any more

	mu       sync.Mutex          // guards what follows
	contests map[string]*contest // by subject: of whom claims wait
	queue    []*contest          // those that nobody works on, the oldest first
	waiting  int                 // claims that are not answered
	written  hints
}

// claimant is a claim that waits for its answer.
type claimant struct {
	revocation.TokenClaim
	gone   <-chan struct{} // closed when it does not wait any more
	answer chan verdict    // takes one
}

// verdict is an answer.
type verdict struct {
	outcome revocation.ClaimOutcome
	err     error
}

// contest is the claims of one token, and what is known of its record. It belongs
// to the worker that has taken it from the queue; only claims are shared.
type contest struct {
	write
	claims []*claimant            // under Claims.mu: those that are not answered
	asked  int                    // of them, those that were there when the step began
	first  revocation.TokenClaim  // of those, the one that a write is for
	old    *revocation.Revocation // the record that is approved, of sequence last; nil: there is none

	refused int  // batches that it was in and that were refused for some conflict
	tries   int  // writes of it alone that came into conflict
	lost    bool // the answer to a write was lost
}

// NewClaims returns what decides claims at the replica that follows with f.
func NewClaims(f *Follower) *Claims {
	return &Claims{
		follower: f, hub: f.hub, log: f.log, writer: NewWriter(f.hub, f.log), metrics: f.metrics,
		failing: &rate.Sometimes{First: 1, Interval: claimsFailing},
		wake:    make(chan struct{}, 1), stopped: make(chan struct{}),
		contests: map[string]*contest{}, written: hints{at: map[string]uint64{}},
	}
}

// Run decides claims until ctx ends. It is run once.
func (c *Claims) Run(ctx context.Context) error {
	defer close(c.stopped)
	group, ctx := errgroup.WithContext(ctx)
	for range claimWorkers {
		group.Go(func() error { return c.work(ctx) })
	}
	return group.Wait()
}

// Claim decides a claim. After an error nobody knows what became of it, and it may
// be made again with the same id; but for revocation.ErrClaim, after which it
// need not. Of any number of claims of one token one is granted, unless it is
// approved in between; one that was granted is granted when it is repeated.
func (c *Claims) Claim(ctx context.Context, claim revocation.TokenClaim) (revocation.ClaimOutcome, error) {
	began := time.Now()
	outcome, err := c.claim(ctx, claim)
	c.metrics.claimed(outcome, err, time.Since(began))
	if err != nil && !errors.Is(err, revocation.ErrClaim) && ctx.Err() == nil {
		c.failing.Do(func() { c.hub.cfg.Log.WithError(err).Warn("A claim of a one-time token is not decided") })
	}
	return outcome, err
}

func (c *Claims) claim(ctx context.Context, claim revocation.TokenClaim) (revocation.ClaimOutcome, error) {
	if err := claim.Check(); err != nil {
		return 0, err
	}
	if err := c.able(); err != nil {
		return 0, err
	}
	if claim.Expired(c.hub.cfg.Now()) {
		return revocation.ClaimExpired, nil
	}
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	a := &claimant{TokenClaim: claim, gone: ctx.Done(), answer: make(chan verdict, 1)}
	if err := c.enter(a); err != nil {
		return 0, err
	}
	select {
	case v := <-a.answer:
		return v.outcome, v.err
	case <-ctx.Done():
		return 0, fmt.Errorf("claim: %w", ctx.Err())
	case <-c.stopped:
		return 0, fmt.Errorf("%w: it stops", ErrClaimsNotReady)
	}
}

// able reports why this replica should decide no claim now. What it knows is not
// needed, but that its hub is the right one is.
func (c *Claims) able() error {
	switch why := c.follower.NotReady(); {
	case why != "":
		return fmt.Errorf("%w: %s", ErrClaimsNotReady, why)
	case c.hub.wentBack.Load():
		return ErrWentBack
	case c.doubts():
		return errOtherLog
	case !c.hub.Connected():
		return fmt.Errorf("%w: the hub cannot be reached", ErrClaimsNotReady)
	case c.hub.noSpace.Load():
		return fmt.Errorf("%w: the disk of the hub is full", ErrClaimsNotReady)
	}
	return nil
}

// doubts says whether the hub's log was another one, and was not compared since
// with what the follower has read.
func (c *Claims) doubts() bool {
	since := c.doubt.Load()
	if since == 0 {
		return false
	}
	confirmed, _ := c.follower.Confirmed()
	return confirmed.Time.UnixNano() <= since
}

// enter has a claim wait for its answer.
func (c *Claims) enter(a *claimant) error {
	digest := revocation.DigestOf(revocation.DomainToken, a.Key)
	subject := subjectOf(revocation.DomainToken, digest)
	_, _, known := c.log.Find(revocation.DomainToken, a.Key, digest)
	if !known && c.metrics.isFull(c.log, c.hub.cfg.Limits) {
		c.failing.Do(func() {
			c.hub.cfg.Log.WithField("max_live", c.hub.cfg.Limits.MaxLive).
				Error("The log is full: claims of one-time tokens are refused until revocations expire or max_live is raised")
		})
		return ErrFull
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting >= maxClaims {
		return ErrClaimsBusy
	}
	c.waiting++
	if k, open := c.contests[subject]; open {
		k.claims = append(k.claims, a)
		return nil
	}
	k := &contest{write: write{subject: subject, stored: known || c.written.has(subject), keep: claimMinKept}}
	k.claims = append(k.claims, a)
	c.contests[subject] = k
	c.enqueue(k)
	return nil
}

// enqueue has a contest go on. It is called under mu.
func (c *Claims) enqueue(k *contest) {
	c.queue = append(c.queue, k)
	select {
	case c.wake <- struct{}{}:
	default: // somebody is to come already
	}
}

// take returns what is to be decided next, together.
func (c *Claims) take() []*contest {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.queue), claimBatch)
	batch := c.queue[:n:n]
	if c.queue = c.queue[n:]; len(c.queue) > 0 {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	return batch
}

// work decides one batch after another.
func (c *Claims) work(ctx context.Context) error {
	for {
		if batch := c.take(); len(batch) > 0 {
			c.decide(ctx, batch)
			continue
		}
		select {
		case <-c.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// begin starts a step of a contest: what it comes to is the answer to the claims
// that are there now. Later ones were perhaps made after the token was approved
// again, and get the next step. It returns false when nobody waits.
func (c *Claims) begin(k *contest) bool {
	now := c.hub.cfg.Now()
	c.keep(k, func(a *claimant) (verdict, bool) {
		select {
		case <-a.gone:
			return verdict{err: context.Canceled}, true
		default:
			return verdict{outcome: revocation.ClaimExpired}, a.Expired(now)
		}
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.asked = len(k.claims); k.asked > 0 {
		k.first = k.claims[0].TokenClaim
		return true
	}
	delete(c.contests, k.subject)
	return false
}

// keep answers those claims of a contest of which told says so.
func (c *Claims) keep(k *contest, told func(*claimant) (verdict, bool)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := k.claims[:0:0]
	for _, a := range k.claims {
		v, done := told(a)
		if !done {
			left = append(left, a)
			continue
		}
		c.waiting--
		a.answer <- v // it takes one
	}
	k.claims = left
}

// finish answers the claims that the step was for. If others came meanwhile, the
// record is read for them.
func (c *Claims) finish(k *contest, tell func(*claimant) verdict) {
	asked := k.asked
	c.keep(k, func(a *claimant) (verdict, bool) {
		if asked--; asked < 0 {
			return verdict{}, false
		}
		return tell(a), true
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(k.claims) == 0 {
		delete(c.contests, k.subject)
		return
	}
	k.old, k.last, k.stored = nil, 0, true
	k.refused, k.tries, k.lost = 0, 0, false
	c.enqueue(k)
}

// settle answers by the record that holds now, which is revoked.
func (c *Claims) settle(k *contest, record revocation.Revocation) {
	c.finish(k, func(a *claimant) verdict {
		if a.GrantedBy(record) {
			return verdict{outcome: revocation.ClaimGranted}
		}
		return verdict{outcome: revocation.ClaimRevoked}
	})
}

// fail answers that nobody knows.
func (c *Claims) fail(k *contest, err error) {
	c.finish(k, func(*claimant) verdict { return verdict{err: err} })
}

// again has contests go on with the next batch.
func (c *Claims) again(batch ...*contest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range batch {
		c.enqueue(k)
	}
}

// hints are the tokens that were written here and of which the log may not have
// heard yet: they are to be read. It costs a conflict if one is forgotten.
type hints struct {
	at    map[string]uint64 // subject to sequence
	order []string          // as they were written
}

const maxHints = 100_000

func (h *hints) has(subject string) bool {
	_, ok := h.at[subject]
	return ok
}

// add notes a record, and forgets those that the log has heard of.
func (h *hints) add(subject string, sequence, heard uint64) {
	if !h.has(subject) {
		h.order = append(h.order, subject)
	}
	h.at[subject] = sequence
	for len(h.order) > 0 && (h.at[h.order[0]] <= heard || len(h.order) > maxHints) {
		delete(h.at, h.order[0])
		h.order = h.order[1:]
	}
}
