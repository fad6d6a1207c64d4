package xds_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"

	"revocation-adapter/xds"
)

const refusalLine = "A gateway refuses a version, it will be offered again"

// refuser is a gateway of either protocol that refuses what it gets.
type refuser struct {
	refuse func() (nonce string, resources int, err error) // the next response
	quiet  func(time.Duration)
	accept func() (version string, resources int)
	repeat func() // the last refusal, once more
}

// protocols open refusers of each kind.
var protocols = []struct {
	name string
	open func(t *testing.T, w *world) refuser
}{
	{"StreamTokens", func(t *testing.T, w *world) refuser {
		t.Helper()
		return sotwRefuser(t, w.subscribe(t, streamTokens, ""))
	}},
	{"StreamAggregatedResources", func(t *testing.T, w *world) refuser {
		t.Helper()
		return sotwRefuser(t, w.subscribe(t, aggregated, ""))
	}},
	{"by name", func(t *testing.T, w *world) refuser {
		t.Helper()
		return sotwRefuser(t, w.subscribe(t, streamTokens, "", "a", "b", "c"))
	}},
	{"delta", func(t *testing.T, w *world) refuser {
		t.Helper()
		return deltaRefuser(t, w.delta(t))
	}},
	{"delta by name", func(t *testing.T, w *world) refuser {
		t.Helper()
		return deltaRefuser(t, w.deltaWith(t, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"a", "b", "c"}}))
	}},
}

func sotwRefuser(t *testing.T, c *sotwClient) refuser {
	t.Helper()
	var last *discovery.DiscoveryResponse
	return refuser{
		refuse: func() (string, int, error) {
			resp, err := c.get()
			if err == nil {
				last = resp
				c.nack(resp)
			}
			return resp.GetNonce(), len(resp.GetResources()), err
		},
		quiet: c.quiet,
		accept: func() (string, int) {
			resp := c.accept()
			return resp.GetVersionInfo(), len(resp.GetResources())
		},
		repeat: func() { c.nack(last) },
	}
}

func deltaRefuser(t *testing.T, c *deltaClient) refuser {
	t.Helper()
	var last *discovery.DeltaDiscoveryResponse
	return refuser{
		refuse: func() (string, int, error) {
			resp, err := c.get()
			if err == nil {
				last = resp
				c.nack(resp)
			}
			return resp.GetNonce(), len(resp.GetResources()), err
		},
		quiet: c.quiet,
		accept: func() (string, int) {
			resp := c.accept()
			return resp.GetSystemVersionInfo(), len(resp.GetResources())
		},
		repeat: func() { c.nack(last) },
	}
}

// refusals waits until n refusals are logged.
func (w *world) refusals(n int) {
	w.t.Helper()
	until(w.t, fmt.Sprint(n, " refusals logged"), func() bool { return len(w.lines(refusalLine)) >= n })
}

// A refused version is offered again after a while, whether or not there is a
// newer one: nothing else wakes the stream here.
func TestRefusedVersionIsOfferedAgain(t *testing.T) {
	t.Parallel()
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			w := start(t)
			head := w.revoke("a", "b", "c")
			gateway := p.open(t, w)
			for i := range 3 {
				if _, n, err := gateway.refuse(); n != 3 || err != nil {
					t.Fatalf("offer %d has %d tokens, %v", i, n, err)
				}
				w.refusals(i + 1)
				gateway.quiet(20 * time.Millisecond)
				w.clock.move(time.Minute)
			}
			if version, n := gateway.accept(); n != 3 || version != text(head) {
				t.Errorf("accepted %d tokens at %s, want 3 at %d", n, version, head)
			}
		})
	}
}

