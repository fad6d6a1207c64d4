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

	"google.golang.org/grpc"

	"revocation-adapter/revocation"
	"revocation-adapter/xds"
)

// Random clients against a world that never stands still. Each has a seed; its
// steps are printed if it ends with anything but the truth.

// universe are the names of a type that the models know.
func universe(url string) []string {
	prefix := "jti "
	if url == xds.RuleTypeURL {
		prefix = "azp="
	}
	names := make([]string, 30)
	for i := range names {
		names[i] = fmt.Sprint(prefix, i)
	}
	return names
}

// change revokes, extends or approves what is called name. A third of all is of
// no tenant, a third of each of two.
func change(rng *rand.Rand, name string) revocation.Revocation {
	tenant := []string{"", "a", "b"}[name[len(name)-1]%3]
	n := 1 + rng.Int64N(1000)
	key, isRule := strings.CutPrefix(name, "azp=")
	switch approve := rng.IntN(3) == 0; {
	case isRule && approve:
		return of(tenant, withdrawn("azp="+key))
	case isRule:
		return of(tenant, rule("azp="+key, n))
	case approve:
		return of(tenant, approved(name))
	}
	return of(tenant, revoked(name, later.Add(time.Duration(n)*time.Second)))
}

// churn changes tokens and rules until ctx ends.
func churn(ctx context.Context, w *world, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	names := slices.Concat(universe(xds.TypeURL), universe(xds.RuleTypeURL))
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		w.put(change(rng, names[rng.IntN(len(names))]))
	}
}

// model is a client that does at random what a client may do.
type model struct {
	w     *world
	conn  *grpc.ClientConn
	rng   *rand.Rand
	trace []string
	wild  bool
	names map[string]bool // subscribed to

	url     string
	all     []string // names of that type
	tenants []string // asked for; none: all

	wildOnly bool // beside a wildcard names add nothing

	hangUp context.CancelFunc // of the stream that is open
}

func newModel(w *world, conn *grpc.ClientConn, seed uint64) *model {
	rng := rand.New(rand.NewPCG(seed, 2))
	m := &model{w: w, conn: conn, rng: rng, wild: rng.IntN(2) == 0, url: xds.TypeURL}
	if seed%2 == 1 {
		m.url = xds.RuleTypeURL
	}
	m.all = universe(m.url)
	m.names = map[string]bool{m.all[0]: true}
	m.choose()
	return m
}

// choose asks for other tenants at random, which a new stream may.
func (m *model) choose() {
	m.tenants = [][]string{nil, {"a"}, {"b"}, {"a", "b"}, {"of nothing"}}[m.rng.IntN(5)]
}

func (m *model) note(format string, args ...any) {
	m.trace = append(m.trace, fmt.Sprintf(format, args...))
}

// fail reports what went wrong, and the last steps before.
func (m *model) fail(t *testing.T, format string, args ...any) {
	t.Helper()
	steps := m.trace[max(0, len(m.trace)-40):]
	t.Errorf(format+"\n%s", append(args, strings.Join(steps, "\n"))...)
}

// wants says whether a name is subscribed to: by itself, whosever it is, or with
// all of its tenant.
func (m *model) wants(name string) bool {
	if m.wild && m.w.theirs(name, m.tenants) {
		return true
	}
	return m.names[name] && (!m.wild || !m.wildOnly)
}

// expected is what the client should hold in the end.
func (m *model) expected() map[string]int64 {
	truth := m.w.truth()
	if m.url == xds.RuleTypeURL {
		truth = m.w.ruleTruth()
	}
	maps.DeleteFunc(truth, func(name string, _ int64) bool { return !m.wants(name) })
	return truth
}

// toggle changes the subscription at random and returns what that is as a
// request. It never gives up the last name without a wildcard.
func (m *model) toggle() (subscribe, unsubscribe []string) {
	all := m.all
	for range m.rng.IntN(4) {
		name := all[m.rng.IntN(len(all))]
		if slices.Contains(subscribe, name) || slices.Contains(unsubscribe, name) {
			continue
		}
		if m.names[name] && m.rng.IntN(3) > 0 {
			unsubscribe = append(unsubscribe, name)
			delete(m.names, name)
		} else { // perhaps again
			subscribe = append(subscribe, name)
			m.names[name] = true
		}
	}
	switch {
	case m.rng.IntN(5) > 0:
	case !m.wild:
		m.wild, subscribe = true, append(subscribe, "*")
	case len(m.names) > 0:
		m.wild, unsubscribe = false, append(unsubscribe, "*")
	}
	if !m.wild && len(m.names) == 0 {
		subscribe = append(subscribe, all[0])
		unsubscribe = slices.DeleteFunc(unsubscribe, func(name string) bool { return name == all[0] })
		m.names[all[0]] = true
	}
	return subscribe, unsubscribe
}

// subscription is all that is subscribed to, as a first request says it.
func (m *model) subscription() []string {
	all := slices.Sorted(maps.Keys(m.names))
	if m.wild {
		all = append(all, "*")
	}
	return all
}

// randomly lets 24 clients step through a world of churn, then checks each twice:
// at rest, and after one change more.
func randomly(t *testing.T, join func(base *model) (step, settle func())) {
	t.Helper()
	w := start(t)
	w.clock.rate.Store(1000) // so that back-offs are short
	var (
		steps, settles []func()
		models         []*model
	)
	for seed := range uint64(24) {
		m := newModel(w, w.dial(), seed)
		step, settle := join(m)
		models, steps, settles = append(models, m), append(steps, step), append(settles, settle)
	}
	ctx, stop := context.WithCancel(t.Context())
	var changes, clients sync.WaitGroup
	changes.Go(func() { churn(ctx, w, 99) })
	for _, step := range steps {
		clients.Go(func() {
			for range 500 {
				step()
			}
		})
	}
	clients.Wait()
	stop()
	changes.Wait()
	for range 2 {
		for _, settle := range settles {
			clients.Go(settle)
		}
		clients.Wait()
		rng := rand.New(rand.NewPCG(7, 7))
		for _, name := range slices.Concat(universe(xds.TypeURL)[:6], universe(xds.RuleTypeURL)[:6]) {
			w.put(change(rng, name))
		}
	}
	for _, m := range models {
		m.hangUp()
	}
}
