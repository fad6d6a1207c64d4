package enforcer

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
)

// view is the set in force and what is known of it. It never changes: Check
// looks at one view, and everything comes into force by the swap of a pointer.
type view struct {
	set      *set
	version  uint64 // what the set holds; of a part of one, how far it goes
	info     string // version_info to go on from; "": a whole set must come first
	proof    string // of the hub and tenants that versions are of
	seen     uint64 // something is in force of what changed up to here; not less than version
	whole    bool   // the set is no part of one
	synced   bool   // a stream has said so since New
	complete int64  // microseconds since the epoch; 0: not known
	edits    uint64 // counts what a snapshot file would have to be written for
}

// progress is how far a stream has come, in the set in force or in one that is
// to replace it.
type progress struct {
	held bool // the rest is known; else a whole set must come
	at   uint64
	head uint64 // of the adapter's log, when it came so far
	info string
	load *set // the set to come; nil: batches go to the set in force

	complete int64        // as view.complete, not in force while a set is loaded
	due      confirmation // of more than has come
}

// confirmation is what an adapter says of its log: at a time, in microseconds since
// the epoch, all that the hub had stored was in it up to a version.
type confirmation struct {
	version uint64
	at      int64
}

// confirm takes a confirmation, now or when its version is reached. Of two that
// wait, the older one is reached first.
func (p *progress) confirm(c confirmation) {
	if p.due.version <= p.at {
		p.complete = max(p.complete, p.due.at)
		p.due = confirmation{}
	}
	switch {
	case c.version <= p.at:
		p.complete = max(p.complete, c.at)
	case p.due.version == 0:
		p.due = c
	}
}

var (
	// errGap means that something was missed. What is known stays in force, and
	// a whole set must come.
	errGap = errors.New("the adapter goes on from a version that was never reached")
	// errBehind means that an adapter has not come as far as another one had.
	errBehind = errors.New("the adapter is behind")
)

// proofOf is what follows the version in a version_info.
func proofOf(info string) string {
	_, proof, _ := strings.Cut(info, "-")
	return proof
}

// skip takes a response without a resource: only the version moves.
func (e *Enforcer) skip(info string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.bound()
	number, _, _ := strings.Cut(info, "-")
	version, err := strconv.ParseUint(number, 10, 64)
	switch {
	case err != nil:
		return fmt.Errorf("%w: an empty response has no version", errBatch)
	case !e.goesOn(info):
		e.forget()
		return errGap
	case version < e.progress.at:
		return errBehind
	}
	e.progress.at, e.progress.info = version, info
	if e.progress.load == nil {
		v := *e.view.Load()
		v.version, v.info, v.seen = version, info, max(v.seen, version)
		v.edits++
		e.view.Store(&v)
	}
	return nil
}

// goesOn says whether a response without a whole set is of the hub and tenants
// of what is held.
func (e *Enforcer) goesOn(info string) bool {
	return e.progress.held && proofOf(info) == proofOf(e.progress.info)
}

// forget makes the next stream ask for a whole set. The set in force stays.
func (e *Enforcer) forget() {
	e.progress = progress{}
	v := *e.view.Load()
	v.info = ""
	e.view.Store(&v)
}

// accept puts a batch in force. An error other than errGap and errBehind is that
// of a bad batch, of which nothing counts.
func (e *Enforcer) accept(b *revocationv1.Batch, info string) error {
	c, err := decode(b)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.bound()
	p, to := &e.progress, b.GetToVersion()
	switch {
	case b.GetReset_():
		e.begin()
	case !e.goesOn(info) || b.GetFromVersion() > p.at:
		e.revokeOnly(c, to, info) // to refuse what is revoked is never wrong
		e.forget()
		return errGap
	case to < p.at && c.empty():
		return errBehind
	case to < p.at: // it may name what was revoked again since
		return fmt.Errorf("%w: it goes back from %d to %d", errBatch, p.at, to)
	}
	p.held, p.at, p.head, p.info = true, to, b.GetHeadVersion(), info
	old := e.view.Load()
	v := e.apply(c, to == b.GetHeadVersion())
	if !c.empty() || v.info != old.info {
		v.edits++
	}
	if old.proof != "" && v.proof != old.proof {
		e.log.WithField("version", v.version).Warn("The set is of another hub than before: what that one alone knew is forgotten")
	}
	p.confirm(confirmation{b.GetCompleteVersion(), min(b.GetCompleteAtMicros(), now.UnixMicro())})
	if p.load == nil {
		v.complete, p.complete = max(v.complete, p.complete), 0
	}
	e.view.Store(v)
	return nil
}

