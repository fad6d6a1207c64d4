package integration_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
)

// smallDisk mounts a disk of a few megabytes until the test ends.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("no small disk can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// fillDisk takes what is left of a disk, and returns what gives it back.
func fillDisk(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "full")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<16)
	for err == nil {
		_, err = f.Write(block)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel() // it waits for answers that do not come
	disk := smallDisk(t, "40m")
	a := newAdapter(t, map[string]string{})
	rehub(t, a, fmt.Sprintf("listen = %q\nstore = %q\n", a.hub, filepath.Join(disk, "hub")))
	a.start(t)
	a.awaitReady(t)
	g := connectGateway(t, a, delta, "")
	if code, _, errOut := a.run(t, "revoke", "before", "--expires-in", "1h"); code != 0 {
		t.Fatal(errOut)
	}
	g.awaits(t, "before")
	version := a.version(t)

	free := fillDisk(t, disk)
	var stored []string // the first write may still find room in a file
	eventually(t, "publishing fails, and says why", func() bool {
		jti := fmt.Sprintf("full-%d-%s", len(stored), strings.Repeat("x", 1500))
		code, _, errOut := a.run(t, "revoke", jti, "--expires-in", "1h")
		if code == 0 {
			stored = append(stored, jti)
		}
		return code == 3 && strings.Contains(errOut, "the disk of the hub is full")
	})
	connectGateway(t, a, rtds, "").awaits(t, append(stored, "before")...)
	claims, oneTime := revocationv1.NewClaimServiceClient(a.dial(t, nil)), claimOf("one-time")
	if _, err := claims.Claim(t.Context(), oneTime); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "disk") {
		t.Errorf("a claim, on a full disk: %v", err)
	}

	free()
	eventually(t, "publishing goes on by itself", func() bool {
		code, _, _ := a.run(t, "revoke", "after", "--expires-in", "1h")
		return code == 0
	})
	g.awaits(t, append(stored, "before", "after")...)
	if got := claimAnywhere(t, oneTime, claims); got != granted {
		t.Errorf("the claim, once there is space, is %s", got)
	}
	if v := a.version(t); v <= version {
		t.Errorf("version %d, not beyond %d", v, version)
	}
	a.stop(t)
	a.start(t)
	a.awaitReady(t)
	connectGateway(t, a, rtds, "").awaits(t, append(stored, "before", "after")...)
}

// rehub replaces the section [hub] of an adapter's configuration.
func rehub(t *testing.T, a *adapter, hub string) {
	t.Helper()
	text, err := os.ReadFile(a.config)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "[xds]")
	if err := os.WriteFile(a.config, []byte("[hub]\n"+hub+"[xds]"+rest), 0o600); err != nil {
		t.Fatal(err)
	}
}
