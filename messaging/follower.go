package messaging

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
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

	notReady  atomic.Pointer[string]       // why, or nil; any reader, any time
	confirmed atomic.Pointer[Confirmation] // the newest; any reader, any time

	// These are keepTime's.
	shown   shownVersion // newest version that this replica has shown, in a file
	silent  bool         // the leader did not answer last
	stale   bool         // and was said to be
	stuck   progress     // since when more was to come, and nothing came
	behind  time.Time    // since when the leader's log ends before what was shown, or zero
	lacking lacking      // records that the hub has and does not deliver
	created time.Time    // of the hub's stream, when it was first asked
	purge   time.Time    // when the log is purged next

	taken    atomic.Uint64 // messages; tells whether anything comes
	ask      atomic.Bool   // the leader is to be asked as soon as nothing is pending
	caughtUp chan struct{} // a nudge that nothing is pending
	once     sync.Once
	complete chan struct{} // closed when the log was complete for the first time

	mu       sync.Mutex // held by whoever changes what follows, or writes log
	applied  uint64     // sequence of REVOCATIONS up to which all was delivered or is gone
	marks    []mark     // the last messages that were applied, the newest last
	waiting  int        // records applied since the last publication
	urgent   int        // of them, those that are no used tokens
	pending  []time.Time
	unread   int    // records that could not be understood when the log was first read
	wentBack bool   // what the hub holds now may be another log
	endedAt  uint64 // where that log ended then
	gap      bool   // something was not taken: nothing is, until it is asked for anew
}

// progress is how many messages had been taken, and since when there are no more.
type progress struct {
	taken uint64
	since time.Time
}

// How the follower keeps pace.
const (
	idle         = 100 * time.Millisecond // between two looks at the time
	tick         = 2 * time.Second        // between two questions to the leader, once the log is complete
	blindAfter   = 2 * time.Second        // without a message though there is one, before the consumer is made anew
	staleAfter   = 6 * time.Second        // without a confirmation
	lackingFor   = 2 * time.Second        // records that the hub has must be missing before it is said
	backFor      = 4 * time.Second        // how long the log must end too early for a replica that has read none of it
	maxWaiting   = MaxBatch               // records applied before they are published, whatever is pending
	maxMeasured  = 1024
	maxMarks     = 64
	pullMessages = 10_000
)

var (
	// ErrWentBack means that the hub's log ends before a version that was already
	// shown: a backup was restored, or another log is in its place.
	ErrWentBack = errors.New("the hub's log went back")
	// ErrRebased means that the hub's log was written anew, by adapter hub rebase:
	// what was read of the old one must be forgotten.
	ErrRebased = errors.New("the hub's log was written anew")

	errBlind = errors.New("the consumer is blind")
)

