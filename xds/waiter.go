package xds

import (
	"slices"
	"sync"

	"revocation-adapter/revocation"
)

// maxWaiters bounds who waits at the same time: each costs something at each ACK.
const maxWaiters = 1000

// waiter is one who waits until no gateway is pending. It looks at all gateways
// once, and then at those only of which it is told.
type waiter struct {
	concern Concern
	wake    chan struct{} // has room for one

	mu      sync.Mutex
	dirty   map[string]struct{} // gateways to look at
	pending map[string]struct{} // gateways of which an ACK is news

	// These are the waiting goroutine's.
	standing Standing
	aims     [kinds]uint64 // ACKs of these versions do
	aimed    bool          // the log has reached the version
}

// look has the waiter look at a gateway again: at an ACK if it is pending.
func (w *waiter) look(name string) {
	w.mu.Lock()
	w.dirty[name] = struct{}{}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default: // it is to look already
	}
}

func (w *waiter) awaits(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, pending := w.pending[name]
	return pending
}

// take returns what is to be looked at.
func (w *waiter) take() map[string]struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := w.dirty
	w.dirty = map[string]struct{}{}
	for name := range taken { // an ACK is news from here on
		w.pending[name] = struct{}{}
	}
	return taken
}

// settle notes how a gateway stands.
func (w *waiter) settle(name string, f Figure) {
	w.standing[name] = f
	if f == Pending {
		return
	}
	w.mu.Lock()
	delete(w.pending, name)
	w.mu.Unlock()
}

// aim settles which ACKs do, once the log has reached the version: who wants rules
// alone is told of no version in which none changed. Until then it returns what
// is closed at the next version.
func (w *waiter) aim(s *revocation.Snapshot) (next <-chan struct{}) {
	if w.aimed {
		return nil
	}
	w.aimed = s.Version() >= w.concern.Version
	for k := range kind(kinds) {
		w.aims[k] = w.concern.Version
		if w.aimed {
			w.aims[k] = min(w.concern.Version, k.newest(s))
		}
	}
	if w.aimed {
		w.again()
		return nil
	}
	return s.Next()
}

// again has it look at all that are pending.
func (w *waiter) again() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range w.pending {
		w.dirty[name] = struct{}{}
	}
}

// attend has w told of every gateway from now on, and of all that there are. It
// refuses where too many wait.
func (gs *gateways) attend(w *waiter) bool {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	w.dirty, w.pending = map[string]struct{}{}, map[string]struct{}{}
	var others []*waiter
	if at := gs.waiters.Load(); at != nil {
		others = *at
	}
	if len(others) < maxWaiters {
		all := append(slices.Clone(others), w)
		gs.waiters.Store(&all)
	}
	for name := range gs.byName {
		w.dirty[name] = struct{}{}
	}
	return len(others) < maxWaiters
}

// dismiss has w told nothing more.
func (gs *gateways) dismiss(w *waiter) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	at := gs.waiters.Load()
	if at == nil {
		return
	}
	left := slices.DeleteFunc(slices.Clone(*at), func(other *waiter) bool { return other == w })
	if len(left) == 0 {
		gs.waiters.Store(nil)
		return
	}
	gs.waiters.Store(&left)
}

// acked tells those who wait for a gateway. While nobody waits it is one read.
func (gs *gateways) acked(name string) {
	if at := gs.waiters.Load(); at != nil {
		for _, w := range *at {
			if w.awaits(name) {
				w.look(name)
			}
		}
	}
}

// changed tells everybody who waits that a gateway came, went, or asks for
// something else.
func (gs *gateways) changed(name string) {
	gs.changes.Add(1)
	if at := gs.waiters.Load(); at != nil {
		for _, w := range *at {
			w.look(name)
		}
	}
}

// assess looks at the gateways of which w was told, and returns how many are
// pending.
func (gs *gateways) assess(w *waiter) (pending int) {
	for name := range w.take() {
		w.settle(name, gs.figure(name, w))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.pending)
}

// figure is how a gateway stands.
func (gs *gateways) figure(name string, w *waiter) Figure {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g := gs.byName[name]
	if g == nil {
		return w.gone(name)
	}
	figure := NotConcerned
	for _, part := range w.concern.Parts {
		figure = max(figure, g.figure(part, &w.aims))
	}
	return figure
}

// gone is how a gateway stands that has left: what it was not to be told stays so.
func (w *waiter) gone(name string) Figure {
	switch f := w.standing[name]; f {
	case NotConcerned, Cannot:
		return f
	}
	return Gone
}

// figure is how the gateway stands to a part: it has it when, with every set of
// tenants for which it is told of it, one of its streams has ACKed it. Under
// gateways.mu.
func (g *gateway) figure(part Part, aims *[kinds]uint64) Figure {
	var has lanes
	figure, heard := Figure(0), false
	for _, v := range g.views {
		if v.audience.heard(part) {
			heard = true
			v.lanes(&has)
			figure = max(figure, v.figure(part, aims))
		}
	}
	switch {
	case !heard:
		return NotConcerned
	case figure == 0:
		return has.figure(part)
	}
	return figure
}

// figure is Enforced or Pending where a stream of the view carries the part, else
// 0. Under gateways.mu.
func (v *view) figure(part Part, aims *[kinds]uint64) (f Figure) {
	for _, lane := range part.carriers() {
		if v.wanted[lane.kind][lane.form] == 0 {
			continue
		}
		if acked := v.acked[lane.kind][lane.form].Load(); acked > 0 && acked >= aims[lane.kind] {
			return Enforced
		}
		f = Pending
	}
	return f
}

// lanes adds those of the view.
func (v *view) lanes(has *lanes) {
	for k := range kind(kinds) {
		for p := range protocol(protocols) {
			has[k][p] = has[k][p] || v.wanted[k][p] > 0
		}
	}
}
