package xds

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	deltaserver "github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"revocation-adapter/revocation"
)

// maxNames bounds what a stream may ask for by name, over all its requests. A
// name counts once for every nameUnit bytes that it begins.
const (
	maxNames = 200_000
	nameUnit = 256
)

var errManyNames = status.Errorf(codes.ResourceExhausted, "more than %d names on one stream: ask for everything instead", maxNames)

// deltaStream is one incremental stream: go-control-plane's server drives it, as
// its cache and its callbacks. That server does not check nonces and counts a
// response as known when it is sent, so the stream keeps for itself how far the
// client has come: what was ACKed, and what is in flight. At most one response
// is in flight, and what happens meanwhile is coalesced into the next.
type deltaStream struct {
	streamBase
	mu sync.Mutex // held by whoever serves the watch, and to change what follows

	joined   bool // the first request was seen
	wildcard bool
	position uint64              // that the client holds; 0 while it holds nothing
	wanted   map[string]struct{} // names subscribed to, where it is no wildcard
	owed     map[string]struct{} // names to be answered whatever happened to them
	pending  delivery            // queued or in flight
	waiting  bool                // pending is not answered

	// A client that reconnects says what it holds. Until the set has been read
	// to its end once, that is left out of the answers.
	initial  map[string]string
	until    uint64 // the end, then
	ahead    uint64 // newest version among initial: this replica may not have it yet
	compared bool   // initial, with the log
	held     int    // names in it at first, counted: those may be owed, however many

	// returned is what go-control-plane is told that the client holds: nothing.
	// It writes unsubscribed names into it.
	returned map[string]string
}

// delivery is what a response carries beyond its chunk.
type delivery struct {
	chunk *chunk
	from  uint64
	owed  map[string]struct{} // answered by it
}

// serveDelta serves a stream until it ends.
func (s *Server) serveDelta(ctx context.Context, str stream.DeltaStream, typeURL string) error {
	st := &deltaStream{
		streamBase: s.newStream(str.Context(), delta), //nolint:contextcheck // ctx is the server's life, this the stream's
		owed:       map[string]struct{}{}, returned: map[string]string{},
	}
	return deltaserver.NewServer(ctx, st, st).DeltaStreamHandler(str, typeURL)
}

// OnDeltaStreamOpen, OnStreamDeltaRequest, OnStreamDeltaResponse and
// OnDeltaStreamClosed are go-control-plane's callbacks; it calls them from the
// stream's own goroutine.
func (st *deltaStream) OnDeltaStreamOpen(context.Context, int64, string) error { return nil }

// OnStreamDeltaRequest compares the nonce, which go-control-plane does not.
func (st *deltaStream) OnStreamDeltaRequest(_ int64, req *discovery.DeltaDiscoveryRequest) error {
	if err := st.open(req.GetNode(), req.GetTypeUrl()); err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	switch st.answered = st.answer(req.GetResponseNonce(), req.GetErrorDetail()); st.answered {
	case acked:
		st.waiting = false
		if len(st.owed) == 0 && st.position >= st.until {
			st.initial = nil
		}
	case nacked: // as if it had never been sent
		st.waiting = false
		st.position = min(st.position, st.pending.from)
		maps.Copy(st.owed, st.pending.owed)
	}
	return nil
}

// OnStreamDeltaResponse notes what was sent, by its nonce.
func (st *deltaStream) OnStreamDeltaResponse(_ int64, _ *discovery.DeltaDiscoveryRequest, resp *discovery.DeltaDiscoveryResponse) {
	st.sent(resp.GetNonce())
}

// OnDeltaStreamClosed forgets the stream.
func (st *deltaStream) OnDeltaStreamClosed(int64, *core.Node) { st.close() }

// CreateWatch is never called: the other protocol has its own stream.
func (st *deltaStream) CreateWatch(*cache.Request, cache.Subscription, chan cache.Response) (func(), error) {
	return nil, errOtherProtocol
}

// CreateDeltaWatch takes over what changed in the subscription. It answers at
// once, or parks the watch; while a response is in flight it does neither, since
// the ACK comes here again.
func (st *deltaStream) CreateDeltaWatch(req *cache.DeltaRequest, sub cache.Subscription, responses chan cache.DeltaResponse) (func(), error) {
	ahead := st.ahead
	if !st.joined {
		var err error
		if ahead, err = st.cache.newest(st.ctx, sub.ReturnedResources()); err != nil {
			return nil, err
		}
	}
	w := &deltaWatch{st: st, req: req, responses: responses, live: true, greet: !st.begun}
	if st.refusals > 0 { // another request does not end the wait
		w.timed, w.patience = true, st.wait
	}
	st.mu.Lock()
	st.ahead = ahead
	st.subscribe(req, sub)
	waiting, crowded := st.waiting, namesAny(req) && max(count(st.wanted), count(st.owed)-st.held) > maxNames
	st.mu.Unlock()
	if crowded {
		return nil, errManyNames
	}
	if !waiting {
		st.cache.serveOrPark(w, w.greet)
	}
	return w.cancel, nil
}

func namesAny(req *cache.DeltaRequest) bool {
	return len(req.GetResourceNamesSubscribe())+len(req.GetResourceNamesUnsubscribe()) > 0
}

// count is what names count against maxNames.
func count[V any](names map[string]V) (n int) {
	for name := range names {
		n += 1 + len(name)/nameUnit
	}
	return n
}

