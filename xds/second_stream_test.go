package xds_test

import (
	"fmt"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
)

// enforcer is a gateway as deployed: it opens another stream on the same
// channel when it has waited too long, and from then on answers whatever comes
// on either stream on the newest.
type enforcer struct {
	t       *testing.T
	conn    *grpc.ClientConn
	newest  *sotwClient
	arrived chan *discovery.DiscoveryResponse
	held    map[string]int64
	version string
	nonce   string
	count   int // responses
}

func newEnforcer(t *testing.T, w *world, version string) *enforcer {
	t.Helper()
	e := &enforcer{
		t: t, conn: w.dial(), arrived: make(chan *discovery.DiscoveryResponse),
		held: map[string]int64{}, version: version,
	}
	e.connect()
	return e
}

// connect opens a stream more. Its first request carries the nonce of the last
// response, whichever stream that was on.
func (e *enforcer) connect() {
	e.t.Helper()
	e.newest = openOn(e.t.Context(), e.t, streamTokens, e.conn)
	all := e.newest.all
	go func() {
		for resp := range all {
			select {
			case e.arrived <- resp:
			case <-e.t.Context().Done():
				return
			}
		}
	}()
	e.say(&discovery.DiscoveryRequest{Node: node("enforcer")})
}

func (e *enforcer) say(req *discovery.DiscoveryRequest) {
	e.t.Helper()
	req.VersionInfo, req.ResponseNonce = e.version, e.nonce
	if err := e.newest.stream.Send(req); err != nil {
		e.t.Fatal(err)
	}
}

// take accepts what comes on any stream, within d; false if nothing did.
func (e *enforcer) take(d time.Duration) bool {
	e.t.Helper()
	select {
	case resp := <-e.arrived:
		e.count++
		for _, token := range tokens(e.t, resp.GetResources()) {
			e.held[token.GetJti()] = token.GetExpirytime()
		}
		e.version, e.nonce = resp.GetVersionInfo(), resp.GetNonce()
		e.say(&discovery.DiscoveryRequest{})
		return true
	case <-time.After(d):
		return false
	}
}

// catchUp takes responses until the enforcer holds a name.
func (e *enforcer) catchUp(name string) {
	e.t.Helper()
	for e.held[name] == 0 {
		if !e.take(within) {
			e.t.Fatalf("%s has not come", name)
		}
	}
}

// spins fails if responses keep coming while nothing changes.
func (e *enforcer) spins() {
	e.t.Helper()
	for n := 0; e.take(150 * time.Millisecond); n++ {
		if n > 10 {
			e.t.Fatal("responses keep coming")
		}
	}
}

func TestSecondStreamOfAnEnforcer(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name  string
		setUp func(t *testing.T, w *world) *enforcer
	}{
		{"the first waits for the head", func(t *testing.T, w *world) *enforcer {
			t.Helper()
			w.hub.Store(1005)
			e := newEnforcer(t, w, "1005")
			e.held = w.truth() // and what another replica has told it
			for i := range 4 {
				e.held[fmt.Sprint("now ", i)] = later.UnixMilli()
			}
			e.connect()
			return e
		}},
		{"the first is in the middle of the set", func(t *testing.T, w *world) *enforcer {
			t.Helper()
			w.revoke(threeChunks()...)
			e := newEnforcer(t, w, "")
			e.take(within)
			e.connect()
			return e
		}},
		{"both begin with the set", func(t *testing.T, w *world) *enforcer {
			t.Helper()
			w.revoke(threeChunks()...)
			e := newEnforcer(t, w, "")
			e.connect()
			return e
		}},
		{"the first is parked", func(t *testing.T, w *world) *enforcer {
			t.Helper()
			e := newEnforcer(t, w, "")
			e.take(within)
			e.connect()
			e.take(within)
			return e
		}},
		{"a third", func(t *testing.T, w *world) *enforcer {
			t.Helper()
			w.revoke(threeChunks()...)
			e := newEnforcer(t, w, "")
			e.take(within)
			e.connect()
			e.take(within)
			e.connect()
			return e
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := start(t)
			w.revoke("before")
			e := c.setUp(t, w)
			const changes = 40
			for i := range changes {
				w.revoke(fmt.Sprint("now ", i))
				if i%3 == 0 { // else it meets several at once
					e.catchUp(fmt.Sprint("now ", i))
				}
			}
			e.catchUp(fmt.Sprint("now ", changes-1))
			e.spins()
			same(t, e.held, w.truth())
			if e.count > 2*changes+20 {
				t.Errorf("%d responses for %d changes", e.count, changes)
			}
			if refusals := w.lines(refusalLine); len(refusals) != 0 {
				t.Errorf("%d refusals logged", len(refusals))
			}
		})
	}
}

// The nonces of both streams are 1: the ACK of the one must not lose what the
// other has in flight.
func TestACKOfAnotherStreamWithTheSameNonce(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.revoke("a", "b")
	witness := w.witness(t)
	first, second := w.subscribe(t, streamTokens, ""), w.subscribe(t, streamTokens, "1001")
	early := first.next()
	late := second.next()
	if early.GetNonce() != late.GetNonce() {
		t.Fatalf("nonces %s and %s", early.GetNonce(), late.GetNonce())
	}
	witness.follow(w.revoke("c"))
	second.version = "1000" // of a response on the first stream, with the same nonce
	second.send(&discovery.DiscoveryRequest{ResponseNonce: early.GetNonce()})
	second.gets("a", "b", "c")
	second.take(late)
	w.revoke("d")
	second.gets("d")
	same(t, second.held, w.truth())
}