// The back-off doubles from 200 ms to 30 s. The clock stands still meanwhile.
func TestBackOffGrows(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.revoke("a", "b", "c")
	var gateways []refuser
	for _, p := range protocols {
		gateways = append(gateways, p.open(t, w))
	}
	for i := range 10 {
		for _, gateway := range gateways {
			if nonce, _, err := gateway.refuse(); err != nil || nonce != fmt.Sprint(i+1) {
				t.Fatalf("offer %d has nonce %s, %v", i, nonce, err)
			}
		}
		w.refusals(len(gateways) * (i + 1))
		w.clock.move(min(30*time.Second, 200*time.Millisecond<<i) - time.Millisecond)
		gateways[i%len(gateways)].quiet(150 * time.Millisecond) // a look of the server's
		w.clock.move(time.Millisecond)
	}
	for _, gateway := range gateways {
		gateway.accept()
	}
}

// New versions do not make it spin: however many there are, the next answer
// comes 100 ms after the refusal, and carries all of them.
func TestNewVersionsDoNotHurryARefusedStream(t *testing.T) {
	t.Parallel()
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			w := start(t)
			w.revoke("a")
			gateway, other := p.open(t, w), w.subscribe(t, streamTokens, "")
			other.accept()
			if _, _, err := gateway.refuse(); err != nil {
				t.Fatal(err)
			}
			w.refusals(1)
			for i := range 50 {
				w.revoke(fmt.Sprint("b", i), "b")
				other.follow(w.revoke("c"))
			}
			w.clock.move(99 * time.Millisecond)
			other.follow(w.revoke("c"))
			gateway.quiet(150 * time.Millisecond)
			w.clock.move(time.Millisecond)
			head := w.revoke("c")
			nonce, n, err := gateway.refuse()
			if err != nil || nonce != "2" || n < 3 {
				t.Errorf("%d tokens with nonce %s, %v; want all with nonce 2", n, nonce, err)
			}
			w.refusals(2)
			w.clock.move(time.Minute)
			if version, _ := gateway.accept(); version != text(head) {
				t.Errorf("accepted version %s, want %d", version, head)
			}
		})
	}
}

// Measured in real time: what a gateway gets that refuses all of it at once.
func TestRefusingGatewayCannotSpin(t *testing.T) {
	t.Parallel()
	const window = time.Second
	cases := []struct {
		name   string
		change bool // versions keep coming
		twice  bool // each refusal is sent twice
		most   int  // responses in the window
	}{
		{"nothing changes", false, false, 4}, // at 0, 200, 600 ms and perhaps at 1,400
		{"versions change", true, false, 12}, // 10 a second
		{"refused twice", false, true, 4},
		{"refused twice, versions change", true, true, 12},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, p := range protocols {
				t.Run(p.name, func(t *testing.T) {
					t.Parallel()
					w := start(t)
					w.clock.rate.Store(1)
					w.revoke("a", "b")
					gateway := p.open(t, w)
					n := countOffers(t, w, gateway, window, c.change, c.twice)
					if n > c.most {
						t.Errorf("%d responses in %v, want at most %d", n, window, c.most)
					}
				})
			}
		})
	}
}

// countOffers refuses everything for as long as window, and returns how much
// there was.
func countOffers(t *testing.T, w *world, gateway refuser, window time.Duration, change, twice bool) (n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), window)
	defer cancel()
	offers := make(chan error)
	go func() {
		defer close(offers)
		for {
			_, _, err := gateway.refuse()
			if twice && err == nil {
				gateway.repeat()
			}
			select {
			case offers <- err:
			case <-t.Context().Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-offers:
			if err != nil {
				t.Fatal(err)
			}
			n++
		case <-tick.C:
			if change {
				w.revoke("a")
			}
		case <-ctx.Done():
			return n
		}
	}
}

func TestRefusedChunkIsNotLost(t *testing.T) {
	t.Parallel()
	all := threeChunks()
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			w := start(t)
			head := w.revoke(all...)
			c := w.subscribe(t, s, "")
			for refused := 1; c.version != text(head); {
				for range 2 {
					c.nack(c.next())
					w.refusals(refused)
					refused++
					w.clock.move(time.Minute)
				}
				c.accept()
			}
			same(t, c.held, w.truth())
		})
	}
	t.Run("delta", func(t *testing.T) {
		w := start(t)
		head := w.revoke(all...)
		c := w.delta(t)
		version := ""
		for refused := 1; version != text(head); {
			for range 2 {
				c.nack(c.next())
				w.refusals(refused)
				refused++
				w.clock.move(time.Minute)
			}
			version = c.accept().GetSystemVersionInfo()
		}
		same(t, c.held, w.truth())
	})
}

