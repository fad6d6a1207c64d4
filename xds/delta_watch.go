package xds

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"revocation-adapter/revocation"
)

// deltaWatch is one request that waits for its answer.
type deltaWatch struct {
	parking
	st        *deltaTopic
	req       *cache.DeltaRequest
	responses chan cache.DeltaResponse
	greet     bool // answer even if there is nothing new
	live      bool // under st.mu
	patience  patience
}

// cancel may be called twice. It holds the lock of the send: the channel is
// closed after it.
func (w *deltaWatch) cancel() {
	w.st.mu.Lock()
	w.live = false
	w.st.mu.Unlock()
	w.st.cache.unpark(w)
}

func (w *deltaWatch) serve(s *revocation.Snapshot, now time.Time) bool {
	st := w.st
	st.mu.Lock()
	defer st.mu.Unlock()
	if !w.live {
		return true
	}
	if w.timed && !w.patience.over(st.kind.newest(s), now) {
		return false
	}
	ahead := st.ahead > s.Version() // the hub has it, this replica not yet
	if w.wait = st.waits(ahead); ahead {
		return false
	}
	st.compare(now)
	d := st.next(s, now)
	if d == nil {
		if !w.greet {
			return false
		}
		d = &delivery{chunk: st.emptyChunk(s, now), from: st.position}
	}
	w.live = false
	st.pending, st.waiting, st.position = *d, true, d.chunk.to
	w.responses <- &deltaResponse{st: st, req: w.req, chunk: d.chunk}
	return true
}

// next is what the client is to be told at s, or nil.
func (st *deltaTopic) next(s *revocation.Snapshot, now time.Time) *delivery {
	switch {
	case len(st.owed) > 0 || st.initial != nil && st.position < st.until:
		return st.private(s, now)
	case st.position >= st.kind.newest(s):
		return nil
	case !st.wildcard || st.audience != nil && len(st.wanted) > 0:
		return st.unlessEmpty(st.some(s, now))
	}
	c := st.chunk(s, st.position, now)
	if st.audience != nil {
		return st.unlessEmpty(c)
	}
	return &delivery{chunk: c, from: st.position}
}

// private is an answer for this stream alone: names that are owed, and the set
// without what the client said it holds.
func (st *deltaTopic) private(s *revocation.Snapshot, now time.Time) *delivery {
	e := st.encoder(now)
	d := &delivery{chunk: e.chunk, from: st.position, owed: map[string]struct{}{}}
	for _, name := range slices.Sorted(maps.Keys(st.owed)) {
		if e.full(len(name)) && len(d.owed) > 0 { // even the longest has its turn
			break
		}
		e.look(st.cache.log, name, st.hears)
		d.owed[name] = struct{}{}
		delete(st.owed, name)
	}
	e.collect(s, st.position, func(c revocation.Change, name []byte) bool {
		_, answered := d.owed[string(name)]
		return answered || st.skips(c, name)
	})
	return d
}

// hears says whether the client is told of c: by its name, or since it asked for
// everything of its tenant.
func (st *deltaTopic) hears(c revocation.Change) bool {
	if st.wildcard && st.audience.hears(c.Tenant) {
		return true
	}
	_, wanted := st.wanted[c.Name()]
	return wanted
}

// skips says whether the client need not be told of a change.
func (st *deltaTopic) skips(c revocation.Change, name []byte) bool {
	if !st.wildcard || !st.audience.hears(c.Tenant) {
		_, wanted := st.wanted[string(name)]
		return !wanted
	}
	version, held := st.initial[string(name)]
	return held && version == strconv.FormatUint(c.Version, 10)
}

// some is what changed of what the client hears of, for this stream alone.
func (st *deltaTopic) some(s *revocation.Snapshot, now time.Time) *chunk {
	e := st.encoder(now)
	e.collect(s, st.position, st.skips)
	return e.chunk
}

// unlessEmpty is a chunk as a delivery. Where nothing changed that the client
// hears of, there is none, and the position moves on by itself.
func (st *deltaTopic) unlessEmpty(c *chunk) *delivery {
	if c.entries == 0 {
		st.view.pass(st.kind, delta, st.position, c.to)
		st.position = c.to
		return nil
	}
	return &delivery{chunk: c, from: st.position}
}

func (st *deltaTopic) emptyChunk(s *revocation.Snapshot, now time.Time) *chunk {
	e := st.encoder(now)
	e.finish(max(st.position, s.Version()))
	return e.chunk
}

// deltaResponse is a chunk on its way to one stream.
type deltaResponse struct {
	st    *deltaTopic
	req   *cache.DeltaRequest
	chunk *chunk
}

// GetDeltaDiscoveryResponse is called by the stream's goroutine, right before
// OnStreamDeltaResponse.
func (r *deltaResponse) GetDeltaDiscoveryResponse() (*discovery.DeltaDiscoveryResponse, error) {
	r.st.queued = r.chunk
	return r.chunk.deltaResponse(), nil
}
func (r *deltaResponse) GetDeltaRequest() *discovery.DeltaDiscoveryRequest { return r.req }
func (r *deltaResponse) GetSystemVersion() (string, error)                 { return r.chunk.text, nil }
func (r *deltaResponse) GetResponseVersion() string                        { return r.chunk.text }
func (r *deltaResponse) GetNextVersionMap() map[string]string              { return r.st.returned }
func (r *deltaResponse) GetReturnedResources() map[string]string           { return r.st.returned }
func (r *deltaResponse) GetContext() context.Context                       { return nil }
