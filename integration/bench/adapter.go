package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"revocation-adapter/integration/stack"
)

// adapterProcess is the real adapter, with an embedded hub, on free ports.
type adapterProcess struct {
	cmd               *exec.Cmd
	dir               string
	hub, xds, control string
	started           time.Time
}

// buildAdapter compiles the adapter into dir.
func buildAdapter(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "adapter")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "revocation-adapter/adapter")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the adapter: %w: %s", err, out)
	}
	return path, nil
}

// The hub comes last, so that what describes it may go on with other sections.
const adapterConfig = `
[log]
level = %q
[xds]
listen = %q
[control]
listen = %q
[hub]
store = "hub"
%s
`

// startAdapter starts the adapter in dir, with an embedded hub. Its log goes to a
// file there.
func startAdapter(ctx context.Context, binary, dir, level string) (*adapterProcess, error) {
	hub, err := stack.Free()
	if err != nil {
		return nil, err
	}
	return startAdapterAt(ctx, binary, dir, level, hub, fmt.Sprintf("listen = %q", hub))
}

// startAdapterAt starts the adapter with a hub that settings describe, and other
// sections after them.
func startAdapterAt(ctx context.Context, binary, dir, level, hub, settings string) (*adapterProcess, error) {
	a := &adapterProcess{dir: dir, hub: hub}
	var err error
	for _, at := range []*string{&a.xds, &a.control} {
		if *at, err = stack.Free(); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(dir, "adapter.toml")
	if err := os.WriteFile(path, fmt.Appendf(nil, adapterConfig, level, a.xds, a.control, settings), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "adapter.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the adapter has its own
	a.started = time.Now()
	a.cmd = exec.CommandContext(ctx, binary, "run", "--config", path)
	a.cmd.Dir, a.cmd.Stderr = dir, log
	return a, a.cmd.Start()
}

// readiness is what /readyz says.
type readiness struct {
	Ready   bool
	Version uint64
	Revoked int
}

func (a *adapterProcess) readiness(ctx context.Context) (r readiness, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.control+"/readyz", nil)
	if err != nil {
		return r, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return r, err
	}
	defer resp.Body.Close()
	return r, json.NewDecoder(resp.Body).Decode(&r)
}

// await polls until the adapter is as wanted.
func (a *adapterProcess) await(ctx context.Context, limit time.Duration, ok func(readiness) bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(limit)
	for {
		if r, err := a.readiness(ctx); err == nil && ok(r) {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			r, err := a.readiness(ctx)
			return fmt.Errorf("the adapter is not as expected after %s: %+v, %w", limit, r, err)
		}
	}
}

// kill ends an adapter that was not stopped, because something failed.
func (a *adapterProcess) kill() {
	if a.cmd.ProcessState == nil {
		_ = a.cmd.Process.Kill()
		_ = a.cmd.Wait() // it was killed
	}
}

func (a *adapterProcess) stop() error {
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	var exit *exec.ExitError
	if err := a.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}
