package xds_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
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

// A call counts as long as it lasts.
func TestCallsCountAsStreams(t *testing.T) {
	t.Parallel()
	asked, reply := make(chan struct{}), make(chan struct{})
	w := start(t, func(c *xds.Config) {
		c.MaxStreams = 1
		c.Last = func(context.Context) (uint64, error) {
			close(asked)
			<-reply
			return 0, nil
		}
	})
	client := keymgtservice.NewRevokedTokenDiscoveryServiceClient(w.dial())
	var call sync.WaitGroup
	call.Go(func() {
		if _, err := client.FetchTokens(t.Context(), &discovery.DiscoveryRequest{VersionInfo: "1001"}); err != nil {
			t.Errorf("the call that came first: %v", err)
		}
	})
	<-asked
	if got := w.subscribe(t, streamTokens, "").end(); got.Code() != codes.Unavailable {
		t.Errorf("a stream beside it ended with %v, want UNAVAILABLE", got)
	}
	close(reply)
	call.Wait()
	w.subscribe(t, streamTokens, "").accept()
}

// The thousand-and-first stream of a connection waits until another ends.
func TestStreamsOfAConnectionAreBounded(t *testing.T) {
	t.Parallel()
	w := start(t)
	conn := w.dial()
	ctx, hangUp := context.WithCancel(t.Context())
	openOn(ctx, t, streamTokens, conn)
	for range 999 {
		openOn(t.Context(), t, streamTokens, conn)
	}
	var (
		more   *sotwClient
		opened = make(chan struct{})
	)
	go func() {
		defer close(opened)
		more = openOn(t.Context(), t, streamTokens, conn)
	}()
	select {
	case <-opened:
		t.Error("1,001 streams are open on one connection")
	case <-time.After(100 * time.Millisecond):
	}
	w.subscribe(t, streamTokens, "").accept() // on another
	hangUp()
	<-opened
	more.send(&discovery.DiscoveryRequest{})
	more.accept()
}

// What a stream asks for by name is kept as long as it lasts: it is bounded,
// however many requests it comes in.
func TestNamesOfAStreamAreBounded(t *testing.T) {
	t.Parallel()
	names := make([]string, 200_001)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	t.Run("as many as may be in one request", func(t *testing.T) {
		w := start(t)
		c := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: names[1:]})
		for answered := 0; answered < len(names)-1; {
			answered += len(c.accept().GetRemovedResources())
		}
		c.change(names[1:2], nil) // again
		c.gets(nil, names[1:2])
	})
	t.Run("too many in one request", func(t *testing.T) {
		w := start(t)
		c := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: names})
		if got := c.end(); got.Code() != codes.ResourceExhausted {
			t.Errorf("the stream ended with %v, want RESOURCE_EXHAUSTED", got)
		}
	})
	t.Run("subscribed to everything, and taken back", func(t *testing.T) {
		w := start(t)
		c := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"*"}})
		for some := range slices.Chunk(names, 50_000) { // while the first answer is in flight
			c.change(some, nil)
			c.change(nil, some)
		}
		if got := c.end(); got.Code() != codes.ResourceExhausted {
			t.Errorf("the stream ended with %v, want RESOURCE_EXHAUSTED", got)
		}
	})
	t.Run("too long in several", func(t *testing.T) {
		w := start(t)
		c := w.delta(t)
		c.accept()
		for i := range 60 { // of 1 MB
			c.change([]string{fmt.Sprint(strings.Repeat("0", 1_000_000), i)}, nil)
		}
		if got := c.end(); got.Code() != codes.ResourceExhausted {
			t.Errorf("the stream ended with %v, want RESOURCE_EXHAUSTED", got)
		}
	})
	t.Run("held, and so not asked for", func(t *testing.T) {
		w := start(t, func(c *xds.Config) { c.MaxReceive = 16 << 20 })
		held := map[string]string{}
		for i := range 250_000 {
			held[fmt.Sprint(i)] = "1"
		}
		c := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{InitialResourceVersions: held})
		c.change([]string{"*", "asked for"}, nil)
		for removed := 0; removed < len(held)+1; {
			removed += len(c.accept().GetRemovedResources())
		}
	})
	t.Run("too many in a state-of-the-world request", func(t *testing.T) {
		w := start(t)
		w.subscribe(t, aggregated, "", names[1:]...).accept()
		if got := w.subscribe(t, aggregated, "", names...).end(); got.Code() != codes.ResourceExhausted {
			t.Errorf("the stream ended with %v, want RESOURCE_EXHAUSTED", got)
		}
	})
	t.Run("too many in several", func(t *testing.T) {
		w := start(t)
		c := w.delta(t)
		c.accept()
		for some := range slices.Chunk(names, 50_000) {
			c.change(some, nil)
		}
		if got := c.end(); got.Code() != codes.ResourceExhausted {
			t.Errorf("the stream ended with %v, want RESOURCE_EXHAUSTED", got)
		}
	})
}
