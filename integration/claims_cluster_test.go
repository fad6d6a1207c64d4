package integration_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"revocation-adapter/messaging"
)

// TestClaimedOnceOnACluster: the server that decides about claims is killed in their
// middle, or stands still and wakes up as one that was deposed.
func TestClaimedOnceOnACluster(t *testing.T) {
	t.Parallel() // it waits for elections
	h := startHub(t)
	one, two := adapterOf(t, h.as("operator")), adapterOf(t, h.as("operator"))
	for _, a := range []*adapter{one, two} {
		a.start(t)
		a.awaitReady(t)
	}
	operator, _ := h.connect(t, "operator", nats.MaxReconnects(-1), nats.PingInterval(time.Second), nats.MaxPingsOutstanding(1))
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	var all []string
	for name, fault := range map[string]func(node int){
		"killed": func(node int) {
			must(t, h.Kill(node))
			must(t, h.Restart(ctx, node))
		},
		"paused": func(node int) {
			must(t, h.Pause(node))
			eventually(t, "another one leads", func() bool { return h.leader(ctx, operator) != node })
			must(t, h.Resume(node))
		},
	} {
		var tokens []string
		for i := range 60 {
			tokens = append(tokens, fmt.Sprint(name, "-", i))
		}
		began := time.Now()
		won := contendFor(t, tokens, 16, one, two, func() {
			node := -1
			eventually(t, "somebody leads", func() bool {
				node = h.leader(ctx, operator)
				return node >= 0
			})
			fault(node)
		})
		t.Logf("%s: all claims are answered after %s", name, time.Since(began))
		for _, claim := range won {
			if got := claimAt(t, two, claim); got != granted {
				t.Errorf("%s, granted and repeated, is %s", claim.GetJti(), got)
			}
		}
		all = append(all, tokens...)
	}
	connectGateway(t, one, delta, "").awaits(t, all...)
}

// leader is the node that leads the log; -1: nobody says so.
func (h *hubCluster) leader(ctx context.Context, operator *nats.Conn) int {
	js, err := jetstream.New(operator)
	if err != nil {
		return -1
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	s, err := js.Stream(ctx, messaging.LogStream)
	if err != nil {
		return -1
	}
	for node := range h.URLs() {
		if h.Name(node) == s.CachedInfo().Cluster.Leader {
			return node
		}
	}
	return -1
}
