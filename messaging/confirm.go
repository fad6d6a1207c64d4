package messaging

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"
)

// Confirmation says how fresh the log is: at Time the leader of the hub's stream
// said that nothing followed Version. Everything that publishers had brought in
// before Complete is in the log up to Version: INGEST held nothing older.
type Confirmation struct {
	Version  uint64
	Time     time.Time
	Complete time.Time // zero: not known
}

// Confirmed says how fresh the log is, and whether it is stale: not confirmed for
// so long that the hub, or what arrives from it, cannot be trusted to be all.
func (f *Follower) Confirmed() (c Confirmation, stale bool) {
	if last := f.confirmed.Load(); last != nil {
		c = *last
	}
	return c, f.NotReady() == "" && f.hub.cfg.Now().Sub(c.Time) > staleAfter
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
	if f.urgent > 0 { // used tokens wait for their beat
		f.publish()
	}
	applied, taken := f.applied, f.taken.Load()
	f.mu.Unlock()
	head, now := f.log.Snapshot().Version(), f.hub.cfg.Now()
	complete := f.ingested(callCtx, now) // first: what has left INGEST since is in the log
	info, nothingFollows, err := f.askLeader(callCtx, applied)
	f.hear(ctx, err)
	if err != nil {
		f.stuck = progress{}
		return nil
	}
	if f.replaced(info) {
		return ErrRebased
	}
	if _, running := info.Config.Metadata[metadataRebasing]; running { // it does not hold everything yet
		if why := f.NotReady(); why != "" && why != ErrRebasing.Error() {
			f.setNotReady(ErrRebasing.Error()) // it may have been interrupted
			f.say.WithError(ErrRebasing).Error("The hub's log is being written anew: it is not complete before")
		}
		return nil
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
	case nothingFollows && f.lacks(info):
		f.stuck = progress{}
	case nothingFollows:
		f.behind, f.stuck = time.Time{}, progress{}
		// What was applied meanwhile came later than the answer: nothing is
		// missing before it either.
		f.reach(max(last, f.applied))
		f.confirmed.Store(&Confirmation{f.applied, now, complete})
		f.metrics.confirmed.Set(float64(now.UnixMilli()) / 1000)
	case f.stuck.since.IsZero() || f.stuck.taken != taken:
		f.stuck = progress{taken, time.Now()}
	case time.Since(f.stuck.since) >= blindAfter:
		return errBlind
	}
	return nil
}

// ingested says up to when everything that publishers had brought in is in the
// log, or was given up as no revocation: until now, or until the oldest event came
// that INGEST still holds. How old that is, is the hub's clock's to say, which may
// differ from this replica's. It goes back only if it was ahead of the clock, which
// was set back then. Where INGEST does not answer it stands still.
func (f *Follower) ingested(ctx context.Context, now time.Time) time.Time {
	var last time.Time
	if c := f.confirmed.Load(); c != nil {
		last = c.Complete
	}
	if last.After(now) {
		last = time.Time{}
	}
	info, err := f.hub.ingest.Info(ctx)
	if err != nil {
		return last
	}
	if info.State.Msgs > 0 {
		now = now.Add(-max(0, info.TimeStamp.Sub(info.State.FirstTime)))
	}
	if now.Before(last) {
		return last
	}
	return now
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
	f.waiting, f.urgent, f.pending = 0, 0, f.pending[:0]
	if f.notReady.Swap(nil) != nil {
		f.once.Do(func() { close(f.complete) })
		f.say.WithFields(logrus.Fields{"version": last, "revoked": f.log.Snapshot().Counts().Revoked()}).
			Info("The log is complete")
	}
}