// subscribe notes what the client wants now, and which names must be answered
// for that alone: those it has just named, and those it gave up by name while
// it still wants everything.
func (st *deltaStream) subscribe(req *cache.DeltaRequest, sub cache.Subscription) {
	first := !st.joined
	if first {
		st.join(sub)
	} else if sub.IsWildcard() && !st.wildcard { // of the rest nothing is known
		st.compare(st.cache.now())
		st.position, st.initial = 0, nil
	}
	st.wildcard = sub.IsWildcard()
	if first || namesAny(req) {
		st.wanted = maps.Clone(sub.SubscribedResources())
	}
	for _, name := range req.GetResourceNamesSubscribe() {
		if name != "*" && (!first || st.initial[name] == "") {
			st.owed[name] = struct{}{}
		}
	}
	unsubscribed := sub.ReturnedResources() // but for the first request, whose map it is until the first response
	for name := range unsubscribed {
		if !first {
			st.owed[name] = struct{}{}
		}
	}
	clear(unsubscribed)
	st.forgive()
}

// forgive owes nothing that the client does not want.
func (st *deltaStream) forgive() {
	if !st.wildcard {
		maps.DeleteFunc(st.owed, func(name string, _ struct{}) bool {
			_, ok := st.wanted[name]
			return !ok
		})
	}
}

// join takes the first request. Who wants names is answered each of them, and
// then what changes.
func (st *deltaStream) join(sub cache.Subscription) {
	st.joined = true
	st.until = st.cache.current.Load().Version()
	if held := sub.ReturnedResources(); len(held) > 0 {
		st.initial, st.held = maps.Clone(held), count(held)
	}
	if !sub.IsWildcard() {
		st.position = st.until
	}
}

// newest is the newest of the versions that a client holds and that are ours.
// Against a replica that has not reached it, what is revoked would look as if it
// were not.
func (c *Cache) newest(ctx context.Context, held map[string]string) (newest uint64, err error) {
	last, asked := c.log.Snapshot().Version(), false
	for _, text := range held {
		version, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			continue // no version of ours
		}
		if version > last && !asked {
			if last, err = c.last(ctx); err != nil {
				return 0, errNoLast
			}
			asked = true
		}
		if version <= last {
			newest = max(newest, version)
		}
	}
	return newest, nil
}

// compare owes an answer for what the client holds and should not, or holds in
// another version. It does so once.
func (st *deltaStream) compare(now time.Time) {
	if st.compared {
		return
	}
	st.compared = true
	for name, version := range st.initial {
		c, found := st.cache.log.Lookup(name)
		if !found || !counts(c, now, st.cache.grace) || strconv.FormatUint(c.Version, 10) != version {
			st.owed[name] = struct{}{}
			delete(st.initial, name)
		}
	}
	st.forgive()
}

// deltaWatch is one request that waits for its answer.
type deltaWatch struct {
	parking
	st        *deltaStream
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
	if w.timed && !w.patience.over(s.Version(), now) {
		return false
	}
	if st.ahead > s.Version() { // the hub has it, this replica not yet
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
func (st *deltaStream) next(s *revocation.Snapshot, now time.Time) *delivery {
	switch {
	case len(st.owed) > 0 || st.initial != nil && st.position < st.until:
		return st.private(s, now)
	case !st.wildcard:
		return st.named(s, now)
	case st.position >= s.Version():
		return nil
	}
	return &delivery{chunk: st.cache.chunk(s, st.position, delta, now), from: st.position}
}

// private is an answer for this stream alone: names that are owed, and the set
// without what the client said it holds.
func (st *deltaStream) private(s *revocation.Snapshot, now time.Time) *delivery {
	e := st.cache.encoder(delta, now)
	d := &delivery{chunk: e.chunk, from: st.position, owed: map[string]struct{}{}}
	for _, name := range slices.Sorted(maps.Keys(st.owed)) {
		if e.full(len(name)) && len(d.owed) > 0 { // even the longest has its turn
			break
		}
		e.look(st.cache.log, name)
		d.owed[name] = struct{}{}
		delete(st.owed, name)
	}
	e.collect(s, st.position, func(c revocation.Change, name []byte) bool {
		_, answered := d.owed[string(name)]
		return answered || st.skips(c, name)
	})
	return d
}

// skips says whether the client need not be told of a change.
func (st *deltaStream) skips(c revocation.Change, name []byte) bool {
	if !st.wildcard {
		_, wanted := st.wanted[string(name)]
		return !wanted
	}
	version, held := st.initial[string(name)]
	return held && version == strconv.FormatUint(c.Version, 10)
}

// named is what changed among the names subscribed to, or nil. Where nothing
// did, the position moves on by itself.
func (st *deltaStream) named(s *revocation.Snapshot, now time.Time) *delivery {
	if st.position >= s.Version() {
		return nil
	}
	e := st.cache.encoder(delta, now)
	d := &delivery{chunk: e.chunk, from: st.position}
	e.collect(s, st.position, st.skips)
	if e.chunk.entries == 0 {
		st.position = e.chunk.to
		return nil
	}
	return d
}

func (st *deltaStream) emptyChunk(s *revocation.Snapshot, now time.Time) *chunk {
	e := st.cache.encoder(delta, now)
	e.finish(max(st.position, s.Version()))
	return e.chunk
}

// deltaResponse is a chunk on its way to one stream.
type deltaResponse struct {
	st    *deltaStream
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
