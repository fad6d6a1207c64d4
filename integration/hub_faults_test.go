package integration_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/sirupsen/logrus"

	"revocation-adapter/messaging"
)

// replaceServer takes away the store of the server that hands out the events:
// meanwhile publishers try again, and it comes back with what the others have. The
// adapter asks the next one for events without being told.
func (r roles) replaceServer(t *testing.T, operator *nats.Conn) {
	publisher, _ := r.hub.connect(t, "publisher", nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	r.settle(t, operator)
	before, node := contents(t, operator), r.hub.dispatcher(t, operator)
	must(t, r.hub.Kill(node))
	eventually(t, "an event is stored without it", func() bool { return stored(publisher, "without-one") })
	began := time.Now()
	r.gateway.awaits(t, "without-one")
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the event arrives %s after it was stored", took)
	}
	must(t, os.RemoveAll(filepath.Join(r.hub.dir, r.hub.Name(node))))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, r.hub.Restart(ctx, node))
	r.settle(t, operator)
	if after := contents(t, operator); len(after) != len(before)+1 {
		t.Errorf("the streams were\n%v\nand are\n%v", before, after)
	}
}

// leaveServer pauses the server that an adapter is connected to: the connection
// stays open, and nobody answers on it.
func (r roles) leaveServer(t *testing.T) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	hub, err := messaging.Open(t.Context(), messaging.Config{
		External: r.hub.as("operator"), Log: log, Now: time.Now,
		Limits: messaging.Limits{MaxPending: 1_000_000, MaxPendingBytes: 1 << 30},
	})
	must(t, err)
	defer hub.Close()
	first := hub.Address()
	node := slices.Index(r.hub.urls(), first)
	must(t, r.hub.Pause(node))
	defer func() { must(t, r.hub.Resume(node)) }()
	began := time.Now()
	eventually(t, "another server is tried", func() bool { return hub.Connected() && hub.Address() != first })
	t.Logf("the server is left after %s", time.Since(began))
	eventually(t, "the log is read there", func() bool {
		_, err := hub.LastVersion(t.Context())
		return err == nil
	})
}

// stored publishes an event and says whether the hub answers that it has it.
func stored(publisher *nats.Conn, jti string) bool {
	reply, err := publisher.Request("tokenRevocation", []byte(envelope(event(jti, inAnHour()))), time.Second)
	return err == nil && bytes.Contains(reply.Data, []byte(`{"stream":"INGEST"`))
}

// restoreBackup does what docs/hub.md says of a cluster's backup: the stores of
// all servers are copied while they are down and put back later. The adapter says
// that the log went back, and a rebase mends it.
func (r roles) restoreBackup(t *testing.T, operator *nats.Conn) {
	publisher, _ := r.hub.connect(t, "publisher", nats.MaxReconnects(-1))
	r.revokes(t, publisher, "before-the-backup")
	r.settle(t, operator)
	backup := t.TempDir()
	r.hub.whileDown(t, func(store string) error {
		return os.CopyFS(filepath.Join(backup, filepath.Base(store)), os.DirFS(store))
	})
	r.revokes(t, publisher, "after-the-backup")
	r.settle(t, operator)
	r.hub.whileDown(t, func(store string) error {
		if err := os.RemoveAll(store); err != nil {
			return err
		}
		return os.CopyFS(store, os.DirFS(filepath.Join(backup, filepath.Base(store))))
	})
	eventually(t, "it says that the log went back", func() bool {
		code, body := r.adapter.get(t, "/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "the hub's log went back")
	})
	if code, out, errOut := r.adapter.run(t, "hub", "rebase", "--yes"); code != 0 {
		t.Fatalf("rebase: exit %d, %s%s", code, out, errOut)
	}
	r.adapter.awaitReady(t)
	r.revokes(t, publisher, "after-the-rebase")
	late := connectGateway(t, r.adapter, rtds, "")
	late.awaits(t, "before-the-backup", "after-the-rebase")
	if late.holds("after-the-backup") {
		t.Error("what came after the backup is there")
	}
}

// revokes publishes until it is answered, as a publisher must who needs certainty.
func (r roles) revokes(t *testing.T, publisher *nats.Conn, jti string) {
	t.Helper()
	eventually(t, jti+" is stored", func() bool { return stored(publisher, jti) })
	r.gateway.awaits(t, jti)
}

// whileDown kills every server, does something to each store and starts them
// again.
func (h *hubCluster) whileDown(t *testing.T, do func(store string) error) {
	t.Helper()
	for node := range h.URLs() {
		must(t, h.Kill(node))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var starting sync.WaitGroup
	for node := range h.URLs() {
		must(t, do(filepath.Join(h.dir, h.Name(node))))
		starting.Go(func() {
			if err := h.Restart(ctx, node); err != nil {
				t.Error(err)
			}
		})
	}
	starting.Wait()
}
