package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// acknowledged publishes events one after another, as fast as they are stored,
// until ctx ends, and returns those that were.
func (a *adapter) acknowledged(ctx context.Context, name string, count *atomic.Int64) []string {
	var stored []string
	for ctx.Err() == nil {
		conn, err := nats.Connect("nats://"+a.hub, nats.NoReconnect())
		if err != nil {
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		for i := 0; ctx.Err() == nil; i++ {
			jti := fmt.Sprintf("%s-%d-%d", name, time.Now().UnixNano(), i)
			reply, err := conn.RequestWithContext(ctx, "tokenRevocation", []byte(envelope(event(jti, inAnHour()))))
			var ack struct{ Seq uint64 }
			if err != nil || json.Unmarshal(reply.Data, &ack) != nil || ack.Seq == 0 {
				break // not stored for certain
			}
			stored = append(stored, jti)
			count.Add(1)
		}
		conn.Close()
	}
	return stored
}

// Killed at any moment, again and again, under load: what was acknowledged is
// there, and no version is lower than one before.
func TestKilledAtAnyMoment(t *testing.T) {
	a := startAdapter(t)
	g := connectGateway(t, a, rtds, "")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var mu sync.Mutex
	var stored []string
	var count atomic.Int64
	var publishers sync.WaitGroup
	for i := range 4 {
		publishers.Go(func() {
			mine := a.acknowledged(ctx, fmt.Sprint("p", i), &count)
			mu.Lock()
			stored = append(stored, mine...)
			mu.Unlock()
		})
	}
	last := uint64(0)
	for range 6 {
		enough := count.Load() + 20
		eventually(t, "some are acknowledged", func() bool { return count.Load() >= enough })
		time.Sleep(time.Duration(100+rand.N(400)) * time.Millisecond) //nolint:forbidigo // killed at any moment
		a.signal(t, syscall.SIGKILL)
		a.start(t)
		a.awaitReady(t)
		if v := a.version(t); v < last {
			t.Errorf("version %d after %d", v, last)
		} else {
			last = v
		}
	}
	stop()
	publishers.Wait()
	t.Logf("%d acknowledged", len(stored))
	if len(stored) < 100 {
		t.Errorf("only %d were acknowledged", len(stored))
	}
	g.awaits(t, stored...)
	connectGateway(t, a, delta, "").awaits(t, stored...)
}

func (a *adapter) version(t *testing.T) uint64 {
	t.Helper()
	_, body := a.get(t, "/readyz")
	var s struct{ Version uint64 }
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatal(err)
	}
	return s.Version
}

// A backup of the store was restored: the adapter refuses to serve it until it
// is rebased, and then every gateway converges by itself.
func TestRestoredBackup(t *testing.T) {
	a := startAdapter(t)
	g := connectGateway(t, a, delta, "")
	a.publish(t, event("before-1", inAnHour()))
	a.publish(t, event("before-2", inAnHour()))
	g.awaits(t, "before-1", "before-2")
	a.stop(t)
	store, backup := filepath.Join(a.dir, "hub"), filepath.Join(a.dir, "backup")
	if err := os.CopyFS(backup, os.DirFS(store)); err != nil {
		t.Fatal(err)
	}
	a.start(t)
	a.awaitReady(t)
	a.publish(t, event("since", inAnHour()))
	g.awaits(t, "since")
	reached := a.version(t)
	a.stop(t)
	if err := os.RemoveAll(store); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(backup, store); err != nil {
		t.Fatal(err)
	}
	a.start(t)
	eventually(t, "it says that the log went back", func() bool {
		code, body := a.get(t, "/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "went back") && strings.Contains(body, "adapter hub rebase")
	})
	if code, _, errOut := a.run(t, "hub", "rebase"); code != 2 || !strings.Contains(errOut, "--yes") {
		t.Errorf("without --yes: %d %s", code, errOut)
	}
	code, out, errOut := a.run(t, "hub", "rebase", "--yes")
	if code != 0 || !strings.Contains(out, "2 records") {
		t.Fatalf("rebase: %d %s%s", code, out, errOut)
	}
	a.awaitReady(t)
	if v := a.version(t); v <= reached {
		t.Errorf("version %d, not beyond %d", v, reached)
	}
	a.publish(t, event("after", inAnHour()))
	g.awaits(t, "after")
	eventually(t, "the gateway holds what the hub does", func() bool {
		held, _ := g.count()
		return held == 3 && g.holds("before-1") && g.holds("before-2") && g.holds("after")
	})
}
