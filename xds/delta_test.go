package xds_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"revocation-adapter/revocation"
	"revocation-adapter/xds"
)

// risingDelta is rising for incremental responses.
func risingDelta(t *testing.T, all []*discovery.DeltaDiscoveryResponse, head uint64) {
	t.Helper()
	previous := uint64(0)
	for i, resp := range all {
		if n := len(resp.GetResources()) + len(resp.GetRemovedResources()); n > mostTokens {
			t.Errorf("response %d has %d names", i, n)
		}
		if n := proto.Size(resp); n >= tooLarge {
			t.Errorf("response %d has %d bytes", i, n)
		}
		version := number(t, resp.GetSystemVersionInfo())
		if version <= previous {
			t.Errorf("response %d is at version %d after %d", i, version, previous)
		}
		previous = version
	}
	if previous != head {
		t.Errorf("the set ends at version %d, want %d", previous, head)
	}
}

func TestDeltaNewStreamGetsTheWholeSetInChunks(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		tokens []string
		fewest int // responses
	}{
		{"nothing", nil, 1},
		{"one token", uuids(1, 1), 1},
		{"40,000 tokens", fortyThousand(), 3},
		{"2,000 tokens of 2,000 bytes", long(1, 2_000), 4},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := start(t)
			head := w.revoke(c.tokens...)
			client := w.delta(t)
			all := client.follow(head)
			risingDelta(t, all, head)
			if len(all) < c.fewest || len(all) > c.fewest+2 {
				t.Errorf("%d responses, want %d", len(all), c.fewest)
			}
			same(t, client.held, w.truth())
		})
	}
}

func TestDeltaTellsOfChangesAndRemovals(t *testing.T) {
	t.Parallel()
	w := start(t)
	c := w.delta(t)
	c.follow(w.revoke("a", "b", "c"))
	w.revoke("d")
	c.gets([]string{"d"}, nil)
	w.approve("a", "c")
	c.gets(nil, []string{"a", "c"})
	w.put(revoked("a", later), approved("b"), revoked("e", later), approved("e"))
	c.gets([]string{"a"}, []string{"b", "e"})
	same(t, c.held, w.truth())
}

func TestDeltaCoalescesWhatHappensWhileAResponseIsInFlight(t *testing.T) {
	t.Parallel()
	w := start(t)
	c, witness := w.delta(t), w.witness(t)
	first := c.next()
	for i := range 500 {
		w.revoke(fmt.Sprint(i % 10))
	}
	witness.follow(w.approve("3"))
	c.ack(first)
	c.gets([]string{"0", "1", "2", "4", "5", "6", "7", "8", "9"}, []string{"3"})
}

// Gateways forget a token by themselves once its expiry and the grace are over.
func TestDeltaResourcesLiveAsLongAsTheyCount(t *testing.T) {
	t.Parallel()
	hour := revoked("an hour", origin.Add(time.Hour))
	past := revoked("within the grace", origin.Add(-grace/2))
	forever := revoked("for ever", later)
	forever.Expiry, forever.Lifetime = revocation.Never, revocation.Forever
	unknown := revoked("unknown", origin.Add(90*24*time.Hour))
	unknown.Lifetime = revocation.Unknown
	gone := revoked("gone", origin.Add(-grace))
	want := map[string]time.Duration{
		"an hour": time.Hour + grace, "within the grace": grace / 2, "for ever": -1,
		"unknown": 90*24*time.Hour + grace,
	}
	cases := []struct {
		name  string
		later time.Duration // when the client comes
	}{
		{"at once", 0},
		{"half a minute later", 30 * time.Second}, // no version came meanwhile
	}
	w := start(t)
	w.put(hour, past, forever, unknown, gone)
	for _, c := range cases {
		w.clock.move(c.later)
		for _, how := range []struct {
			name  string
			names []string
		}{{"everything", nil}, {"by name", slices.Collect(maps.Keys(want))}} {
			t.Run(c.name+", "+how.name, func(t *testing.T) {
				client := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: how.names})
				got := map[string]time.Duration{}
				for _, r := range client.accept().GetResources() {
					got[r.GetName()] = -1
					if r.GetTtl() != nil {
						got[r.GetName()] = (r.GetTtl().AsDuration() + c.later).Round(time.Second)
					}
				}
				if !maps.Equal(got, want) {
					t.Errorf("time to live %v, want %v", got, want)
				}
				if client.held["for ever"] != revocation.Never {
					t.Errorf("for ever is served as %d", client.held["for ever"])
				}
			})
		}
	}
}

func TestNonceOfAFormerDeltaStreamMeansNothing(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.revoke("a")
	c := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{ResponseNonce: "1", ErrorDetail: refusal("of the former stream")})
	c.gets([]string{"a"}, nil)
	if refusals := w.lines(refusalLine); len(refusals) != 0 {
		t.Errorf("a refusal is logged: %v", refusals[0].Data)
	}
}

