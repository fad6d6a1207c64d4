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
	pending  []time.Time
	unread   int    // records that could not be understood when the log was first read
	wentBack bool   // what the hub holds now may be another log
	endedAt  uint64 // where that log ended then
}

// mark tells a message from another one that has its sequence in another log.
type mark struct {
	sequence uint64
	stored   time.Time
}

// Confirmation says how fresh the log is: at Time the leader of the hub's stream
// said that nothing followed Version.
type Confirmation struct {
	Version uint64
	Time    time.Time
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

// Confirmed says how fresh the log is, and whether it is stale: not confirmed for
// so long that the hub, or what arrives from it, cannot be trusted to be all.
func (f *Follower) Confirmed() (c Confirmation, stale bool) {
	if last := f.confirmed.Load(); last != nil {
		c = *last
	}
	return c, f.NotReady() == "" && f.hub.cfg.Now().Sub(c.Time) > staleAfter
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
	seen, confirmed, at := uint64(0), f.confirmed.Load(), time.Time{}
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
			f.ask.Store(f.NotReady() != "" || time.Since(at) >= tick)
		}
		now := f.taken.Load()
		if f.ask.Load() && (nudged || now == seen) {
			f.ask.Store(f.NotReady() != "")
			if err := f.confirm(ctx); err != nil {
				return err
			}
			if c := f.confirmed.Load(); c != confirmed {
				confirmed, at = c, time.Now()
			}
		}
		seen = now
		if now := f.hub.cfg.Now(); !now.Before(f.purge) {
			f.metrics.purged.Add(float64(f.log.Purge(now)))
			f.purge = now.Add(f.hub.cfg.PurgeInterval)
		}
		f.tellStale()
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
	if err := f.apply(mark{meta.Sequence.Stream, meta.Timestamp}, msg.Data()); err != nil {
		return err
	}
	ready, caughtUp := f.NotReady() == "", meta.NumPending == 0
	if ready && (caughtUp && !withinBatch(msg) || f.waiting >= maxWaiting) {
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
	r, err := decodeRecord(data)
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
// the stream's last sequence is applied or gone. If something does and nothing
// arrives, the consumer is blind.
//
// That the consumer has nothing pending is not enough: it may be served by a node
// that lags behind the leader, a tail that expires is never delivered at all, and
// what is pending is undercounted while keys that are not delivered yet are
// written again. Nor is it enough to have reached what was once the last
// sequence: a key written again since then is known by neither.
func (f *Follower) confirm(ctx context.Context) error {
	callCtx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	f.mu.Lock()
	f.publish()
	applied, taken := f.applied, f.taken.Load()
	f.mu.Unlock()
	head, now := f.log.Snapshot().Version(), f.hub.cfg.Now()
	info, nothingFollows, err := f.askLeader(callCtx, applied)
	f.hear(ctx, err)
	if err != nil {
		f.stuck = progress{}
		return nil
	}
	if f.replaced(info) {
		return ErrRebased
	}
	if _, running := info.Config.Metadata[metadataRebasing]; running {
		return nil // it does not hold everything yet
	}
	last, shown := info.State.LastSeq, max(head, f.shown.version)
	same, other := false, false
	if last >= shown {
		same, other = f.compare(callCtx)
	}
	defer f.show(false)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.wentBack && same:
		f.readOn()
		return errBlind // what arrived meanwhile was not taken
	case f.wentBack:
	case last < shown || other:
		f.fellBehind(last, shown)
	case nothingFollows:
		f.behind, f.stuck = time.Time{}, progress{}
		// What was applied meanwhile came later than the answer: nothing is
		// missing before it either.
		f.reach(max(last, f.applied))
		f.confirmed.Store(&Confirmation{f.applied, now})
		f.metrics.confirmed.Set(float64(now.UnixMilli()) / 1000)
	case f.stuck.since.IsZero() || f.stuck.taken != taken:
		f.stuck = progress{taken, time.Now()}
	case time.Since(f.stuck.since) >= blindAfter:
		return errBlind
	}
	return nil
}

// replaced says whether the hub's stream was made anew by a rebase.
func (f *Follower) replaced(info *jetstream.StreamInfo) bool {
	if f.created.IsZero() {
		f.created = info.Created
	}
	_, rebased := info.Config.Metadata[metadataRebased]
	return rebased && !info.Created.Equal(f.created)
}

// show notes the newest version that gateways may have seen, so that a log that
// went back is known as one after a restart too.
func (f *Follower) show(atOnce bool) {
	if err := f.shown.raise(f.log.Snapshot().Version(), atOnce); err != nil {
		f.say.WithError(err).Warn("The newest version cannot be noted; a log that goes back might not be known as one after a restart")
	}
}

// tellStale says once that the log is stale, and once that it no longer is.
func (f *Follower) tellStale() {
	c, stale := f.Confirmed()
	if stale == f.stale {
		return
	}
	f.stale = stale
	say := f.say.WithFields(logrus.Fields{"version": c.Version, "since": c.Time.UTC().Format(time.RFC3339)})
	if stale {
		f.metrics.stale.Set(1)
		say.Warn("The log is stale: it was last confirmed then; what is known is still served")
		return
	}
	f.metrics.stale.Set(0)
	say.Info("The log is confirmed again")
}

// hear says once that the leader has fallen silent, and once that it is back.
func (f *Follower) hear(ctx context.Context, err error) {
	switch {
	case err != nil && !f.silent && ctx.Err() == nil:
		f.silent = true
		f.say.WithError(err).WithField("version", f.log.Snapshot().Version()).
			Warn("The hub does not answer: what is known is still served, and may be stale")
	case err == nil && f.silent:
		f.silent = false
		f.say.Info("The hub answers again")
	}
}

// askLeader returns the stream's state, and whether nothing is stored after
// applied.
func (f *Follower) askLeader(ctx context.Context, applied uint64) (info *jetstream.StreamInfo, nothingFollows bool, err error) {
	info, err = f.hub.log.Info(ctx)
	if err != nil {
		return nil, false, err
	}
	if info.State.LastSeq <= applied {
		return info, true, nil
	}
	// One after the last counts too: it may have replaced a record before it, of
	// a key that is not known yet.
	_, err = f.hub.log.GetMsg(ctx, applied+1, jetstream.WithGetMsgSubject(logSubjects))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return info, true, nil
	}
	return info, false, err
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

// fellBehind reports that the log ends before what was shown, and serves nobody
// new until it is rebased: records below shown are lost to this replica, so that
// the log is not complete when it has grown past shown again. Streams that are
// open keep what they have. A replica that has read nothing yet serves nobody
// anyway, and waits for a second opinion.
func (f *Follower) fellBehind(last, shown uint64) {
	if f.behind.IsZero() {
		f.behind = time.Now()
	}
	if len(f.marks) == 0 && time.Since(f.behind) < backFor {
		return
	}
	f.wentBack, f.endedAt = true, last
	f.setNotReady(fmt.Sprintf("%v: it ends at %d, version %d was shown already; see adapter hub rebase", ErrWentBack, last, shown))
	f.say.WithFields(logrus.Fields{"last": last, "version": shown}).
		Error("The hub's log went back: was a backup restored? New gateways are refused until adapter hub rebase")
}

// compare asks the hub for messages that were applied: stored at the same time,
// it is the same log, and a leader that was deposed had answered; at another, a
// log in its place has grown past what was shown. What is gone tells nothing. Of
// a log that had ended too early only what lay beyond its end counts.
func (f *Follower) compare(ctx context.Context) (same, other bool) {
	f.mu.Lock()
	marks, endedAt := slices.Clone(f.marks), f.endedAt
	if !f.wentBack {
		marks, endedAt = marks[max(0, len(marks)-1):], 0
	}
	f.mu.Unlock()
	for _, m := range slices.Backward(marks) {
		if m.sequence <= endedAt {
			break
		}
		msg, err := f.hub.log.GetMsg(ctx, m.sequence)
		if err == nil {
			same = msg.Time.Equal(m.stored)
			return same, !same
		}
		if !errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
	}
	return false, false
}

func (f *Follower) readOn() {
	f.wentBack, f.behind = false, time.Time{}
	f.setNotReady("the hub's log had gone back, and is read on")
	f.say.Warn("The hub's log had not gone back: a leader that was deposed had answered")
}
