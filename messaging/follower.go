package messaging

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"

	"revocation-adapter/revocation"
)

// Follower applies the hub's log to this replica's.
type Follower struct {
	hub     *Hub
	log     *revocation.Log
	say     logrus.FieldLogger
	metrics *metrics

	notReady atomic.Pointer[string] // why, or nil; any reader, any time

	silent bool // the leader did not answer last; keepTime's

	taken    atomic.Uint64 // messages; tells whether anything comes
	caughtUp chan struct{} // a nudge to ask the leader; only until the log is complete
	once     sync.Once
	complete chan struct{} // closed when the log was complete for the first time

	mu       sync.Mutex // held by whoever changes what follows, or writes log
	applied  uint64     // sequence of REVOCATIONS up to which all was delivered or is gone
	waiting  int        // records applied since the last publication
	pending  []time.Time
	unread   int  // records that could not be understood when the log was first read
	wentBack bool // for good: what the log holds now is another's
}

// How the follower keeps pace.
const (
	idle         = 100 * time.Millisecond // without a message, before the leader is asked during catch-up
	tick         = 2 * time.Second        // without a message, once caught up
	maxWaiting   = 64                     // records applied before they are published, whatever is pending
	maxMeasured  = 1024
	pullMessages = 10_000
)

// ErrWentBack means that the hub's log ends before a version that was already
// shown: a backup was restored, or another log is in its place.
var ErrWentBack = errors.New("the hub's log went back")

// NewFollower returns a follower of hub that writes log and nobody else does.
func NewFollower(hub *Hub, log *revocation.Log, m *Metrics) *Follower {
	f := &Follower{
		hub: hub, log: log, say: hub.cfg.Log, metrics: (*metrics)(m),
		caughtUp: make(chan struct{}, 1), complete: make(chan struct{}),
	}
	f.setNotReady("the log is not read to its end yet")
	return f
}

// NotReady says why what the log holds may be incomplete, "" when it is whole.
func (f *Follower) NotReady() string {
	if why := f.notReady.Load(); why != nil {
		return *why
	}
	return ""
}

// Complete is closed when the log has been read to its end for the first time.
func (f *Follower) Complete() <-chan struct{} { return f.complete }

func (f *Follower) setNotReady(why string) { f.notReady.Store(&why) }

// Run follows the hub's log until ctx ends, purging as configured.
func (f *Follower) Run(ctx context.Context) error {
	cons, err := f.hub.js.OrderedConsumer(ctx, LogStream, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return fmt.Errorf("consumer of %s: %w", LogStream, err)
	}
	failed := make(chan error, 1)
	messages, err := cons.Consume(func(msg jetstream.Msg) {
		if err := f.take(msg); err != nil {
			select {
			case failed <- err:
			default: // the first is the reason
			}
		}
	}, jetstream.PullMaxMessages(pullMessages), jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
		f.say.WithError(err).Warn("The hub's log does not arrive, trying again")
	}))
	if err != nil {
		return fmt.Errorf("consumer of %s: %w", LogStream, err)
	}
	defer func() {
		messages.Stop()
		<-messages.Closed()
	}()
	return f.keepTime(ctx, failed, messages.Closed())
}

// keepTime asks the leader how far the log goes whenever nothing comes, and
// purges, until ctx ends or a message cannot be taken.
func (f *Follower) keepTime(ctx context.Context, failed <-chan error, closed <-chan struct{}) error {
	beat := time.NewTicker(idle)
	defer beat.Stop()
	purge := f.hub.cfg.Now().Add(f.hub.cfg.PurgeInterval)
	seen, quiet := uint64(0), time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			return err
		case <-closed:
			return cmp.Or(ctx.Err(), fmt.Errorf("consumer of %s: %w", LogStream, jetstream.ErrConnectionClosed))
		case <-f.caughtUp:
			f.confirm(ctx)
			continue
		case <-beat.C:
		}
		if now := f.taken.Load(); now != seen {
			seen, quiet = now, 0
		} else {
			quiet += idle
		}
		if quiet > 0 && (f.NotReady() != "" || quiet >= tick) {
			quiet = 0
			f.confirm(ctx)
		}
		if now := f.hub.cfg.Now(); !now.Before(purge) {
			f.metrics.purged.Add(float64(f.log.Purge(now)))
			purge = now.Add(f.hub.cfg.PurgeInterval)
		}
	}
}

