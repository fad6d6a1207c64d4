package integration_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// One of two replicas is replaced by a build that knows the next record format,
// under load, and then by the old build again: nothing is lost, and both serve
// the same.
func TestUpgradeAndBack(t *testing.T) {
	next := filepath.Join(t.TempDir(), "adapter-next")
	if err := build(next, "-tags", "nextformat"); err != nil {
		t.Fatal(err)
	}
	address := freePort(t)
	startNATS(t, address)
	hub := fmt.Sprintf("mode = \"external\"\nreplicas = 1\nurls = [\"nats://%s\"]\n", address)
	stays, changes := newAdapter(t, map[string]string{"hub": hub}), newAdapter(t, map[string]string{"hub": hub})
	stays.hub, changes.hub = address, address
	stays.start(t)
	stays.awaitReady(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	published := make(chan []string, 1)
	go func() { published <- stays.acknowledged(ctx, "load", new(atomic.Int64)) }()
	g := connectGateway(t, stays, rtds, "")
	for step, binary := range []string{"", next, ""} {
		changes.binary = binary
		changes.start(t)
		changes.awaitReady(t)
		jti := fmt.Sprint("step-", step)
		if code, _, errOut := stays.run(t, "revoke", jti, "--expires-in", "1h"); code != 0 {
			t.Fatal(errOut)
		}
		connectGateway(t, changes, delta, "").awaits(t, jti)
		g.awaits(t, jti)
		if step < 2 {
			changes.stop(t)
		}
	}
	stop()
	stored := <-published
	if len(stored) == 0 {
		t.Error("nothing was published meanwhile")
	}
	g.awaits(t, stored...)
	connectGateway(t, changes, delta, "").awaits(t, stored...)
	eventually(t, "both are at the same version", func() bool { return stays.version(t) == changes.version(t) })
}
