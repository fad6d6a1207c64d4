package xds

import (
	"context"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	sotwserver "github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"

	"revocation-adapter/revocation"
)

// sotwStream is one state-of-the-world stream: go-control-plane's server drives
// it, as its cache and its callbacks. Its position is the version that the
// client sends: a response carries only what changed since, which the protocol
// allows for every type but listeners and clusters.
type sotwStream struct {
	streamBase
	topics [kinds]*sotwTopic
}

// sotwTopic is one type of resources on the stream.
type sotwTopic struct {
	topic
	claimed bool   // it is noted what the client has
	byName  bool   // asked by name, and no answer to a wildcard was ACKed since
	whole   bool   // the response in flight answers a wildcard
	named   uint64 // version at which every name asked for was answered whole
	heard   uint64 // of batches: the last heartbeat that the client knows of
}

// serveSotw serves a stream until it ends.
func (s *Server) serveSotw(ctx context.Context, str stream.Stream, typeURL string) error {
	st := &sotwStream{streamBase: s.newStream(str.Context(), sotw, typeURL)} //nolint:contextcheck // ctx is the server's life, this the stream's
	return sotwserver.NewServer(ctx, st, st).StreamHandler(str, typeURL)
}

// topic is that of a type which open has let in.
func (st *sotwStream) topic(typeURL string) *sotwTopic {
	k, _ := kindOf(typeURL)
	if st.topics[k] == nil {
		st.topics[k] = &sotwTopic{topic: topic{streamBase: &st.streamBase, kind: k}}
	}
	return st.topics[k]
}

// OnStreamOpen, OnStreamRequest, OnStreamResponse and OnStreamClosed are
// go-control-plane's callbacks; it calls them from the stream's own goroutine.
func (st *sotwStream) OnStreamOpen(context.Context, int64, string) error { return nil }

// OnStreamRequest runs before go-control-plane compares nonces, so the nonce is
// compared here as well: a late answer says nothing about the last response.
func (st *sotwStream) OnStreamRequest(_ int64, req *discovery.DiscoveryRequest) error {
	k, err := st.open(req.GetNode(), req.GetTypeUrl())
	if err != nil {
		return err
	}
	t := st.topic(k.url())
	t.answered = t.answer(req.GetResponseNonce(), req.GetVersionInfo(), req.GetErrorDetail())
	if t.answered == acked && t.whole {
		t.byName = false
	}
	return nil
}

// OnStreamResponse notes what was sent, by its nonce.
func (st *sotwStream) OnStreamResponse(_ context.Context, _ int64, _ *discovery.DiscoveryRequest, resp *discovery.DiscoveryResponse) {
	st.topic(resp.GetTypeUrl()).sent(resp.GetNonce())
}

// OnStreamClosed forgets the stream.
func (st *sotwStream) OnStreamClosed(int64, *core.Node) { st.close() }

// CreateDeltaWatch is never called: the other protocol has its own stream.
func (st *sotwStream) CreateDeltaWatch(*cache.DeltaRequest, cache.Subscription, chan cache.DeltaResponse) (func(), error) {
	return nil, errOtherProtocol
}

// CreateWatch answers the request at once, or parks it until there is an
// answer.
func (st *sotwStream) CreateWatch(req *cache.Request, sub cache.Subscription, responses chan cache.Response) (func(), error) {
	return st.topic(req.GetTypeUrl()).watch(req, sub, responses)
}

func (st *sotwTopic) watch(req *cache.Request, sub cache.Subscription, responses chan cache.Response) (func(), error) {
	if len(sub.SubscribedResources()) > maxNames {
		return nil, errManyNames
	}
	if st.kind == batches && !sub.IsWildcard() {
		return nil, errBatchNames
	}
	position, err := st.cache.position(st.ctx, req.GetVersionInfo(), st.proof())
	if err != nil {
		return nil, err
	}
	w := &sotwWatch{
		st: st, req: req, sub: sub, responses: responses, claim: position, position: position,
		greet: !st.begun, live: true, heard: st.heard,
	}
	w.wait = st.waits(false)
	if !sub.IsWildcard() {
		st.byName = true
	} else if st.byName { // of the rest nothing is known, whatever the version says
		w.position, w.greet = 0, true
	}
	st.claim(w)
	if st.refusals > 0 { // another request does not end the wait
		w.timed, w.patience = true, st.wait
	}
	if !sub.IsWildcard() && (w.greet || st.refusals > 0) {
		w.whole, st.named = true, max(position, st.cache.current.Load().Version())
	}
	if !sub.IsWildcard() {
		w.position = max(position, st.named)
		w.ask()
	}
	st.cache.serveOrPark(w, w.greet)
	return w.cancel, nil
}

