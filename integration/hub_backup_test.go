package integration_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
)

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
