package messaging_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// streamDir is where an embedded hub keeps a stream.
func streamDir(cfg messaging.Config, stream string) string {
	return filepath.Join(cfg.Embedded.Store, "jetstream", "HUB", "streams", stream)
}

// A process that is killed, or a disk that is full, between making a block and
// its key leaves an empty block. The server would remove the stream for it.
func TestAnEmptyBlockIsRemoved(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	r := prepare(t, cfg)
	r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", "waits"))
	r.store(t, revokedRecord("stored", time.Now().Add(time.Hour)))
	r.close()
	for _, stream := range []string{messaging.IngestStream, messaging.LogStream} {
		fatal(t, os.WriteFile(filepath.Join(streamDir(cfg, stream), "msgs", "77.blk"), nil, 0o600))
		fatal(t, os.WriteFile(filepath.Join(streamDir(cfg, stream), "msgs", "78.blk"), nil, 0o600))
		fatal(t, os.WriteFile(filepath.Join(streamDir(cfg, stream), "msgs", "78.key"), []byte("half"), 0o600))
	}
	again := start(t, cfg)
	again.settle(t)
	if held := again.held(); held["waits"] != revocation.Revoked || held["stored"] != revocation.Revoked {
		t.Errorf("held %v", held)
	}
	if n := len(again.book.find(logrus.WarnLevel, "Empty blocks")); n != 1 {
		t.Errorf("said %d times, want once", n)
	}
}

// A store whose keys are damaged is refused; the server would drop
// what it cannot read. When it is mended, all is there.
func TestADamagedStoreIsKept(t *testing.T) {
	t.Parallel()
	tests := map[string]func(t *testing.T, block, key string){
		"half a key": func(t *testing.T, _, key string) {
			t.Helper()
			whole, err := os.ReadFile(key)
			fatal(t, err)
			fatal(t, os.WriteFile(key, whole[:10], 0o600))
		},
		"a key of the right length that is none": func(t *testing.T, _, key string) {
			t.Helper()
			whole, err := os.ReadFile(key)
			fatal(t, err)
			whole[len(whole)-1] ^= 1
			fatal(t, os.WriteFile(key, whole, 0o600))
		},
		"no key": func(t *testing.T, _, key string) {
			t.Helper()
			fatal(t, os.Remove(key))
		},
	}
	for name, damage := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := embedded(t)
			r := prepare(t, cfg)
			r.storeMany(t, 0, 3)
			r.close()
			blocks, err := filepath.Glob(filepath.Join(streamDir(cfg, messaging.LogStream), "msgs", "*.blk"))
			if err != nil || len(blocks) == 0 {
				t.Fatalf("blocks: %v, %v", blocks, err)
			}
			key := strings.TrimSuffix(blocks[0], ".blk") + ".key"
			whole, err := os.ReadFile(key)
			fatal(t, err)
			damage(t, blocks[0], key)
			_, cfg.Log = newLogbook(t)
			for range 2 { // it must not be lost by trying again
				if hub, err := messaging.Open(t.Context(), cfg); !errors.Is(err, messaging.ErrUnreadable) {
					hub.Close()
					t.Fatalf("opened: %v", err)
				}
			}
			fatal(t, os.WriteFile(key, whole, 0o600))
			again := start(t, cfg)
			if n := len(again.held()); n != 3 {
				t.Errorf("%d are held, want 3", n)
			}
			if _, err := os.Stat(filepath.Join(cfg.Embedded.Store, "jetstream.aside")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("what was set aside: %v", err)
			}
		})
	}
}

// The process may be killed when the server has removed a stream that it could
// not read: the next one finds it set aside.
func TestAStreamThatWasRemovedIsPutBack(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	r := prepare(t, cfg)
	r.storeMany(t, 0, 3)
	r.close()
	aside := filepath.Join(cfg.Embedded.Store, "jetstream.aside", "HUB", "streams")
	fatal(t, os.MkdirAll(aside, 0o700))
	fatal(t, os.Rename(streamDir(cfg, messaging.LogStream), filepath.Join(aside, messaging.LogStream)))
	again := start(t, cfg)
	if n := len(again.held()); n != 3 {
		t.Errorf("%d are held, want 3", n)
	}
}