// claim takes a gateway at its word that it has a version, once, and each time
// that it has none. Who asks by name proves nothing by a version.
func (st *sotwTopic) claim(w *sotwWatch) {
	switch {
	case w.sub.IsWildcard() && w.position == 0, st.byName && !st.claimed:
		st.view.begin(st.kind, sotw, 0)
	case !st.claimed:
		st.view.begin(st.kind, sotw, w.position)
	}
	st.claimed = true
}

// sotwWatch is one request that waits for its answer. Go-control-plane makes a
// channel for each, with room for one response.
type sotwWatch struct {
	parking
	st        *sotwTopic
	req       *cache.Request
	sub       cache.Subscription
	responses chan cache.Response
	claim     uint64   // where the client says it is
	position  uint64   // from where it is told of changes
	greet     bool     // answer even if there is nothing new
	whole     bool     // answer every name asked for, not only those newly asked
	fresh     []string // names to answer whatever happened to them
	heard     uint64   // the last heartbeat that the client knows of

	mu       sync.Mutex
	live     bool
	patience patience // where timed
}

func (w *sotwWatch) cancel() {
	w.mu.Lock()
	w.live = false
	w.mu.Unlock()
	w.st.cache.unpark(w)
}

func (w *sotwWatch) serve(s *revocation.Snapshot, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.live {
		return true
	}
	if w.timed && !w.patience.over(w.st.kind.newest(s), now) {
		return false
	}
	resp := w.response(s, now)
	if resp == nil {
		return false
	}
	w.live = false
	w.responses <- resp
	return true
}

// response is the answer at s, or nil while there is none.
func (w *sotwWatch) response(s *revocation.Snapshot, now time.Time) cache.Response {
	ahead := max(w.claim, w.position) > s.Version() // the hub has it, this replica not yet
	if w.wait = w.st.waits(ahead); ahead {
		return nil
	}
	if w.st.kind == batches {
		return w.batch(s, now)
	}
	if !w.sub.IsWildcard() {
		return w.named(s, now)
	}
	if w.position >= w.st.kind.newest(s) && !w.greet {
		return nil
	}
	c := w.st.chunk(s, w.position, now)
	if c.entries == 0 && w.st.audience != nil && !w.greet { // it was of other tenants
		w.pass(c)
		return nil
	}
	return &sotwResponse{st: w.st, req: w.req, chunk: c}
}

// pass moves the position past what the client needs not be told of.
func (w *sotwWatch) pass(c *chunk) {
	w.st.view.pass(w.st.kind, sotw, w.position, c.to)
	w.position = c.to
}

// sotwResponse is a chunk on its way to one stream. The nonce is written into
// the message that it makes, so that only the resources are shared.
type sotwResponse struct {
	st    *sotwTopic
	req   *cache.Request
	chunk *chunk
	names map[string]string
}

// GetDiscoveryResponse is called by the stream's goroutine, right before
// OnStreamResponse.
func (r *sotwResponse) GetDiscoveryResponse() (*discovery.DiscoveryResponse, error) {
	r.st.queued, r.st.whole = r.chunk, r.names == nil
	r.st.heard = max(r.st.heard, r.chunk.fresh.beat)
	return r.chunk.response(), nil
}
func (r *sotwResponse) GetRequest() *discovery.DiscoveryRequest { return r.req }
func (r *sotwResponse) GetVersion() (string, error)             { return r.chunk.text, nil }
func (r *sotwResponse) GetResponseVersion() string              { return r.chunk.text }

// GetReturnedResources is empty for a wildcard: go-control-plane would keep it
// for every stream, and compare.
func (r *sotwResponse) GetReturnedResources() map[string]string { return r.names }
func (r *sotwResponse) GetContext() context.Context             { return nil }
