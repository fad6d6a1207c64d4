package messaging

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"
)

// Is it still the same log? A backup that was restored, another log in its place
// or a part of it that cannot be read must not be served as the truth.

// mark tells a message from another one that has its sequence in another log.
type mark struct {
	sequence uint64
	stored   time.Time
}

// lacking is since when the hub has more records than arrived, and whether that
// was said.
type lacking struct {
	since time.Time
	said  bool
}

// replaced says whether the hub's stream was made anew by a rebase.
func (f *Follower) replaced(info *jetstream.StreamInfo) bool {
	if f.created.IsZero() {
		f.created = info.Created
	}
	_, rebased := info.Config.Metadata[metadataRebased]
	_, running := info.Config.Metadata[metadataRebasing]
	switch {
	case info.Created.Equal(f.created) || running:
		return false
	case rebased:
		return true
	}
	f.created = info.Created
	f.say.WithField("version", f.log.Snapshot().Version()).
		Error("Another log is in the place of the hub's, and no rebase made it: a replica that starts now may lack what this one serves; publish again what was revoked")
	return false
}

// show notes the newest version that gateways may have seen, so that a log that
// went back is known as one after a restart too.
func (f *Follower) show(atOnce bool) {
	if err := f.shown.raise(f.log.Snapshot().Version(), atOnce); err != nil {
		f.say.WithError(err).Warn("The newest version cannot be noted; a log that goes back might not be known as one after a restart")
	}
}

// WentBack says whether the log ends before what was shown already, so that
// nobody new is served.
func (h *Hub) WentBack() bool { return h.wentBack.Load() }

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
	f.hub.wentBack.Store(true)
	f.setNotReady(fmt.Sprintf("%v: it ends at %d, version %d was shown already; see adapter hub rebase", ErrWentBack, last, shown))
	f.say.WithFields(logrus.Fields{"last": last, "version": shown}).
		Error("The hub's log went back: was a backup restored? New gateways are refused until adapter hub rebase")
}

// lacks says whether the hub has records that never arrive: it delivers nothing
// that it cannot read, and does not say so. Until the log is complete for the
// first time, what arrived is all that is in it, or more. Once it was said, what
// has expired meanwhile must not stand for what is missing.
func (f *Follower) lacks(info *jetstream.StreamInfo) bool {
	select {
	case <-f.complete: // what has expired was purged since
		return false
	default:
	}
	if f.lacking.said {
		f.log.Purge(f.hub.cfg.Now())
	}
	missing := int64(info.State.Msgs) - int64(f.log.Keys()) - int64(f.unread)
	switch {
	case missing <= 0:
		f.lacking = lacking{}
		return false
	case f.lacking.since.IsZero(): // what has just expired may be counted still
		f.lacking.since = time.Now()
	case time.Since(f.lacking.since) >= lackingFor && !f.lacking.said:
		f.lacking.said = true
		f.setNotReady(fmt.Sprintf("the hub has %d records that it cannot read; see adapter hub rebase --drop-unreadable", missing))
		f.say.WithField("records", missing).
			Error("The hub has records that it cannot read: is its disk damaged? Without them the log is not complete")
	}
	return true
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
	f.wentBack, f.behind, f.gap = false, time.Time{}, true // the old consumer may still deliver
	f.hub.wentBack.Store(false)
	f.setNotReady("the hub's log had gone back, and is read on")
	f.say.Warn("The hub's log had not gone back: a leader that was deposed had answered")
}
