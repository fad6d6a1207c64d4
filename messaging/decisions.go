package messaging

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"revocation-adapter/revocation"
)

// SourceHTTP is the way in of who decides at the control port.
const SourceHTTP = "http"

// The reasons for which a decision is not written.
var (
	ErrDecisionsBusy    = errors.New("too many decisions wait")
	ErrDecisionsLate    = errors.New("the hub does not answer: the decision was not begun in time")
	ErrDecisionsStopped = errors.New("decisions are not written: the adapter stops")
)

// How decisions are written.
const (
	decisionWriters  = 1                // batches in flight at the same time: each costs the hub some files, however small it is
	decisionBatch    = 256              // keys in one
	decisionShare    = 64               // of them, of one caller while others wait
	maxDecisions     = 100_000          // that wait
	decisionsFailing = 10 * time.Second // between two lines about decisions that fail
)

// Decisions writes what a person or a service decides and waits for. A decision is
// later than what it overturns: an approval after a revocation whose time is ahead
// of the clock counts, and so does a revocation after such an approval.
//
// What comes while a batch is in flight goes together in the next. Callers take
// turns, so that one who brings thousands holds back nobody. Decisions that say
// different things of one key are written one after the other, in the order in
// which they came here: each has a version that says it. Any number of goroutines
// may decide.
type Decisions struct {
	hub     *Hub
	log     *revocation.Log
	writer  *Writer
	metrics *metrics
	failing *rate.Sometimes // bounds the lines about what fails

	wake    chan struct{} // a nudge that there is something to write
	stopped chan struct{} // closed when nobody writes any more

	mu      sync.Mutex          // guards what follows
	calls   []*decisionCall     // those of which something is not begun, by turns
	flying  map[string]struct{} // subjects that are being written
	waiting int                 // decisions that are not begun
	silent  bool                // the hub has answered nothing of the last flight
	written hints
}

// decisionCall is what one caller decides, in one Put.
type decisionCall struct {
	gone <-chan struct{} // closed when the caller does not wait any more
	came time.Time
	done chan struct{} // closed when nothing is left

	// Under Decisions.mu, until done is closed.
	left     []decision // not begun
	open     int        // not answered
	outcomes []Outcome
}

// decision is one revocation of a call.
type decision struct {
	of      *decisionCall
	at      int // index in the call
	subject string
	want    revocation.Revocation
}

// NewDecisions returns what writes decisions into hub, for a replica that knows
// what log says.
func NewDecisions(hub *Hub, log *revocation.Log, m *Metrics) *Decisions {
	return &Decisions{
		hub: hub, log: log, writer: NewWriter(hub, log), metrics: (*metrics)(m),
		failing: &rate.Sometimes{First: 1, Interval: decisionsFailing},
		wake:    make(chan struct{}, 1), stopped: make(chan struct{}),
		flying: map[string]struct{}{}, written: hints{at: map[string]uint64{}},
	}
}

// Run writes decisions until ctx ends. It is run once.
func (d *Decisions) Run(ctx context.Context) error {
	defer close(d.stopped)
	group, ctx := errgroup.WithContext(ctx)
	for range decisionWriters {
		group.Go(func() error { return d.work(ctx) })
	}
	return group.Wait()
}

// Put writes decisions and returns what became of each. After an error nobody
// knows whether it is in the log, and it may be put again with the same event id;
// but for ErrFull and ErrRecord, with which it is not there. Where ctx ends, what is
// not begun is not written; nor is what has waited for ten seconds, while the hub does
// not answer. Whether one has expired is the caller's to ask.
func (d *Decisions) Put(ctx context.Context, rs ...revocation.Revocation) []Outcome {
	call := &decisionCall{gone: ctx.Done(), came: time.Now(), done: make(chan struct{}), open: len(rs), outcomes: make([]Outcome, len(rs))}
	if len(rs) == 0 {
		return call.outcomes
	}
	for i, r := range rs {
		if err := checkEvents(r); err != nil {
			call.outcomes[i].Err = err
			call.open--
			continue
		}
		call.left = append(call.left, decision{call, i, subjectOf(r.Domain, r.Digest), r})
	}
	outcomes := d.await(ctx, call)
	for i, o := range outcomes {
		d.count(rs[i], o)
	}
	return outcomes
}

// checkEvents reports why what r says of its events cannot be kept, or nil.
func checkEvents(r revocation.Revocation) error {
	for _, e := range r.Events {
		if err := e.Check(); err != nil {
			return fmt.Errorf("%w: %w", ErrRecord, err)
		}
	}
	return nil
}

// await has a call written, and returns its outcomes.
func (d *Decisions) await(ctx context.Context, call *decisionCall) []Outcome {
	if err := d.enter(call); err != nil {
		return d.leave(call, err)
	}
	select {
	case <-call.done:
		return call.outcomes
	case <-ctx.Done():
		return d.leave(call, fmt.Errorf("write a decision: %w", ctx.Err()))
	case <-d.stopped:
		return d.leave(call, ErrDecisionsStopped)
	}
}

// leave returns what is known of a call for which nobody waits any more: what has
// no outcome yet has err.
func (d *Decisions) leave(call *decisionCall, err error) []Outcome {
	d.mu.Lock()
	defer d.mu.Unlock()
	outcomes := make([]Outcome, len(call.outcomes))
	for i, o := range call.outcomes {
		if outcomes[i] = o; o == (Outcome{}) {
			outcomes[i].Err = err
		}
	}
	return outcomes
}

// enter has a call wait for its turn.
func (d *Decisions) enter(call *decisionCall) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case call.open == 0:
		close(call.done)
		return nil
	case d.waiting > 0 && d.waiting+call.open > maxDecisions:
		return ErrDecisionsBusy
	}
	d.waiting += call.open
	d.calls = append(d.calls, call)
	d.nudge()
	return nil
}

// nudge has a writer look whether there is something to write.
func (d *Decisions) nudge() {
	select {
	case d.wake <- struct{}{}:
	default: // somebody is to come already
	}
}

// work writes one batch after another.
func (d *Decisions) work(ctx context.Context) error {
	for ctx.Err() == nil {
		if f := d.take(); len(f.writes) > 0 {
			d.write(ctx, f)
			continue
		}
		select {
		case <-d.wake:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// write writes a batch and tells the callers. While the log is full, keys of which
// it knows nothing are refused.
func (d *Decisions) write(ctx context.Context, f *flight) {
	full := d.metrics.isFull(d.log, d.hub.cfg.Limits)
	batch := make([]*write, 0, len(f.writes))
	for _, k := range f.writes {
		_, _, known := d.log.Find(k.want.Domain, k.want.Key, k.want.Digest)
		if k.stored = k.stored || known; full && !k.stored {
			k.Err = ErrFull
			continue
		}
		k.anew = d.hub.cfg.UnknownLife / 4
		batch = append(batch, k)
	}
	d.writer.put(ctx, batch)
	d.land(f)
}

// count counts a decision, and says now and then that one failed.
func (d *Decisions) count(r revocation.Revocation, o Outcome) {
	fate := FateDuplicate
	switch {
	case o.Err != nil:
		fate = FateFailed
		d.failing.Do(func() { d.hub.cfg.Log.WithError(o.Err).Warn("A decision is not known to be in the log") })
	case o.Changed:
		fate = FateStored
	}
	d.metrics.count(SourceHTTP, SubjectRevocation, kindOfKey(r.Domain, r.Kind), fate)
}
