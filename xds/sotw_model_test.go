package xds_test

import (
	"context"
	"maps"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// sotwModel is a random state-of-the-world client. It changes its subscription
// at most once between two answers: what changes twice in one flight, the
// server never sees.
type sotwModel struct {
	*model
	client  *sotwClient
	held    map[string]int64
	version string // accepted last
	nonce   string // answered last
	known   int    // answers accepted since everything was asked for
	changed bool   // the subscription, since the last answer
	seen    bool   // that change went with an ACK: the next response knows of it
	pending *discovery.DiscoveryResponse

	again func() // opens another stream
}

// connect opens a stream and claims the version accepted last, if that was of
// everything.
func (m *sotwModel) connect(t *testing.T) {
	t.Helper()
	var ctx context.Context
	ctx, m.hangUp = context.WithCancel(t.Context())
	if m.rng.IntN(3) == 0 { // whatever the version says, it starts whole then
		m.choose()
	}
	m.begin(t, openOn(ctx, t, aggregated, m.conn))
}

// begin sends the first request on a stream.
func (m *sotwModel) begin(t *testing.T, client *sotwClient) {
	t.Helper()
	m.client, m.pending = client, nil
	if m.wild && m.known < 2 {
		m.version = ""
	}
	m.nonce, m.changed, m.seen = "", false, false
	m.note("connect at %q, %v, tenants %q", m.version, m.subscription(), m.tenants)
	m.client.url = m.url
	m.send(&discovery.DiscoveryRequest{Node: nodeOf(t.Name(), m.tenants...)})
}

func (m *sotwModel) send(req *discovery.DiscoveryRequest) {
	m.client.version, m.client.names = m.version, m.subscription()
	m.client.send(req)
}

func (m *sotwModel) step(t *testing.T) {
	t.Helper()
	switch n := m.rng.IntN(20); {
	case n == 0:
		m.hangUp()
		m.again()
	case n < 3 && !m.changed && m.pending == nil && m.nonce != "":
		m.change()
		m.send(&discovery.DiscoveryRequest{ResponseNonce: m.nonce})
	case n == 3:
		m.send(&discovery.DiscoveryRequest{ResponseNonce: "stale", ErrorDetail: refusal("of none")})
	case m.pending == nil:
		m.receive(t, 2*time.Millisecond)
	case n < 8:
		m.note("NACK %s", m.pending.GetNonce())
		m.answer(&discovery.DiscoveryRequest{ErrorDetail: refusal("by chance")}, n < 6)
	default:
		m.accept(t, n < 14)
	}
}

func (m *sotwModel) receive(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case resp, ok := <-m.client.all:
		if !ok {
			m.fail(t, "the stream ended: %v", m.client.err)
			m.again()
			return
		}
		m.note("response %s at %s: %v", resp.GetNonce(), resp.GetVersionInfo(), jtis(t, resp))
		m.pending, m.changed, m.seen = resp, m.changed && !m.seen, false
	case <-time.After(d):
	}
}

// change toggles the subscription and forgets what is no longer in it.
func (m *sotwModel) change() {
	wild := m.wild
	subscribe, unsubscribe := m.toggle()
	m.note("subscribe %v, unsubscribe %v", subscribe, unsubscribe)
	m.changed = true
	if m.wild != wild {
		m.known = 0
	}
	for _, name := range unsubscribe {
		if !m.wild {
			delete(m.held, name)
		}
	}
	// What is of other tenants than those of this stream is kept: the version of
	// the last one says that it is held.
	maps.DeleteFunc(m.held, func(name string, _ int64) bool { return !m.wild && !m.names[name] })
}

// answer answers the pending response.
func (m *sotwModel) answer(req *discovery.DiscoveryRequest, change bool) {
	change = change && !m.changed
	if change {
		m.change()
	}
	m.nonce = m.pending.GetNonce()
	req.ResponseNonce = m.nonce
	m.pending, m.changed, m.seen = nil, change, change
	m.send(req)
}

func (m *sotwModel) accept(t *testing.T, change bool) {
	t.Helper()
	m.note("ACK %s", m.pending.GetNonce())
	for _, r := range m.pending.GetResources() {
		name, stamp := entryOf(t, r)
		if m.wants(name) {
			m.held[name] = stamp
		}
	}
	m.version = m.pending.GetVersionInfo()
	m.known++
	m.answer(&discovery.DiscoveryRequest{}, change)
}

// settle accepts everything until the client holds the truth. What was approved
// it may hold as well.
func (m *sotwModel) settle(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(within); ; {
		if m.pending == nil && m.holds(m.expected()) {
			return
		}
		if time.Now().After(deadline) {
			m.fail(t, "holds %v\nwant  %v", m.held, m.expected())
			return
		}
		if m.pending == nil {
			m.receive(t, 100*time.Millisecond)
		} else {
			m.accept(t, false)
		}
	}
}

func (m *sotwModel) holds(want map[string]int64) bool {
	for name, expiry := range want {
		if m.held[name] != expiry {
			return false
		}
	}
	return true
}

func TestRandomSotwClientsEndWithTheTruth(t *testing.T) {
	t.Parallel()
	randomly(t, func(base *model) (step, settle func()) {
		m := &sotwModel{model: base, held: map[string]int64{}}
		m.wildOnly = true
		m.again = func() { m.connect(t) }
		m.again()
		return func() { m.step(t) }, func() { m.settle(t) }
	})
}