// What changes between a refusal and the next offer is in that offer, an
// approval too.
func TestOfferAfterARefusalIsUpToDate(t *testing.T) {
	t.Parallel()
	w := start(t)
	c := w.delta(t)
	c.follow(w.revoke("a", "b"))
	w.revoke("c", "d")
	c.nack(c.next())
	w.refusals(1)
	w.approve("a", "d")
	head := w.revoke("e")
	w.clock.move(time.Minute)
	c.follow(head)
	same(t, c.held, w.truth())
}

func TestRefusalIsLoggedAndCounted(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, protocol string
		refuse         func(t *testing.T, w *world)
	}{
		{"StreamTokens", "sotw", func(t *testing.T, w *world) {
			t.Helper()
			c := w.open(t, streamTokens)
			c.send(&discovery.DiscoveryRequest{Node: node("gateway 7")})
			c.send(&discovery.DiscoveryRequest{ResponseNonce: c.next().GetNonce(), ErrorDetail: refusal("out of memory")})
		}},
		{"delta", "delta", func(t *testing.T, w *world) {
			t.Helper()
			c := deltaOn(t.Context(), t, w.dial())
			c.send(&discovery.DeltaDiscoveryRequest{Node: node("gateway 7")})
			c.send(&discovery.DeltaDiscoveryRequest{ResponseNonce: c.next().GetNonce(), ErrorDetail: refusal("out of memory")})
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := start(t)
			head := w.revoke("a")
			c.refuse(t, w)
			w.refusals(1)
			entry := w.lines(refusalLine)[0]
			want := logrus.Fields{
				"gateway": "gateway 7", "protocol": c.protocol, "type": xds.TypeURL, "version": head,
				"code": int32(codes.InvalidArgument), "reason": "out of memory",
			}
			if entry.Level != logrus.WarnLevel || !maps.Equal(entry.Data, want) {
				t.Errorf("logged %v %v, want a warning with %v", entry.Level, entry.Data, want)
			}
			for _, protocol := range []string{"sotw", "delta"} {
				want := float64(strings.Count(c.protocol, protocol))
				if got := w.metric("revocation_adapter_xds_nacks_total", protocol); got != want {
					t.Errorf("%v refusals of %s counted, want %v", got, protocol, want)
				}
			}
		})
	}
}

// The reason is the gateway's own words: as long as it likes.
func TestReasonOfARefusalIsBounded(t *testing.T) {
	t.Parallel()
	w := start(t)
	c := w.subscribe(t, streamTokens, "")
	c.send(&discovery.DiscoveryRequest{ResponseNonce: c.next().GetNonce(), ErrorDetail: refusal(strings.Repeat("ä", 1<<15))})
	w.refusals(1)
	if n := len(fmt.Sprint(w.lines(refusalLine)[0].Data["reason"])); n > 1000 {
		t.Errorf("%d bytes of it are logged", n)
	}
}

// A receipt is what was ACKed, not what was sent.
func TestRefusedVersionIsNoReceipt(t *testing.T) {
	t.Parallel()
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			w := start(t, func(c *xds.Config) { c.Label = "" })
			c := w.subscribe(t, s, "")
			c.accept() // 1000
			w.revoke("a", "b", "c")
			c.nack(c.next())
			w.refusals(1)
			if lag := w.metric(lagMetric, t.Name()); lag != 3 {
				t.Errorf("the gateway is %v versions behind after a refusal, want 3", lag)
			}
			w.clock.move(time.Minute)
			c.accept()
			until(t, "the gateway has caught up", func() bool { return w.metric(lagMetric, t.Name()) == 0 })
		})
	}
}