// begin makes the next batches a set that is to replace the one in force. Where
// nothing is in force, it is that set from the beginning.
func (e *Enforcer) begin() {
	e.resets.Inc()
	v := e.view.Load()
	e.progress = progress{load: &set{}}
	if !v.whole && v.set.tokens.count+v.set.rules.count == 0 {
		e.progress.load = v.set
	}
}

// revokeOnly puts in force what c revokes, and removes nothing.
func (e *Enforcer) revokeOnly(c *changes, to uint64, info string) {
	v := *e.view.Load()
	v.revoke(c, to, info)
	if !c.empty() {
		v.edits++
	}
	e.view.Store(&v)
}

// revoke extends the set by a part of what is known at a version, so that
// nothing goes on from it.
func (v *view) revoke(c *changes, to uint64, info string) {
	v.set, v.info = v.set.revoking(c), ""
	if !c.empty() && proofOf(info) == v.proof {
		v.seen = max(v.seen, to)
	}
}

// apply returns the view after a batch that may have reached the end of the
// log. While a set is loaded, what it revokes counts at once, and what it does
// not revoke has to wait until all of it has come.
func (e *Enforcer) apply(c *changes, end bool) *view {
	p, v := &e.progress, *e.view.Load()
	if p.load == nil && !end && len(c.removed) > 0 {
		copied := *v.set // what is removed may be revoked again in what is still to come
		p.load = &copied
	}
	if p.load == nil {
		v.set, v.synced = v.set.with(c), v.synced || end
		v.reach(p)
		return &v
	}
	alone := p.load == v.set
	p.load = p.load.with(c)
	if alone {
		v.set = p.load
		v.reach(p)
	} else {
		v.revoke(c, p.at, p.info)
	}
	// A set of the same hub that says less than is known would un-revoke for a
	// while: it is loaded until it has caught up.
	if end && (p.at >= v.seen || proofOf(p.info) != v.proof) {
		v.set, v.whole, v.synced = p.load, true, true
		v.reach(p)
		p.load = nil
	}
	return &v
}

// reach notes how far the set goes. Versions of another hub are not compared, and
// how fresh the old set was says nothing of the new one.
func (v *view) reach(p *progress) {
	if proof := proofOf(p.info); proof != v.proof {
		v.proof, v.seen, v.complete = proof, 0, 0
	}
	v.version, v.info, v.seen = p.at, p.info, max(v.seen, p.at)
}

// purge drops what has expired.
func (e *Enforcer) purge() {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.bound()
	v := *e.view.Load()
	old, limit := v.set, v.sure(now)
	v.set = old.purged(limit, e.grace)
	switch p := &e.progress; {
	case p.load == old:
		p.load = v.set
	case p.load != nil:
		p.load = p.load.purged(limit, e.grace)
	}
	if v.set != old {
		e.view.Store(&v)
	}
}

// sure is a time in milliseconds that has passed by the adapters' clock as well, if
// they have told one. What has expired by then may be dropped: what is dropped by a
// clock that is ahead does not come again when that is set right.
func (v *view) sure(now time.Time) int64 {
	if v.complete > 0 {
		return v.complete / 1000
	}
	return now.UnixMilli()
}

// look returns the view in force, and the time. Complete is not later than the time
// and does not become later with it: else the set would not go stale after a clock
// was set back. What is lost of it, the adapter has to say again.
func (e *Enforcer) look() (*view, time.Time) {
	v, now := e.view.Load(), e.now() // in this order: it was complete before now
	if v.complete <= now.UnixMicro() {
		return v, now
	}
	lower := *v
	lower.complete = max(0, now.UnixMicro())
	e.view.CompareAndSwap(v, &lower) // if not, somebody else has looked at the time
	return &lower, now
}

// bound is look for what has not come into force yet.
func (e *Enforcer) bound() time.Time {
	_, now := e.look()
	p := &e.progress
	p.complete, p.due.at = min(p.complete, now.UnixMicro()), min(p.due.at, now.UnixMicro())
	return now
}

// stale says whether v is too old to be relied on.
func (e *Enforcer) stale(v *view, now time.Time) bool {
	switch {
	case !v.whole:
		return true
	case e.cfg.MaxStaleness == 0:
		return false
	}
	return v.complete == 0 || now.UnixMicro()-v.complete > e.cfg.MaxStaleness.Microseconds()
}