// take applies one message and publishes what was applied, when nothing more is
// at hand.
func (f *Follower) take(msg jetstream.Msg) error {
	meta, err := msg.Metadata()
	if err != nil {
		return fmt.Errorf("message of %s: %w", LogStream, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.taken.Add(1)
	if f.wentBack {
		return nil
	}
	if err := f.apply(meta.Sequence.Stream, msg.Data()); err != nil {
		return err
	}
	ready, caughtUp := f.NotReady() == "", meta.NumPending == 0
	switch {
	case ready && (caughtUp || f.waiting >= maxWaiting):
		f.publish()
	case !ready && caughtUp:
		select {
		case f.caughtUp <- struct{}{}:
		default: // it is to be asked already
		}
	}
	return nil
}

func (f *Follower) apply(sequence uint64, data []byte) error {
	if sequence <= f.applied {
		return nil // it expired on its way, and the version has risen past it
	}
	f.applied = sequence
	f.waiting++
	r, err := decodeRecord(data)
	if err != nil {
		f.metrics.undecodable.Inc()
		f.say.WithError(err).WithField("sequence", sequence).
			Error("A record of the hub cannot be understood; what was known of its key stays in force")
		if f.NotReady() != "" {
			f.unread++
		}
		return nil
	}
	if r.Lifetime == revocation.Unknown {
		f.metrics.unknown.Inc()
	}
	if len(f.pending) < maxMeasured && r.Time > 0 && f.NotReady() == "" {
		f.pending = append(f.pending, time.UnixMicro(r.Time))
	}
	return f.log.Append(sequence, r)
}

func (f *Follower) publish() {
	if f.waiting == 0 || f.NotReady() != "" {
		return
	}
	f.log.Publish(f.applied)
	now := f.hub.cfg.Now()
	for _, at := range f.pending {
		f.metrics.publication.Observe(now.Sub(at).Seconds())
	}
	f.waiting, f.pending = 0, f.pending[:0]
}

// confirm asks the stream's leader whether anything follows what was applied. If
// nothing does, every key that there is has been delivered, and everything up to
// the stream's last sequence is applied or gone.
//
// That the consumer has nothing pending is not enough: it may be served by a node
// that lags behind the leader, a tail that expires is never delivered at all, and
// what is pending is undercounted while keys that are not delivered yet are
// written again. Nor is it enough to have reached what was once the last
// sequence: a key written again since then is known by neither.
func (f *Follower) confirm(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	f.mu.Lock()
	f.publish()
	applied, head, wentBack := f.applied, f.log.Snapshot().Version(), f.wentBack
	f.mu.Unlock()
	if wentBack {
		return
	}
	last, nothingFollows, err := f.askLeader(ctx, applied)
	f.hear(ctx, err)
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case last < head:
		f.refuse(last, head)
	case nothingFollows:
		// What was applied meanwhile came later than the answer: nothing is
		// missing before it either.
		f.reach(max(last, f.applied))
	}
}

// hear says once that the leader has fallen silent, and once that it is back.
func (f *Follower) hear(ctx context.Context, err error) {
	switch {
	case err != nil && !f.silent && !errors.Is(ctx.Err(), context.Canceled):
		f.silent = true
		f.say.WithError(err).WithField("version", f.log.Snapshot().Version()).
			Warn("The hub does not answer: what is known is still served, and may be stale")
	case err == nil && f.silent:
		f.silent = false
		f.say.Info("The hub answers again")
	}
}

// askLeader returns the stream's last sequence, and whether nothing is stored
// after applied.
func (f *Follower) askLeader(ctx context.Context, applied uint64) (last uint64, nothingFollows bool, err error) {
	info, err := f.hub.log.Info(ctx)
	if err != nil {
		return 0, false, err
	}
	last = info.State.LastSeq
	if last <= applied {
		return last, true, nil
	}
	// One after last counts too: it may have replaced a record before it, of a
	// key that is not known yet.
	_, err = f.hub.log.GetMsg(ctx, applied+1, jetstream.WithGetMsgSubject(logSubjects))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return last, true, nil
	}
	return last, false, err
}

// reach raises the version to last, up to which everything is applied or
// gone. From the first time on the replica is ready.
func (f *Follower) reach(last uint64) {
	if f.unread > 0 { // of those keys nothing is known: the set would be a lie
		f.setNotReady(fmt.Sprintf("%d records of the hub cannot be understood: was it written by a newer adapter?", f.unread))
		return
	}
	f.log.Publish(last)
	f.applied = last
	f.waiting, f.pending = 0, f.pending[:0]
	if f.notReady.Swap(nil) != nil {
		f.once.Do(func() { close(f.complete) })
		f.say.WithFields(logrus.Fields{"version": last, "revoked": f.log.Snapshot().Counts().Revoked()}).
			Info("The log is complete")
	}
}

// refuse reports that the log went back, and serves nobody new until a person
// has looked: records below head are lost to this replica, so that the log is
// not complete when it has grown past head again. Streams that are open keep
// what they have.
func (f *Follower) refuse(last, head uint64) {
	f.wentBack = true
	f.setNotReady(fmt.Sprintf("%v: it ends at %d, version %d was shown already", ErrWentBack, last, head))
	f.say.WithFields(logrus.Fields{"last": last, "version": head}).
		Error("The hub's log went back: was a backup restored? New gateways are refused")
}
