package xds_test

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"revocation-adapter/revocation"
	"revocation-adapter/xds"
)

// gw is a gateway's stream of one type, with its first answer not yet taken.
func (w *world) gw(t *testing.T, name, url, version string, tenants ...string) *sotwClient {
	t.Helper()
	return w.gwOn(t, w.dial(), name, url, version, tenants...)
}

// gwOn is gw on a connection that is there already.
func (w *world) gwOn(t *testing.T, conn grpc.ClientConnInterface, name, url, version string, tenants ...string) *sotwClient {
	t.Helper()
	c := openOn(t.Context(), t, aggregated, conn)
	c.url, c.version = url, version
	c.send(&discovery.DiscoveryRequest{Node: nodeOf(name, tenants...)})
	w.holds(t, name)
	return c
}

// holds waits until a gateway holds a stream.
func (w *world) holds(t *testing.T, name string) {
	t.Helper()
	until(t, name+" holds a stream", func() bool {
		for _, g := range w.server.Gateways() {
			if g.Name == name && len(g.Types) > 0 {
				return true
			}
		}
		return false
	})
}

// deltaGW is gw for the incremental protocol.
func (w *world) deltaGW(t *testing.T, name, url string) *deltaClient {
	t.Helper()
	c := deltaOn(t.Context(), t, w.dial())
	c.url = url
	c.send(&discovery.DeltaDiscoveryRequest{Node: node(name)})
	w.holds(t, name)
	return c
}

// enforcerGW is gw for batches.
func (w *world) enforcerGW(t *testing.T, name string) *sotwClient {
	t.Helper()
	return w.gw(t, name, xds.BatchTypeURL, "")
}

// pass ACKs the next response, whatever it holds.
func pass(c *sotwClient) {
	c.t.Helper()
	resp := c.next()
	c.version = resp.GetVersionInfo()
	c.send(&discovery.DiscoveryRequest{ResponseNonce: resp.GetNonce()})
}

// of a version, tokens that were revoked.
func tokensRevoked(version uint64, tenants ...string) xds.Concern {
	return xds.Concern{Version: version, Parts: []xds.Part{{Series: revocation.Tokens, State: revocation.Revoked, Tenants: tenants}}}
}

func concern(version uint64, parts ...xds.Part) xds.Concern {
	return xds.Concern{Version: version, Parts: parts}
}

func part(s revocation.Series, st revocation.State) xds.Part { return xds.Part{Series: s, State: st} }

// stands is how gateways stand now.
func (w *world) stands(c xds.Concern) xds.Standing {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return w.server.Await(ctx, c)
}

// comes waits until gateways stand as they should.
func (w *world) comes(t *testing.T, c xds.Concern, want xds.Standing) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	until(t, fmt.Sprint("gateways stand ", want), func() bool { return maps.Equal(w.server.Await(ended(ctx), c), want) })
}

// ended is a context that has ended, for how it stands now.
func ended(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}

// awaiting is an Await under way.
func (w *world) awaiting(t *testing.T, c xds.Concern) <-chan xds.Standing {
	t.Helper()
	answer := make(chan xds.Standing, 1)
	ctx, cancel := context.WithTimeout(t.Context(), within)
	go func() {
		defer cancel()
		answer <- w.server.Await(ctx, c)
	}()
	return answer
}

// silent fails if the answer comes.
func silent(t *testing.T, answer <-chan xds.Standing) {
	t.Helper()
	select {
	case standing := <-answer:
		t.Fatalf("the answer comes too early: %v", standing)
	case <-time.After(100 * time.Millisecond):
	}
}

func answered(t *testing.T, answer <-chan xds.Standing, want xds.Standing) {
	t.Helper()
	began := time.Now()
	select {
	case got := <-answer:
		if !maps.Equal(got, want) {
			t.Errorf("gateways stand %v, want %v", got, want)
		}
	case <-time.After(within):
		t.Fatal("the answer does not come")
	}
	if took := time.Since(began); took > within/4 {
		t.Errorf("the answer came after %s: with the end of its time, not with the ACK", took)
	}
}

func was(protocol, kind string, tenants ...string) xds.GatewayStatus {
	return xds.GatewayStatus{Protocols: []string{protocol}, Types: []string{kind}, Tenants: tenants}
}
