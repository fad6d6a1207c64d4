package messaging

import (
	"errors"
	"time"

	"revocation-adapter/revocation"
)

// flight is decisions that are written together: of each key one write, for all
// that say the same of it.
type flight struct {
	writes []*write
	of     map[string]*write
	landed []landing
}

// landing is one decision of a flight.
type landing struct {
	decision
	write *write
	adds  bool // it says more than those of the same key before it
}

// take returns what is to be written next. Calls take turns, a share each; where
// nobody else waits, one gets the whole batch.
func (d *Decisions) take() *flight {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &flight{of: map[string]*write{}}
	held := map[string]struct{}{} // of which an earlier decision must be written first
	for before := -1; len(f.landed) > before && len(f.writes) < decisionBatch; {
		before = len(f.landed)
		d.round(f, held)
	}
	for subject := range f.of {
		d.flying[subject] = struct{}{}
	}
	if len(f.writes) == decisionBatch {
		d.nudge() // there is more
	}
	return f
}

// round gives each call that waits a turn.
func (d *Decisions) round(f *flight, held map[string]struct{}) {
	for turn := len(d.calls); turn > 0 && len(f.writes) < decisionBatch; turn-- {
		call := d.calls[0]
		d.calls = d.calls[1:]
		if d.board(f, call, held); len(call.left) > 0 {
			d.calls = append(d.calls, call)
		}
	}
}

// board takes up to a share of a call's decisions. One stays whose key is being
// written, or of which the flight says something else: and so do later ones of the
// same key.
func (d *Decisions) board(f *flight, call *decisionCall, held map[string]struct{}) {
	select {
	case <-call.gone:
		d.waiting -= len(call.left)
		call.left = nil
		return
	default:
	}
	if d.silent && time.Since(call.came) > writeTimeout {
		d.giveUp(call)
		return
	}
	taken, seen := 0, 0
	var stay []decision
	for _, one := range call.left {
		if taken == decisionShare || len(stay) == decisionShare || len(f.writes) == decisionBatch {
			break
		}
		seen++
		if d.mustWait(f, one, held) {
			held[one.subject] = struct{}{}
			stay = append(stay, one)
			continue
		}
		taken++
		d.waiting--
		f.add(one, d.written.has(one.subject))
	}
	call.left = append(stay, call.left[seen:]...)
}

// giveUp tells a caller that what is left of his call is not written: behind a hub that
// does not answer, each flight takes ten seconds.
func (d *Decisions) giveUp(call *decisionCall) {
	for _, one := range call.left {
		call.outcomes[one.at].Err = ErrDecisionsLate
	}
	d.waiting -= len(call.left)
	call.answered(len(call.left))
	call.left = nil
}

// answered notes that n decisions of a call have their outcomes.
func (call *decisionCall) answered(n int) {
	if call.open -= n; call.open == 0 {
		close(call.done)
	}
}

func (d *Decisions) mustWait(f *flight, one decision, held map[string]struct{}) bool {
	if _, before := held[one.subject]; before {
		return true
	}
	if _, flies := d.flying[one.subject]; flies {
		return true
	}
	k, here := f.of[one.subject]
	return here && k.want.State != one.want.State
}

// add takes a decision along. Stored says whether its key has a record of which
// the log may not have heard yet.
func (f *flight) add(one decision, stored bool) {
	k, here := f.of[one.subject]
	if !here {
		k = &write{subject: one.subject, want: one.want, decided: true, stored: stored}
		f.of[one.subject] = k
		f.writes = append(f.writes, k)
		f.landed = append(f.landed, landing{one, k, true})
		return
	}
	merged := revocation.Merge(k.want, one.want)
	f.landed = append(f.landed, landing{one, k, !revocation.Equal(merged, k.want)})
	k.want = merged
}

// unheard says whether the hub has answered nothing that was tried.
func (f *flight) unheard() (tried bool) {
	for _, k := range f.writes {
		switch {
		case k.Err == nil, permanent(k.Err), errors.Is(k.Err, ErrConflict):
			return false
		case !errors.Is(k.Err, ErrFull):
			tried = true
		}
	}
	return tried
}

// land tells the callers what became of a flight.
func (d *Decisions) land(f *flight) {
	d.mu.Lock()
	defer d.mu.Unlock()
	heard := d.log.Snapshot().Version()
	d.silent = f.unheard()
	for _, k := range f.writes {
		delete(d.flying, k.subject)
		if k.Err == nil {
			d.written.add(k.subject, k.Version, heard)
		}
	}
	for _, l := range f.landed {
		o := l.write.Outcome
		o.Changed = o.Changed && l.adds
		l.of.outcomes[l.at] = o
		l.of.answered(1)
	}
	d.nudge() // what waited for one of these keys may go on
}
