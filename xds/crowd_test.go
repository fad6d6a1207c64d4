package xds_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	keymgtservice "revocation-adapter/resources/proto/wso2/discovery/service/keymgt"
	"revocation-adapter/xds"
)

// member is one of many clients of any protocol.
type member struct {
	follow func(head uint64) error // until it is at head
	held   func() map[string]int64
	adds   bool // cannot un-revoke
}

// take accepts responses until one is at head; versions never fall.
func followSotw(c *sotwClient, head uint64) error {
	last := uint64(0)
	for {
		resp, err := c.get()
		if err != nil {
			return err
		}
		c.ack(resp)
		version := number(c.t, resp.GetVersionInfo())
		if version < last {
			return fmt.Errorf("version %d after %d", version, last)
		}
		if last = version; last == head {
			return nil
		}
	}
}

func followDelta(c *deltaClient, head uint64) error {
	last := uint64(0)
	for {
		resp, err := c.get()
		if err != nil {
			return err
		}
		c.ack(resp)
		version := number(c.t, resp.GetSystemVersionInfo())
		if version < last {
			return fmt.Errorf("version %d after %d", version, last)
		}
		if last = version; last == head {
			return nil
		}
	}
}

// join opens one stream of each protocol in turn.
func join(t *testing.T, conn grpc.ClientConnInterface, i int) member {
	t.Helper()
	if i%4 == 3 {
		c := deltaOn(t.Context(), t, conn)
		c.send(&discovery.DeltaDiscoveryRequest{Node: node(fmt.Sprint(i))})
		return member{
			follow: func(head uint64) error { return followDelta(c, head) },
			held:   func() map[string]int64 { return c.held },
		}
	}
	s := streamTokens
	if i%4 == 2 {
		s = aggregated
	}
	c := openOn(t.Context(), t, s, conn)
	c.send(&discovery.DiscoveryRequest{Node: node(fmt.Sprint(i))})
	return member{
		follow: func(head uint64) error { return followSotw(c, head) },
		held:   func() map[string]int64 { return c.held },
		adds:   true,
	}
}

// commotion revokes, approves, lets expire and purges, from several goroutines.
func commotion(w *world) {
	var group sync.WaitGroup
	for author := range uint64(3) {
		group.Go(func() {
			rng := rand.New(rand.NewPCG(author, 3))
			for i := range 60 {
				w.put(
					revoked(fmt.Sprint("shared ", rng.IntN(200)), later.Add(time.Duration(rng.IntN(1000))*time.Second)),
					revoked(fmt.Sprint("of ", author, " ", i), w.clock.Now().Add(time.Duration(rng.IntN(3600))*time.Second)),
				)
				w.approve(fmt.Sprint("shared ", rng.IntN(200)))
			}
		})
	}
	group.Go(func() {
		for range 60 {
			w.clock.move(time.Minute)
			w.log.Purge(w.clock.Now())
		}
	})
	group.Wait()
}

func TestTwoHundredStreamsEndWithTheTruth(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.revoke(uuids(1, 500)...)
	const half, last = 100, 1000 + 500 + 3*60*3 + 1
	var (
		conns   []*grpc.ClientConn
		members []member
		group   sync.WaitGroup
	)
	for range 20 {
		conns = append(conns, w.dial())
	}
	enter := func(i int) {
		m := join(t, conns[i%len(conns)], i)
		members = append(members, m)
		group.Go(func() {
			if err := m.follow(last); err != nil {
				t.Errorf("stream %d: %v", i, err)
			}
		})
	}
	for i := range half {
		enter(i)
	}
	var done sync.WaitGroup
	done.Go(func() { commotion(w) })
	for i := range half {
		enter(half + i)
	}
	done.Wait()
	w.revoke("the last")
	group.Wait()
	compare(t, w, members)
}

// compare checks what every member holds, but for what it may still hold
// because it cannot un-revoke.
func compare(t *testing.T, w *world, members []member) {
	t.Helper()
	truth, now := w.truth(), w.clock.Now().UnixMilli()
	approvals := map[string]bool{}
	for c := range w.log.Snapshot().Since(0, w.clock.Now()) {
		if _, live := truth[c.Name()]; !live {
			approvals[c.Name()] = true
		}
	}
	for _, m := range members {
		held := maps.Clone(m.held())
		maps.DeleteFunc(held, func(name string, expiry int64) bool {
			return gone(expiry, now) || m.adds && approvals[name]
		})
		same(t, held, truth)
	}
}

// Nothing of what it does not read is kept for it, and nobody waits for it.
func TestGatewayThatStopsReading(t *testing.T) {
	w := start(t)
	w.revoke(fortyThousand()...)
	for range 5 {
		stall(t, w, true)
		stall(t, w, false)
	}
	other, another := w.subscribe(t, streamTokens, w.head()), w.delta(t)
	other.accept()
	another.follow(number(t, w.head()))
	before := heap()
	slowest := time.Duration(0)
	for i := range 2000 {
		began := time.Now()
		head := w.revoke(fmt.Sprint("new ", i))
		other.follow(head)
		another.follow(head)
		slowest = max(slowest, time.Since(began))
	}
	if slowest > 2*time.Second {
		t.Errorf("the slowest of 2,000 changes took %v", slowest)
	}
	// 10 streams, one response of up to 2 MB each, are there before.
	if grown := heap() - before; grown > 12<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
}

// head is the log's version as clients see it.
func (w *world) head() string { return text(w.log.Snapshot().Version()) }

