package xds

import (
	"cmp"
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
// own goroutine; what the first request settles, others may read afterwards.
type streamBase struct {
	ctx     context.Context //nolint:containedctx // the stream's own, for calls that go-control-plane makes without one
	server  *Server
	cache   *Cache
	form    protocol
	typeURL string // of all that is served on it; "": the request says which

	view     *view
	audience *audience
	opened   [kinds]bool
}

// topic is what a stream knows of one type of resources. Aggregated streams
// carry several, each with its own version and nonce.
type topic struct {
	*streamBase
	kind kind

	begun    bool // the first response was sent
	answered answer
	refusals int      // NACKs in a row
	wait     patience // since the last of them

	queued   *chunk // about to be sent
	inFlight *chunk // sent, and not answered
	nonce    string // of inFlight
}

func (s *Server) newStream(ctx context.Context, form protocol, typeURL string) streamBase {
	return streamBase{ctx: ctx, server: s, cache: &s.cache, form: form, typeURL: typeURL}
}

// open checks the type and, at the first request, finds out whose stream it is.
func (st *streamBase) open(node *core.Node, typeURL string) (kind, error) {
	typeURL = cmp.Or(typeURL, st.typeURL)
	k, known := kindOf(typeURL)
	if !known || st.typeURL != "" && typeURL != st.typeURL || k == batches && st.form == delta {
		return 0, grpcstatus.Errorf(codes.InvalidArgument, "type URL %.200q is not served here, only %s",
			typeURL, cmp.Or(st.typeURL, st.form.types()))
	}
	if st.view != nil {
		if err := st.audience.stays(node); err != nil {
			return 0, err
		}
	} else if err := st.meet(node); err != nil {
		return 0, err
	}
	if !st.opened[k] {
		st.opened[k] = true
		st.server.gateways.want(st.view, k, st.form, 1)
	}
	return k, nil
}

// meet takes what the first request says of the gateway.
func (st *streamBase) meet(node *core.Node) (err error) {
	if st.audience, err = audienceOf(node); err != nil {
		return err
	}
	st.view = st.server.gateways.join(caller{
		name: identity(st.ctx, node), address: addressOf(st.ctx),
		at: st.cache.now(), form: st.form, audience: st.audience,
	})
	if st.audience != nil {
		st.server.told(st.view.gateway, st.form, st.audience)
	}
	return nil
}

func (st *streamBase) close() {
	if st.view == nil {
		return
	}
	for k, opened := range st.opened {
		if opened {
			st.server.gateways.want(st.view, kind(k), st.form, -1) // one of kinds
		}
	}
	st.server.gateways.leave(st.view, st.form)
}

// waits is what the next watch of the topic waits for at s, which the client is
// ahead of or not. Rules may wait for long.
func (st *topic) waits(ahead bool) wait {
	switch {
	case st.kind == batches:
		return forBatches
	case st.kind == rules && !ahead:
		return forRules
	}
	return forVersions
}

// sent notes that what was queued leaves under nonce.
func (st *topic) sent(nonce string) {
	st.begun, st.inFlight, st.nonce = true, st.queued, nonce
	st.server.metrics.pushed(st.form, st.inFlight)
}

// flying is the version of the response in flight.
func (st *topic) flying() string {
	if st.inFlight == nil {
		return ""
	}
	return st.inFlight.text
}

// answer takes what a request says about the response in flight. An ACK with
// another version than that is of another stream's response.
func (st *topic) answer(nonce, version string, fault *status.Status) answer {
	c := st.inFlight
	if c == nil || nonce != st.nonce {
		return unrelated
	}
	st.inFlight, st.nonce = nil, ""
	if fault == nil {
		st.refusals = 0
		if version == c.text {
			st.view.ack(st.kind, st.form, c.to)
		}
		st.server.metrics.acked(c, st.cache.now())
		return acked
	}
	st.refusals++
	st.wait = st.patience()
	st.view.gateway.nack(fault.GetMessage())
	st.server.refused(st.view.gateway, st.form, c, fault)
	return nacked
}

// patience says when a gateway that refused is offered an answer again: at the
// next version, though not before earliest, and at retry in any case.
type patience struct {
	version         uint64 // refused at
	earliest, retry time.Time
}

func (st *topic) patience() patience {
	now := st.cache.now()
	return patience{
		version:  st.kind.newest(st.cache.current.Load()),
		earliest: now.Add(minBackOff),
		retry:    now.Add(min(maxBackOff, minBackOff<<min(st.refusals, 16))),
	}
}

// over says whether the wait is over at version and now.
func (p patience) over(version uint64, now time.Time) bool {
	return !now.Before(p.retry) || version > p.version && !now.Before(p.earliest)
}
