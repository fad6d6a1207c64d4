package xds_test

import (
	"context"
	"maps"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// deltaModel is a random incremental client.
type deltaModel struct {
	*model
	client   *deltaClient
	held     map[string]int64
	versions map[string]string
	unasked  map[string]bool // subscribed to and not answered
	pending  *discovery.DeltaDiscoveryResponse

	again func() // opens another stream
}

// connect opens a stream and says what is held.
func (m *deltaModel) connect(t *testing.T) {
	t.Helper()
	var ctx context.Context
	ctx, m.hangUp = context.WithCancel(t.Context())
	if m.rng.IntN(3) == 0 {
		m.choose()
	}
	m.begin(t, deltaOn(ctx, t, m.conn))
}

// begin sends the first request on a stream. What tenants that are asked for no
// longer have, nobody takes back: the client forgets it.
func (m *deltaModel) begin(t *testing.T, client *deltaClient) {
	t.Helper()
	m.client, m.pending, m.unasked = client, nil, map[string]bool{}
	for name := range m.held {
		if !m.wants(name) {
			m.forget(name)
		}
	}
	for name := range m.names {
		if m.versions[name] == "" {
			m.unasked[name] = true
		}
	}
	m.note("connect, %v, tenants %q, holding %v", m.subscription(), m.tenants, m.versions)
	m.client.send(&discovery.DeltaDiscoveryRequest{
		TypeUrl: m.url, Node: nodeOf(t.Name(), m.tenants...), ResourceNamesSubscribe: m.subscription(), InitialResourceVersions: maps.Clone(m.versions),
	})
}

// step does one thing at random.
func (m *deltaModel) step(t *testing.T) {
	t.Helper()
	switch n := m.rng.IntN(20); {
	case n == 0:
		m.hangUp()
		m.again()
	case n < 4: // changes the subscription, and says nothing of the response
		m.request(&discovery.DeltaDiscoveryRequest{})
	case n == 4:
		m.request(&discovery.DeltaDiscoveryRequest{ResponseNonce: "0", ErrorDetail: refusal("of none")})
	case m.pending == nil:
		m.receive(t, 2*time.Millisecond)
	case n < 8:
		m.note("NACK %s", m.pending.GetNonce())
		req := &discovery.DeltaDiscoveryRequest{ResponseNonce: m.pending.GetNonce(), ErrorDetail: refusal("by chance")}
		m.pending = nil
		m.request(req)
	default:
		m.accept(t, n < 14)
	}
}

func (m *deltaModel) receive(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case resp, ok := <-m.client.all:
		if !ok {
			m.fail(t, "the stream ended: %v", m.client.err)
			m.again()
			return
		}
		m.note("response %s at %s: %v, removed %v", resp.GetNonce(), resp.GetSystemVersionInfo(), names(resp), resp.GetRemovedResources())
		m.pending = resp
	case <-time.After(d):
	}
}

// request sends a request, perhaps with a change of the subscription.
func (m *deltaModel) request(req *discovery.DeltaDiscoveryRequest) {
	if m.rng.IntN(2) == 0 {
		req.ResourceNamesSubscribe, req.ResourceNamesUnsubscribe = m.toggle()
		m.note("subscribe %v, unsubscribe %v", req.GetResourceNamesSubscribe(), req.GetResourceNamesUnsubscribe())
	}
	for _, name := range req.GetResourceNamesSubscribe() {
		if name != "*" {
			m.unasked[name] = true
		}
	}
	// What is given up by name is forgotten, under a wildcard too: the server
	// must say what became of it.
	for _, name := range req.GetResourceNamesUnsubscribe() {
		m.forget(name)
	}
	for name := range m.held {
		if !m.wants(name) {
			m.forget(name)
		}
	}
	m.client.send(req)
}

func (m *deltaModel) forget(name string) {
	delete(m.held, name)
	delete(m.versions, name)
	delete(m.unasked, name)
}

// accept ACKs the pending response.
func (m *deltaModel) accept(t *testing.T, change bool) {
	t.Helper()
	resp := m.pending
	m.pending = nil
	m.note("ACK %s", resp.GetNonce())
	for _, r := range resp.GetResources() {
		if name := r.GetName(); m.wants(name) {
			_, m.held[name] = entryOf(t, r.GetResource())
			m.versions[name] = r.GetVersion()
		}
		delete(m.unasked, r.GetName())
	}
	for _, name := range resp.GetRemovedResources() {
		m.forget(name)
	}
	req := &discovery.DeltaDiscoveryRequest{ResponseNonce: resp.GetNonce()}
	if change {
		m.request(req)
	} else {
		m.client.send(req)
	}
}

// settle accepts everything until the client holds the truth.
func (m *deltaModel) settle(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(within); ; {
		if m.pending == nil && len(m.unasked) == 0 && maps.Equal(m.held, m.expected()) {
			return
		}
		if time.Now().After(deadline) {
			m.fail(t, "holds %v\nwant  %v\nnot answered: %v", m.held, m.expected(), m.unasked)
			return
		}
		if m.pending == nil {
			m.receive(t, 100*time.Millisecond)
		} else {
			m.accept(t, false)
		}
	}
}

func TestRandomDeltaClientsEndWithTheTruth(t *testing.T) {
	t.Parallel()
	randomly(t, func(base *model) (step, settle func()) {
		m := &deltaModel{model: base, held: map[string]int64{}, versions: map[string]string{}}
		m.again = func() { m.connect(t) }
		m.again()
		return func() { m.step(t) }, func() { m.settle(t) }
	})
}