// stall opens a stream that is never read. If it lies, it ACKs the first chunk
// all the same, so that the second blocks the server's side, and goes on.
func stall(t *testing.T, w *world, lies bool) sotwStream {
	t.Helper()
	stream, err := streamTokens.open(t.Context(), w.stalled())
	if err != nil {
		t.Fatal(err)
	}
	before := w.metric("revocation_adapter_xds_responses_total", "sotw")
	send(t, stream.Send(&discovery.DiscoveryRequest{Node: node("stalled")}))
	sent := func(n float64) {
		until(t, "it is sent", func() bool { return w.metric("revocation_adapter_xds_responses_total", "sotw") >= before+n })
	}
	sent(1)
	if !lies {
		return stream
	}
	send(t, stream.Send(&discovery.DiscoveryRequest{VersionInfo: "1000", ResponseNonce: "1"}))
	sent(2)
	go func() {
		for range 2_000 { // as far as the window reaches
			if stream.Send(&discovery.DiscoveryRequest{VersionInfo: "1001", ResponseNonce: "2"}) != nil {
				return // the stream is over
			}
		}
	}()
	return stream
}

func heap() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// A stream is one position: what it was sent is not remembered.
func TestStreamRemembersNoNames(t *testing.T) {
	w := start(t)
	const held = 20_000
	head := w.revoke(fortyThousand()[:held]...)
	cases := []struct {
		name string
		open func() (take func() (version, nonce string), ack func(version, nonce string))
	}{
		{"state of the world", func() (func() (string, string), func(string, string)) {
			stream, err := aggregated.open(t.Context(), w.dial())
			if err != nil {
				t.Fatal(err)
			}
			ack := func(version, nonce string) {
				send(t, stream.Send(&discovery.DiscoveryRequest{TypeUrl: xds.TypeURL, VersionInfo: version, ResponseNonce: nonce}))
			}
			return func() (string, string) {
				resp, err := stream.Recv()
				send(t, err)
				return resp.GetVersionInfo(), resp.GetNonce()
			}, ack
		}},
		{"delta", func() (func() (string, string), func(string, string)) {
			return deltaPosition(t, w, nil)
		}},
		{"delta that held all before", func() (func() (string, string), func(string, string)) {
			return deltaPosition(t, w, versionsOf(w))
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			sync := func() {
				take, ack := c.open()
				for ack("", ""); ; {
					version, nonce := take()
					ack(version, nonce)
					if version == text(head) {
						return
					}
				}
			}
			sync() // what one needs, all share
			before := heap()
			const streams = 4
			for range streams {
				sync()
			}
			if each := (heap() - before) / streams; each > 300<<10 {
				t.Errorf("a stream that holds %d tokens costs %d bytes", held, each)
			}
		})
	}
}

// deltaPosition opens an incremental stream that keeps nothing of what it gets.
func deltaPosition(t *testing.T, w *world, held map[string]string) (take func() (version, nonce string), ack func(version, nonce string)) {
	t.Helper()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(w.dial()).DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ack = func(_, nonce string) {
		req := &discovery.DeltaDiscoveryRequest{TypeUrl: xds.TypeURL, ResponseNonce: nonce}
		if nonce == "" {
			req.InitialResourceVersions = held
		}
		send(t, stream.Send(req))
	}
	take = func() (string, string) {
		resp, err := stream.Recv()
		send(t, err)
		return resp.GetSystemVersionInfo(), resp.GetNonce()
	}
	return take, ack
}

// versionsOf is what a client that holds everything says.
func versionsOf(w *world) map[string]string {
	versions := map[string]string{}
	for c := range w.log.Snapshot().Since(0, w.clock.Now()) {
		versions[c.Name()] = text(c.Version)
	}
	return versions
}

func send(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

func TestNoMoreStreamsThanConfigured(t *testing.T) {
	t.Parallel()
	w := start(t, func(c *xds.Config) { c.MaxStreams = 3 })
	hangUps := make([]context.CancelFunc, 3)
	conn := w.dial()
	for i := range hangUps {
		var ctx context.Context
		ctx, hangUps[i] = context.WithCancel(t.Context())
		if i == 2 {
			c := deltaOn(ctx, t, conn)
			c.send(&discovery.DeltaDiscoveryRequest{})
			c.accept()
			continue
		}
		c := openOn(ctx, t, streamTokens, conn)
		c.send(&discovery.DiscoveryRequest{})
		c.accept()
	}
	for range 2 {
		if got := w.subscribe(t, aggregated, "").end(); got.Code() != codes.Unavailable {
			t.Errorf("the fourth stream ended with %v, want UNAVAILABLE", got)
		}
	}
	client := keymgtservice.NewRevokedTokenDiscoveryServiceClient(conn)
	if _, err := client.FetchTokens(t.Context(), &discovery.DiscoveryRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("a call beside them answered %v, want UNAVAILABLE", err)
	}
	if n := w.metric("revocation_adapter_xds_refused_streams_total", ""); n != 3 {
		t.Errorf("%v refusals counted, want 3", n)
	}
	for _, hangUp := range hangUps {
		hangUp()
		until(t, "there is room for another", func() bool {
			c := w.subscribe(t, streamTokens, "")
			_, err := c.get()
			return err == nil
		})
	}
}

// What a stream asks for by name is kept as long as it lasts: it is bounded,
// however many requests it comes in.
func TestNamesOfAStreamAreBounded(t *testing.T) {
	t.Parallel()
	w := start(t)
	c := w.delta(t)
	c.accept()
	const most, each = 200_000, 50_000
	for first := 0; first <= most; first += each {
		names := make([]string, each)
		for i := range names {
			names[i] = fmt.Sprint(first + i)
		}
		c.change(names, nil)
	}
	if got := c.end(); got.Code() != codes.ResourceExhausted {
		t.Errorf("the stream ended with %v, want RESOURCE_EXHAUSTED", got)
	}
}
