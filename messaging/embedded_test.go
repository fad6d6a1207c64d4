package messaging_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

func TestOnlyTheOwnerMayReadTheStore(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", "jti-1"))
	r.settle(t)
	store := r.cfg.Embedded.Store
	for path, want := range map[string]fs.FileMode{
		store: fs.ModeDir | 0o700, filepath.Join(store, "store.key"): 0o600,
		messaging.OperatorKey(store): 0o600, filepath.Join(store, "lock"): 0o600,
		filepath.Join(store, "jetstream"): fs.ModeDir | 0o700,
	} {
		info, err := os.Stat(path)
		fatal(t, err)
		if info.Mode() != want {
			t.Errorf("%s is %s, want %s", path, info.Mode(), want)
		}
	}
	fatal(t, filepath.WalkDir(store, func(path string, _ fs.DirEntry, err error) error {
		if strings.Contains(path, ".key.") || strings.Contains(path, ".nk.") {
			t.Errorf("%s is left over", path)
		}
		return err
	}))
}

// The raw event waits in INGEST, the record is in REVOCATIONS, what is not
// understood in DEADLETTER: none may be read off the disk.
func TestTheStoreIsEncrypted(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	planted := []string{"jti-" + secret, "opaque-" + secret, "unparsable-" + secret, "waiting-" + secret, "Dead-Letter-Reason"}
	r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", planted[0]))
	r.publish(t, messaging.SubjectRevocation, fields{"revokedToken": planted[1]}.event())
	r.publish(t, messaging.SubjectRevocation, []byte(planted[2]))
	r.settle(t)
	if letters := r.deadLetters(t); len(letters) != 1 {
		t.Fatalf("dead letters %v, want 1", letters)
	}
	r.stop()
	r.publish(t, messaging.SubjectRevocation, fields{"revokedToken": planted[3]}.event())
	plain := onDisk(t, r.cfg.Embedded.Store, planted)
	r.close()
	plain = append(plain, onDisk(t, r.cfg.Embedded.Store, planted)...)
	if len(plain) > 0 {
		t.Errorf("in clear: %v", plain)
	}
}

// onDisk returns which words are found in which file.
func onDisk(t *testing.T, dir string, words []string) []string {
	t.Helper()
	var found []string
	read := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		read += len(data)
		for _, w := range words {
			if bytes.Contains(data, []byte(w)) {
				found = append(found, fmt.Sprintf("%s in %s", w, path))
			}
		}
		return err
	})
	fatal(t, err)
	if read < 1000 {
		t.Fatalf("%s holds %d bytes: nothing was stored", dir, read)
	}
	return found
}

func TestAStoreIsOpenedOnce(t *testing.T) {
	t.Parallel()
	r := prepare(t, embedded(t))
	second := r.cfg
	hub, err := messaging.Open(t.Context(), second)
	if err == nil {
		hub.Close()
		t.Fatal("the store is opened twice")
	}
	for _, part := range []string{second.Embedded.Store, fmt.Sprint("pid ", os.Getpid())} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not name %q: %v", part, err)
		}
	}
	r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", "jti-1")) // the first goes on
	r.close()
	prepare(t, second)
}

func TestAStoreWithoutItsKeyIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(key string) error{
		"the key is missing": os.Remove,
		"the key is empty":   func(key string) error { return os.WriteFile(key, []byte("\n"), 0o600) },
		"another key":        func(key string) error { return os.WriteFile(key, []byte(strings.Repeat("0", 64)), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, embedded(t))
			r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", "jti-1"))
			r.settle(t)
			r.close()
			store := r.cfg.Embedded.Store
			key := filepath.Join(store, "store.key")
			kept, err := os.ReadFile(key)
			fatal(t, err)
			fatal(t, spoil(key))
			before := files(t, store)

			hub, err := messaging.Open(t.Context(), r.cfg)
			if err == nil {
				hub.Close()
				t.Fatal("the store is opened")
			}
			if !strings.Contains(err.Error(), "store.key") {
				t.Errorf("the error does not say what to do: %v", err)
			}
			if after := files(t, store); before != after {
				t.Errorf("the store was\n%s\nand is\n%s", before, after)
			}
			fatal(t, os.WriteFile(key, kept, 0o600))
			if again := start(t, r.cfg); again.held()["jti-1"] != revocation.Revoked {
				t.Errorf("with its key back the store holds %v", again.held())
			}
		})
	}
}

func TestAnEmptyKeyIsRefused(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	_, cfg.Log = newLogbook(t)
	fatal(t, os.Mkdir(cfg.Embedded.Store, 0o700))
	fatal(t, os.WriteFile(filepath.Join(cfg.Embedded.Store, "store.key"), nil, 0o600))
	if hub, err := messaging.Open(t.Context(), cfg); err == nil {
		hub.Close()
		t.Error("a new store is not encrypted")
	} else if !strings.Contains(err.Error(), "store.key is empty") {
		t.Errorf("the error does not say why: %v", err)
	}
}

// files lists names and sizes, but not of the lock.
func files(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	fatal(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "lock" {
			return err
		}
		info, err := d.Info()
		if err == nil {
			fmt.Fprintln(&all, path, info.Size())
		}
		return err
	}))
	return all.String()
}

func TestATakenPortIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	defer lis.Close() //nolint:errcheck // nothing was sent
	cfg := embedded(t)
	cfg.Embedded.Listen = lis.Addr().String()
	_, cfg.Log = newLogbook(t)
	began := time.Now()
	hub, err := messaging.Open(t.Context(), cfg)
	if err == nil {
		hub.Close()
		t.Fatal("the hub listens on a taken port")
	}
	for _, part := range []string{cfg.Embedded.Listen, "address already in use"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	cfg.Embedded.Listen = "127.0.0.1:0"
	prepare(t, cfg) // the store was given back
}

func TestListenMustBeAnAddress(t *testing.T) {
	t.Parallel()
	for _, listen := range []string{"", "127.0.0.1", "127.0.0.1:http"} {
		cfg := embedded(t)
		cfg.Embedded.Listen = listen
		_, cfg.Log = newLogbook(t)
		if hub, err := messaging.Open(t.Context(), cfg); err == nil {
			hub.Close()
			t.Errorf("listens on %q", listen)
		} else if !strings.Contains(err.Error(), fmt.Sprintf("%q", listen)) {
			t.Errorf("the error does not name %q: %v", listen, err)
		}
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cfg := embedded(t)
	_, cfg.Log = newLogbook(t)
	if hub, err := messaging.Open(ctx, cfg); err == nil {
		hub.Close()
		t.Error("it opens")
	}
	prepare(t, cfg)
}
