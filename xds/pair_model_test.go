package xds_test

import (
	"context"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"revocation-adapter/xds"
)

// Two random clients on one stream, one of tokens and one of rules: neither is to
// notice the other.

// split is read for a stream that carries two types. It has room for more than
// ever comes unanswered.
func split[T interface{ GetTypeUrl() string }](ctx context.Context, t *testing.T, receive func() (T, error)) map[string]*inbox[T] {
	t.Helper()
	by := map[string]*inbox[T]{}
	for _, url := range []string{xds.TypeURL, xds.RuleTypeURL} {
		by[url] = &inbox[T]{t: t, all: make(chan T, 1000)}
	}
	go func() {
		for {
			next, err := receive()
			if err != nil || ctx.Err() != nil {
				for _, in := range by {
					in.err = err
					close(in.all)
				}
				return
			}
			by[next.GetTypeUrl()].all <- next
		}
	}()
	return by
}

// twin is a model of the other type than base, on the same connection and for
// the same tenants.
func (m *model) twin(seed uint64) *model {
	other := newModel(m.w, m.conn, seed)
	for other.url == m.url {
		seed++
		other = newModel(m.w, m.conn, seed)
	}
	other.tenants = m.tenants
	return other
}

// either steps one of two.
func either(base *model, first, second func()) func() {
	return func() {
		if base.rng.IntN(2) == 0 {
			first()
		} else {
			second()
		}
	}
}

func TestRandomSotwClientsOfTokensAndRulesOnOneStream(t *testing.T) {
	t.Parallel()
	randomly(t, func(base *model) (step, settle func()) {
		pair := [2]*sotwModel{}
		for i, m := range []*model{base, base.twin(100)} {
			m.wildOnly = true
			pair[i] = &sotwModel{model: m, held: map[string]int64{}}
		}
		connect := func() {
			var ctx context.Context
			ctx, base.hangUp = context.WithCancel(t.Context())
			client := rawOn(ctx, t, base)
			in := split(ctx, t, client.Recv)
			base.choose()
			for _, m := range pair {
				m.tenants, m.hangUp = base.tenants, base.hangUp
				m.begin(t, &sotwClient{inbox: in[m.url], stream: client, url: m.url, held: map[string]int64{}})
			}
		}
		pair[0].again, pair[1].again = connect, connect
		connect()
		return either(base, func() { pair[0].step(t) }, func() { pair[1].step(t) }),
			func() { pair[0].settle(t); pair[1].settle(t) }
	})
}

func rawOn(ctx context.Context, t *testing.T, m *model) sotwStream {
	t.Helper()
	stream, err := aggregated.open(ctx, m.conn)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func TestRandomDeltaClientsOfTokensAndRulesOnOneStream(t *testing.T) {
	t.Parallel()
	randomly(t, func(base *model) (step, settle func()) {
		pair := [2]*deltaModel{}
		for i, m := range []*model{base, base.twin(100)} {
			pair[i] = &deltaModel{model: m, held: map[string]int64{}, versions: map[string]string{}}
		}
		connect := func() {
			var ctx context.Context
			ctx, base.hangUp = context.WithCancel(t.Context())
			str, err := discovery.NewAggregatedDiscoveryServiceClient(base.conn).DeltaAggregatedResources(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			in := split(ctx, t, str.Recv)
			base.choose()
			for _, m := range pair {
				m.tenants, m.hangUp = base.tenants, base.hangUp
				m.begin(t, &deltaClient{
					inbox: in[m.url], stream: str, url: m.url, held: map[string]int64{}, versions: map[string]string{},
				})
			}
		}
		pair[0].again, pair[1].again = connect, connect
		connect()
		return either(base, func() { pair[0].step(t) }, func() { pair[1].step(t) }),
			func() { pair[0].settle(t); pair[1].settle(t) }
	})
}