// NewFollower returns a follower of hub that writes log and nobody else does.
func NewFollower(hub *Hub, log *revocation.Log, m *Metrics) *Follower {
	f := &Follower{
		hub: hub, log: log, say: hub.cfg.Log, metrics: (*metrics)(m),
		caughtUp: make(chan struct{}, 1), complete: make(chan struct{}),
	}
	f.ask.Store(true)
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

// Run follows the hub's log until ctx ends, purging as configured. It ends with
// ErrRebased when the log has to be read into an empty one.
func (f *Follower) Run(ctx context.Context) (err error) {
	if f.shown, err = readShownVersion(f.hub.cfg.VersionFile); err != nil {
		return err
	}
	defer f.show(true)
	f.purge = f.hub.cfg.Now().Add(f.hub.cfg.PurgeInterval)
	for {
		err := f.follow(ctx)
		if !errors.Is(err, errBlind) {
			return err
		}
		f.metrics.rebuilt.Inc()
		f.say.WithField("version", f.log.Snapshot().Version()).
			Warn("The hub has more than arrives: it is asked for it anew")
	}
}

// follow reads what follows, until ctx ends, nothing arrives though there is
// something, or a message cannot be taken.
func (f *Follower) follow(ctx context.Context) error {
	cons, err := f.open(ctx)
	if err != nil {
		return fmt.Errorf("consumer of %s: %w", LogStream, err)
	}
	if f.NotReady() != "" {
		f.log.Reserve(int(min(f.hub.log.CachedInfo().State.Msgs, uint64(f.hub.cfg.Limits.MaxLive))))
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

// open makes a consumer of what follows what was applied. It tries until ctx
// ends: a cluster may have no leader.
func (f *Follower) open(ctx context.Context) (jetstream.Consumer, error) {
	for said := false; ; said = true {
		cfg := jetstream.OrderedConsumerConfig{}
		f.mu.Lock()
		f.gap = false
		if f.applied > 0 {
			cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, f.applied+1
		}
		f.mu.Unlock()
		callCtx, cancel := context.WithTimeout(ctx, apiTimeout)
		cons, err := f.hub.js.OrderedConsumer(callCtx, LogStream, cfg)
		cancel()
		if err == nil || ctx.Err() != nil || errors.Is(err, nats.ErrConnectionClosed) {
			return cons, err
		}
		if !said {
			f.say.WithError(err).Warn("The hub's log cannot be asked for, trying again")
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// keepTime asks the leader how far the log goes, in a moment in which nothing is
// pending, and purges, until ctx ends or a message cannot be taken.
func (f *Follower) keepTime(ctx context.Context, failed <-chan error, closed <-chan struct{}) error {
	beat := time.NewTicker(idle)
	defer beat.Stop()
	seen, confirmed, at, asked := uint64(0), f.confirmed.Load(), time.Time{}, time.Time{}
	f.stuck = progress{}
	for {
		nudged := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			return err
		case <-closed:
			return cmp.Or(ctx.Err(), fmt.Errorf("consumer of %s: %w", LogStream, jetstream.ErrConnectionClosed))
		case <-f.caughtUp:
			nudged = true
		case <-beat.C:
			f.publishUsed()
			f.ask.Store(f.reading() || time.Since(asked) >= tick || f.NotReady() == "" && time.Since(at) >= tick)
		}
		now := f.taken.Load()
		if f.ask.Load() && (nudged || now == seen) {
			f.ask.Store(f.reading())
			asked = time.Now()
			if err := f.confirm(ctx); err != nil {
				return err
			}
			if c := f.confirmed.Load(); c != confirmed {
				confirmed, at = c, time.Now()
			}
		}
		seen = now
		// What is read first is counted (lacks), by the hub's clock.
		if now := f.hub.cfg.Now(); !now.Before(f.purge) && !f.reading() {
			f.metrics.purged.Add(float64(f.log.Purge(now)))
			f.metrics.hasRoom(f.log, f.hub.cfg.Limits) // whether or not somebody comes who wants it
			f.purge = now.Add(f.hub.cfg.PurgeInterval)
		}
		f.tellStale()
	}
}

// reading says whether the log is on its way to be complete; what only a person
// can mend is asked for less often.
func (f *Follower) reading() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.NotReady() != "" && !f.wentBack && f.unread == 0 && !f.lacking.said
}

// take applies one message and publishes what was applied, when nothing more is
// at hand. Used tokens wait for the beat, unless they come with or after something
// else: there may be thousands a second, and whoever asks for one is refused
// already.
func (f *Follower) take(msg jetstream.Msg) error {
	meta, err := msg.Metadata()
	if err != nil {
		return fmt.Errorf("message of %s: %w", LogStream, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.taken.Add(1)
	if f.wentBack || f.gap {
		return nil
	}
	urgent := f.urgent
	if err := f.apply(mark{meta.Sequence.Stream, meta.Timestamp}, msg.Data()); err != nil {
		return err
	}
	ready, caughtUp := f.NotReady() == "", meta.NumPending == 0
	if ready && f.urgent > 0 && (caughtUp && !withinBatch(msg) || f.urgent >= maxWaiting || f.urgent == urgent) {
		f.publish()
	}
	if caughtUp && f.ask.Load() {
		select {
		case f.caughtUp <- struct{}{}:
		default: // it is to be asked already
		}
	}
	return nil
}

func (f *Follower) apply(m mark, data []byte) error {
	sequence := m.sequence
	if sequence <= f.applied {
		return nil // it expired on its way, and the version has risen past it
	}
	f.applied = sequence
	if len(f.marks) == maxMarks {
		f.marks = slices.Delete(f.marks, 0, maxMarks/2)
	}
	f.marks = append(f.marks, m)
	f.waiting++
	r, err := readRecord(data, whatIsServed)
	if errors.Is(err, ErrNewerFormat) && f.NotReady() == "" {
		return fmt.Errorf("record %d: %w", sequence, err) // its revocation would be missing
	}
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
	if !r.Used() {
		f.urgent++
		if len(f.pending) < maxMeasured && r.Time > 0 && f.NotReady() == "" {
			f.pending = append(f.pending, time.UnixMicro(r.Time))
		}
	}
	return f.log.Append(sequence, r)
}

// publishUsed publishes the used tokens that wait for it.
func (f *Follower) publishUsed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.urgent == 0 {
		f.publish()
	}
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
	f.waiting, f.urgent, f.pending = 0, 0, f.pending[:0]
}
