package enforcer_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"revocation-adapter/enforcer"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
)

// adapter serves a hub by the protocol, over a real connection.
type adapter struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	hub     *hub
	address string
	server  *grpc.Server
	served  chan struct{}
	conns   *connections // nil: not counted
	readers sync.WaitGroup

	mu      sync.Mutex
	page    int
	reach   uint64                         // how far this replica has come
	limit   int                            // responses until the stream breaks; 0: none
	cutOff  time.Time                      // its log was not complete since; zero: it is
	mute    bool                           // it takes requests, and says nothing
	say     []*discovery.DiscoveryResponse // before anything else
	cut     chan struct{}                  // closed to break the streams
	first   []*discovery.DiscoveryRequest
	nacks   []*discovery.DiscoveryRequest
	acked   string
	refuse  error // of every stream
	end     error // of the stream that answers next
	resets  int
	sent    int
	streams int
}

func serve(tb testing.TB, h *hub) *adapter {
	tb.Helper()
	conns := &connections{}
	a := serveWith(tb, h, grpc.NewServer(grpc.StatsHandler(conns), grpc.WaitForHandlers(true)), "127.0.0.1:0")
	a.conns = conns
	return a
}

// connections counts those that are open.
type connections struct {
	stats.Handler
	open atomic.Int64
}

func (c *connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (c *connections) HandleRPC(context.Context, stats.RPCStats)                         {}
func (c *connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (c *connections) HandleConn(_ context.Context, s stats.ConnStats) {
	switch s.(type) {
	case *stats.ConnBegin:
		c.open.Add(1)
	case *stats.ConnEnd:
		c.open.Add(-1)
	}
}

func serveWith(tb testing.TB, h *hub, server *grpc.Server, address string) *adapter {
	tb.Helper()
	lis, err := net.Listen("tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	a := &adapter{
		hub: h, address: lis.Addr().String(), server: server, served: make(chan struct{}),
		page: 1 << 16, reach: 1 << 62, cut: make(chan struct{}),
	}
	discovery.RegisterAggregatedDiscoveryServiceServer(a.server, a)
	go func() {
		defer close(a.served)
		_ = a.server.Serve(lis) // it ends with stop
	}()
	tb.Cleanup(a.stop)
	return a
}

func (a *adapter) stop() {
	a.server.Stop()
	<-a.served
	a.readers.Wait()
}

// set changes what the adapter does, and breaks its streams.
func (a *adapter) set(change func(a *adapter)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(a)
	close(a.cut)
	a.cut = make(chan struct{})
}

// look reads what the adapter saw.
func (a *adapter) look(at func(a *adapter)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at(a)
}

var (
	errCut  = status.Error(codes.Unavailable, "cut by the test")
	errFine = errors.New("an end without an error")
)

// StreamAggregatedResources implements the service.
func (a *adapter) StreamAggregatedResources(s discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	first, err := s.Recv()
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.first, a.streams = append(a.first, first), a.streams+1
	c := &conversation{adapter: a, stream: s, cut: a.cut, left: a.limit}
	refuse := a.refuse
	a.mu.Unlock()
	if refuse != nil {
		return refuse
	}
	answers := make(chan *discovery.DiscoveryRequest)
	c.answers = answers
	a.readers.Go(func() { forward(s, answers) })
	if err := c.run(first.GetVersionInfo()); !errors.Is(err, errFine) {
		return err
	}
	return nil
}

// forward ends with the stream, soon after its handler has returned.
func forward(s discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer, answers chan<- *discovery.DiscoveryRequest) {
	defer close(answers)
	for {
		r, err := s.Recv()
		if err != nil {
			return
		}
		select {
		case answers <- r:
		case <-s.Context().Done():
			return
		}
	}
}

// conversation is one stream.
type conversation struct {
	*adapter
	stream  discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer
	answers <-chan *discovery.DiscoveryRequest
	cut     <-chan struct{}
	left    int
	nonce   int
}

func (c *conversation) run(info string) error {
	position, reset, proof := c.hub.resume(info)
	for {
		if err := c.tell(); err != nil {
			return err
		}
		c.mu.Lock()
		page, reach, mute, cutOff := c.page, c.reach, c.mute, c.cutOff
		c.mu.Unlock()
		b, changed := c.hub.batch(position, max(reach, position), reset, page)
		if !cutOff.IsZero() {
			b.CompleteAtMicros = cutOff.UnixMicro()
		}
		if mute {
			return c.wait(nil)
		}
		if !c.hub.is(proof) {
			return errCut
		}
		c.count(b)
		if err := c.send(respond(b, proof)); err != nil {
			return err
		}
		position, reset = b.ToVersion, false
		if b.ToVersion == b.HeadVersion {
			if err := c.wait(changed); err != nil {
				return err
			}
		}
	}
}

func respond(b *revocationv1.Batch, proof string) *discovery.DiscoveryResponse {
	packed, err := anypb.New(b)
	if err != nil {
		panic(err) // it is a message
	}
	return &discovery.DiscoveryResponse{
		TypeUrl: enforcer.BatchType, VersionInfo: fmt.Sprintf("%d-%s", b.ToVersion, proof),
		Resources: []*anypb.Any{packed},
	}
}

func (c *conversation) count(b *revocationv1.Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent++
	if b.Reset_ {
		c.resets++
	}
}

// tell says what the test wants said.
func (c *conversation) tell() error {
	for {
		c.mu.Lock()
		var r *discovery.DiscoveryResponse
		if len(c.say) > 0 {
			r, c.say = c.say[0], c.say[1:]
		}
		c.mu.Unlock()
		if r == nil {
			return nil
		}
		if err := c.send(r); err != nil {
			return err
		}
	}
}

// send sends a response and waits until it is answered.
func (c *conversation) send(r *discovery.DiscoveryResponse) error {
	c.nonce++
	r.Nonce = strconv.Itoa(c.nonce)
	if err := c.stream.Send(r); err != nil {
		return err
	}
	for {
		select {
		case <-c.cut:
			return errCut
		case answer, open := <-c.answers:
			if !open {
				return errCut
			}
			if answer.GetResponseNonce() != r.Nonce {
				return status.Errorf(codes.InvalidArgument, "nonce %q, want %q", answer.GetResponseNonce(), r.Nonce)
			}
			return c.answered(answer, r)
		}
	}
}

func (c *conversation) answered(answer *discovery.DiscoveryRequest, r *discovery.DiscoveryResponse) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer.GetErrorDetail() != nil {
		c.nacks = append(c.nacks, answer)
		return nil
	} else if answer.GetVersionInfo() != r.GetVersionInfo() {
		return status.Errorf(codes.InvalidArgument, "ACK of %q, want %q", answer.GetVersionInfo(), r.GetVersionInfo())
	}
	c.acked = answer.GetVersionInfo()
	if err := c.end; err != nil {
		c.end = nil
		return err
	}
	c.left--
	if c.left == 0 {
		return errCut
	}
	return nil
}

// wait waits for a change.
func (c *conversation) wait(changed <-chan struct{}) error {
	select {
	case <-changed:
		return nil
	case <-c.cut:
		return errCut
	case <-c.stream.Context().Done():
		return c.stream.Context().Err()
	}
}
