package xds

import (
	"context"
	"errors"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
)

var errOtherProtocol = errors.New("a stream speaks one protocol")

// Back-off of a stream whose gateway refuses what it gets. A new version is
// offered earlier, but never before minBackOff.
const (
	minBackOff = 100 * time.Millisecond
	maxBackOff = 30 * time.Second
)

// answer is what a request says about the last response.
type answer uint8

const (
	unrelated answer = iota // nothing: it is a first request, a late one, or changes a subscription
	acked
	nacked
)

// streamBase is what streams of both protocols know. It belongs to the stream's
// own goroutine.
type streamBase struct {
	ctx    context.Context //nolint:containedctx // the stream's own, for calls that go-control-plane makes without one
	server *Server
	cache  *Cache
	form   protocol
	gw     *gateway

	begun    bool // the first response was sent
	answered answer
	refusals int      // NACKs in a row
	wait     patience // since the last of them

	queued   *chunk // about to be sent
	inFlight *chunk // sent, and not answered
	nonce    string // of inFlight
}

func (s *Server) newStream(ctx context.Context, form protocol) streamBase {
	return streamBase{ctx: ctx, server: s, cache: &s.cache, form: form}
}

// open checks the type and, at the first request, finds out whose stream it is.
func (st *streamBase) open(node *core.Node, typeURL string) error {
	if typeURL != TypeURL {
		return grpcstatus.Errorf(codes.InvalidArgument, "type URL %.200q is not served here, only %s", typeURL, TypeURL)
	}
	if st.gw == nil {
		st.gw = st.server.gateways.join(identity(st.ctx, node), st.form)
	}
	return nil
}

func (st *streamBase) close() {
	if st.gw != nil {
		st.server.gateways.leave(st.gw, st.form)
	}
}

// sent notes that what was queued leaves under nonce.
func (st *streamBase) sent(nonce string) {
	st.begun, st.inFlight, st.nonce = true, st.queued, nonce
	st.server.metrics.pushed(st.form, st.inFlight)
}

// answer takes what a request says about the response in flight.
func (st *streamBase) answer(nonce string, fault *status.Status) answer {
	c := st.inFlight
	if c == nil || nonce != st.nonce {
		return unrelated
	}
	st.inFlight, st.nonce = nil, ""
	if fault == nil {
		st.refusals = 0
		st.gw.ack(c.to)
		st.server.metrics.acked(c, st.cache.now())
		return acked
	}
	st.refusals++
	st.wait = st.patience()
	st.gw.nack()
	st.server.refused(st.gw, st.form, c, fault)
	return nacked
}

// patience says when a gateway that refused is offered an answer again: at the
// next version, though not before earliest, and at retry in any case.
type patience struct {
	version         uint64 // refused at
	earliest, retry time.Time
}

func (st *streamBase) patience() patience {
	now := st.cache.now()
	return patience{
		version:  st.cache.current.Load().Version(),
		earliest: now.Add(minBackOff),
		retry:    now.Add(min(maxBackOff, minBackOff<<min(st.refusals, 16))),
	}
}

// over says whether the wait is over at version and now.
func (p patience) over(version uint64, now time.Time) bool {
	return !now.Before(p.retry) || version > p.version && !now.Before(p.earliest)
}
