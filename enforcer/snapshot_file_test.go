package enforcer_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"revocation-adapter/enforcer"
)

// filesOf are the names of what lies beside the snapshot file, and it.
func filesOf(t *testing.T, cfg enforcer.Config) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(cfg.SnapshotFile))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, each := range entries {
		names = append(names, each.Name())
	}
	return names
}

// Two enforcers with one file write whole files, whoever is the last.
func TestSnapshotFileOfTwo(t *testing.T) {
	cfg, text := withFile(t, clockAt(epoch), &adapter{address: "127.0.0.1:1"})
	var writers sync.WaitGroup
	for _, e := range []*enforcer.Enforcer{build(t, again(cfg)), build(t, again(cfg))} {
		writers.Go(func() {
			for to := uint64(1); to <= 100; to++ {
				r := step{reset: true, to: to, head: to, revoke: strings.Repeat("a b c ", 100)}.response()
				if err := e.Take(r); err != nil {
					t.Error(err)
				}
				e.Save()
			}
		})
	}
	writers.Wait()
	if text.Len() > 0 {
		t.Errorf("logged %q", text)
	}
	e := build(t, again(cfg))
	if got := e.Freshness().Version; got != 100 || e.Held() != 3 {
		t.Errorf("version %d, %d tokens", got, e.Held())
	}
	if info, err := os.Stat(cfg.SnapshotFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if got := filesOf(t, cfg); len(got) != 1 {
		t.Errorf("left behind: %q", got)
	}
}

// What lies where a file of a fixed name would have been written is not followed.
func TestSnapshotFileIsNotALink(t *testing.T) {
	cfg, _ := withFile(t, clockAt(epoch), &adapter{address: "127.0.0.1:1"})
	victim := filepath.Join(t.TempDir(), "victim")
	e := build(t, cfg)
	step{reset: true, to: 10, head: 10, revoke: "a", version: 10}.check(t, e)
	if err := os.MkdirAll(filepath.Dir(cfg.SnapshotFile), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{cfg.SnapshotFile, cfg.SnapshotFile + ".new"} {
		if err := os.Symlink(victim, path); err != nil {
			t.Fatal(err)
		}
	}
	e.Save()
	if _, err := os.Stat(victim); !os.IsNotExist(err) {
		t.Errorf("it was written through a link: %v", err)
	}
	if info, err := os.Lstat(cfg.SnapshotFile); err != nil || !info.Mode().IsRegular() {
		t.Errorf("%v, %v", info, err)
	}
}

// A file that is not finished is not left behind.
func TestSnapshotFileThatFails(t *testing.T) {
	cfg, text := withFile(t, clockAt(epoch), &adapter{address: "127.0.0.1:1"})
	e := build(t, cfg)
	step{reset: true, to: 10, head: 10, revoke: "a", version: 10}.check(t, e)
	if err := os.MkdirAll(cfg.SnapshotFile, 0o700); err != nil { // a directory is not replaced by a file
		t.Fatal(err)
	}
	e.Save()
	if !strings.Contains(text.String(), "The snapshot file was not written") {
		t.Errorf("logged %q", text)
	}
	if got := filesOf(t, cfg); len(got) != 1 {
		t.Errorf("left behind: %q", got)
	}
}

// What a crash left is removed when it cannot be somebody's who still writes.
func TestSnapshotFilesOfACrash(t *testing.T) {
	cfg, _ := withFile(t, clockAt(epoch), &adapter{address: "127.0.0.1:1"})
	dir, name := filepath.Split(cfg.SnapshotFile)
	files := map[string]time.Duration{ // and how old they are
		name:                  2 * time.Hour,
		name + ".123.new":     2 * time.Hour,
		name + ".124.new":     30 * time.Minute,
		name + ".125.new":     -2 * time.Hour,
		name + ".mine.new":    2 * time.Hour,
		name + ".123.new.bak": 2 * time.Hour,
		"other.123.new":       2 * time.Hour,
	}
	if err := os.MkdirAll(filepath.Join(dir, name+".126.new"), 0o700); err != nil {
		t.Fatal(err)
	}
	for each, age := range files {
		if err := os.WriteFile(filepath.Join(dir, each), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(dir, each), epoch, epoch.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	before := filesOf(t, cfg)
	build(t, cfg)
	want := slices.DeleteFunc(before, func(each string) bool { return each == name+".123.new" })
	if got := filesOf(t, cfg); !slices.Equal(got, want) {
		t.Errorf("left: %q, want %q", got, want)
	}
}