// Nonces of incremental requests are not compared by go-control-plane.
func TestOnlyTheCurrentNonceIsAnAnswer(t *testing.T) {
	t.Parallel()
	w := start(t)
	c, witness := w.delta(t), w.witness(t)
	c.accept()
	w.revoke("a")
	inFlight := c.next()
	for _, nonce := range []string{"", "1", "3", "x"} { // late, early, none of ours
		c.send(&discovery.DeltaDiscoveryRequest{ResponseNonce: nonce})
		c.send(&discovery.DeltaDiscoveryRequest{ResponseNonce: nonce, ErrorDetail: refusal("of another")})
		witness.follow(w.revoke("b" + nonce))
	}
	c.quiet(50 * time.Millisecond)
	c.ack(inFlight)
	if resp := c.accept(); resp.GetNonce() != "3" || len(resp.GetResources()) != 4 {
		t.Errorf("got %v, want four tokens with nonce 3", resp)
	}
	for range 5 { // the same ACK again
		c.send(&discovery.DeltaDiscoveryRequest{ResponseNonce: "3"})
		c.send(&discovery.DeltaDiscoveryRequest{ResponseNonce: "2", ErrorDetail: refusal("too late")})
	}
	c.quiet(50 * time.Millisecond)
	w.revoke("c")
	if resp := c.accept(); resp.GetNonce() != "4" || !slices.Equal(names(resp), []string{"c"}) {
		t.Errorf("got %v, want c with nonce 4", resp)
	}
	if refusals := w.lines(refusalLine); len(refusals) != 0 {
		t.Errorf("%d refusals logged", len(refusals))
	}
}

func TestSubscriptionChangesWhileAResponseIsInFlight(t *testing.T) {
	t.Parallel()
	w := startWith(t, "a", "b", "c")
	c := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"a"}})
	inFlight := c.next()
	c.change([]string{"b", "unknown"}, nil)
	c.change([]string{"c"}, []string{"b"})
	c.quiet(50 * time.Millisecond)
	c.ack(inFlight)
	c.gets([]string{"c"}, []string{"unknown"})
}

// A refusal of what a wildcard was told falls back to what was ACKed.
func TestDeltaFallsBackToWhatWasACKed(t *testing.T) {
	t.Parallel()
	w := start(t)
	c := w.delta(t)
	c.follow(w.revoke("a", "b"))
	for i := range 3 {
		w.put(revoked("c", later), approved("a"))
		c.nack(c.next())
		w.refusals(i + 1)
		w.clock.move(time.Minute)
	}
	c.gets([]string{"c"}, []string{"a"})
	same(t, c.held, w.truth())
}

// A request larger than the limit ends the stream; the limit is a setting.
func TestLargestRequestIsASetting(t *testing.T) {
	t.Parallel()
	versions := map[string]string{}
	for _, name := range uuids(1, 1000) {
		versions[name] = "1"
	}
	for _, c := range []struct {
		limit int
		fits  bool
	}{{40_000, false}, {80_000, true}} {
		t.Run(fmt.Sprint(c.limit), func(t *testing.T) {
			w := start(t, func(cfg *xds.Config) { cfg.MaxReceive = c.limit })
			client := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{InitialResourceVersions: versions})
			if resp, err := client.get(); (err == nil) != c.fits {
				t.Errorf("got %d removed names, %v", len(resp.GetRemovedResources()), err)
			}
		})
	}
}

// Go-control-plane cancels a watch twice, and closes the channel of answers
// when a stream ends, at any moment of a publication: while the watch waits for
// its turn, and while its answer is made.
func TestStreamsThatEndDuringPublications(t *testing.T) {
	t.Parallel()
	t.Run("before their turn", func(t *testing.T) {
		w := start(t)
		for range 3 { // whose turn takes long
			follows(t, w.subscribe(t, streamTokens, "", append(uuids(1, 5_000), "x")...))
		}
		endDuringPublications(t, w, []string{"*", "x"}, "x", "y")
	})
	t.Run("in their turn", func(t *testing.T) { // which takes long
		endDuringPublications(t, start(t), []string{"x"}, append(uuids(1, 5_000), "x")...)
	})
}

// follows lets a client ACK whatever comes until the test ends.
func follows(t *testing.T, c *sotwClient) {
	t.Helper()
	c.accept()
	var group sync.WaitGroup
	group.Go(func() {
		for resp, err := c.get(); err == nil; resp, err = c.get() {
			c.ack(resp)
		}
	})
	t.Cleanup(group.Wait)
}

// endDuringPublications publishes changes without end, to streams that each end
// at a time of their own.
func endDuringPublications(t *testing.T, w *world, subscribe []string, changes ...string) {
	t.Helper()
	ctx, done := context.WithCancel(t.Context())
	var publisher sync.WaitGroup
	publisher.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			w.revoke(changes...)
			<-tick.C
		}
	})
	conn := w.dial()
	for range 10 {
		endStreams(ctx, t, conn, subscribe)
	}
	done()
	publisher.Wait()
	w.delta(t).follow(w.revoke("still served"))
}

// endStreams opens streams that ACK whatever comes until they end.
func endStreams(ctx context.Context, t *testing.T, conn grpc.ClientConnInterface, subscribe []string) {
	t.Helper()
	var group sync.WaitGroup
	for i := range 25 {
		ctx, cancel := context.WithCancel(ctx)
		c := deltaOn(ctx, t, conn)
		c.send(&discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: subscribe})
		end := time.AfterFunc(time.Duration(10+3*i)*time.Millisecond, cancel)
		defer end.Stop()
		group.Go(func() {
			for resp, err := c.get(); err == nil; resp, err = c.get() {
				c.ack(resp)
			}
		})
	}
	group.Wait()
}
