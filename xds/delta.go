package xds

import (
	"context"
	"maps"
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
)

// maxNames bounds what a stream may ask for by name, over all its requests. A
// name counts once for every nameUnit bytes that it begins.
const (
	maxNames = 200_000
	nameUnit = 256
)

var errManyNames = status.Errorf(codes.ResourceExhausted, "more than %d names on one stream: ask for everything instead", maxNames)

// deltaStream is one incremental stream: go-control-plane's server drives it, as
// its cache and its callbacks.
type deltaStream struct {
	streamBase
	topics [kinds]*deltaTopic
}

// deltaTopic is one type of resources on the stream. Go-control-plane's server
// does not check nonces and counts a response as known when it is sent, so the
// topic keeps for itself how far the client has come: what was ACKed, and what
// is in flight. At most one response is in flight, and what happens meanwhile is
// coalesced into the next.
type deltaTopic struct {
	topic
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
	st := &deltaStream{streamBase: s.newStream(str.Context(), delta, typeURL)} //nolint:contextcheck // ctx is the server's life, this the stream's
	return deltaserver.NewServer(ctx, st, st).DeltaStreamHandler(str, typeURL)
}

// topic is that of a type which open has let in.
func (st *deltaStream) topic(typeURL string) *deltaTopic {
	k, _ := kindOf(typeURL)
	if st.topics[k] == nil {
		st.topics[k] = &deltaTopic{
			topic: topic{streamBase: &st.streamBase, kind: k},
			owed:  map[string]struct{}{}, returned: map[string]string{},
		}
	}
	return st.topics[k]
}

// OnDeltaStreamOpen, OnStreamDeltaRequest, OnStreamDeltaResponse and
// OnDeltaStreamClosed are go-control-plane's callbacks; it calls them from the
// stream's own goroutine.
func (st *deltaStream) OnDeltaStreamOpen(context.Context, int64, string) error { return nil }

// OnStreamDeltaRequest compares the nonce, which go-control-plane does not.
func (st *deltaStream) OnStreamDeltaRequest(_ int64, req *discovery.DeltaDiscoveryRequest) error {
	k, err := st.open(req.GetNode(), req.GetTypeUrl())
	if err != nil {
		return err
	}
	st.topic(k.url()).hear(req)
	return nil
}

// hear takes what a request says of the response in flight.
func (st *deltaTopic) hear(req *discovery.DeltaDiscoveryRequest) {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch st.answered = st.answer(req.GetResponseNonce(), st.flying(), req.GetErrorDetail()); st.answered {
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
}

// OnStreamDeltaResponse notes what was sent, by its nonce.
func (st *deltaStream) OnStreamDeltaResponse(_ int64, _ *discovery.DeltaDiscoveryRequest, resp *discovery.DeltaDiscoveryResponse) {
	st.topic(resp.GetTypeUrl()).sent(resp.GetNonce())
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
	return st.topic(req.GetTypeUrl()).watch(req, sub, responses)
}

func (st *deltaTopic) watch(req *cache.DeltaRequest, sub cache.Subscription, responses chan cache.DeltaResponse) (func(), error) {
	ahead := st.ahead
	if !st.joined {
		var err error
		if ahead, err = st.cache.newest(st.ctx, sub.ReturnedResources()); err != nil {
			return nil, err
		}
	}
	w := &deltaWatch{st: st, req: req, responses: responses, live: true, greet: !st.begun}
	w.wait = st.waits(false)
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
func (st *deltaTopic) subscribe(req *cache.DeltaRequest, sub cache.Subscription) {
	first := !st.joined
	if first {
		st.join(sub)
	} else if sub.IsWildcard() && !st.wildcard { // of the rest nothing is known
		st.compare(st.cache.now())
		st.position, st.initial = 0, nil
		st.view.begin(st.kind, delta, 0)
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
func (st *deltaTopic) forgive() {
	if !st.wildcard {
		maps.DeleteFunc(st.owed, func(name string, _ struct{}) bool {
			_, ok := st.wanted[name]
			return !ok
		})
	}
}

// join takes the first request. Who wants names is answered each of them, and
// then what changes.
func (st *deltaTopic) join(sub cache.Subscription) {
	st.joined = true
	st.view.begin(st.kind, delta, 0) // names say what it holds, not what it was told to forget
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
func (st *deltaTopic) compare(now time.Time) {
	if st.compared {
		return
	}
	st.compared = true
	for name, version := range st.initial {
		c, found := st.kind.lookup(st.cache.log, name)
		switch {
		case !found || !st.kind.counts(c, now, st.cache.grace):
			st.owed[name] = struct{}{}
			delete(st.initial, name)
		case !st.hears(c): // of another tenant now, and revoked: nobody takes it back
			delete(st.initial, name)
		case strconv.FormatUint(c.Version, 10) != version:
			st.owed[name] = struct{}{}
			delete(st.initial, name)
		}
	}
	st.forgive()
}
