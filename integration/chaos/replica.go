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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"revocation-adapter/integration/stack"
)

// replica is the adapter as a process, which keeps its ports.
type replica struct {
	binary, config, log string // paths
	xds, control        string // addresses

	mu   sync.Mutex
	cmd  *exec.Cmd
	left chan struct{} // closed when the process has left
}

// Grace is short, so that tokens expire for good during a run. Clocks are off by
// half of it, as by five minutes of the default of ten.
const (
	grace = 10 * time.Second
	skew  = grace / 2
)

const replicaConfig = `
[hub]
mode = "external"
urls = [%s]
replicas = 3
store = %q
[xds]
listen = %q
[control]
listen = %q
[revocation]
grace = %q
purge_interval = "1s"
`

func newReplica(number int, binary, dir string, urls []string) (*replica, error) {
	r := &replica{
		binary: binary, config: filepath.Join(dir, fmt.Sprintf("replica-%d.toml", number)),
		log: filepath.Join(dir, fmt.Sprintf("replica-%d.log", number)),
	}
	var err error
	for _, at := range []*string{&r.xds, &r.control} {
		if *at, err = stack.Free(); err != nil {
			return nil, err
		}
	}
	quoted := make([]string, 0, len(urls))
	for _, u := range urls {
		quoted = append(quoted, strconv.Quote(u))
	}
	store := filepath.Join(dir, fmt.Sprintf("replica-%d", number)) // beside it: the version that was shown
	text := fmt.Sprintf(replicaConfig, strings.Join(quoted, ", "), store, r.xds, r.control, grace.String())
	clients, err := callerConfig()
	if err != nil {
		return nil, err
	}
	text += clients
	return r, os.WriteFile(r.config, []byte(text), 0o600)
}

// start starts the process, whose clock is off by skew.
func (r *replica) start(skew time.Duration) error {
	log, err := os.OpenFile(r.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the adapter has its own
	cmd, left := exec.Command(r.binary, "run", "--config", r.config), make(chan struct{})
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "CLOCK_FAULT="+skew.String())
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { // kill waits for it
		defer close(left)
		_ = cmd.Wait() // why it left is in its log
	}()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cmd, r.left = cmd, left
	return nil
}

// kill ends the process with SIGKILL.
func (r *replica) kill() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd == nil {
		return nil
	}
	err := r.cmd.Process.Kill()
	<-r.left
	r.cmd = nil
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

func (r *replica) signal(s syscall.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cmd.Process.Signal(s)
}

// gone says whether the process has left without being killed here.
func (r *replica) gone() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd == nil {
		return false
	}
	select {
	case <-r.left:
		return true
	default:
		return false
	}
}

func (r *replica) lastLine() string {
	text, err := os.ReadFile(r.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// readiness is what /readyz says.
type readiness struct {
	Ready   bool
	Reason  string
	Version uint64
}

func (r *replica) readiness(ctx context.Context) (is readiness, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.control+"/readyz", nil)
	if err != nil {
		return is, err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return is, err
	}
	defer resp.Body.Close()
	return is, json.NewDecoder(resp.Body).Decode(&is)
}

// await waits until the replica is ready. One that leaves by itself is started
// again, as a supervisor would, and told of.
func (r *replica) await(ctx context.Context, left func(string)) error {
	return until(ctx, func() error {
		if r.gone() {
			left(r.lastLine())
			if err := r.start(0); err != nil {
				return err
			}
		}
		is, err := r.readiness(ctx)
		if err == nil && !is.Ready {
			err = errors.New(is.Reason)
		}
		return err
	})
}

// until tries until there is no error, or ctx ends; then it says the last one.
func until(ctx context.Context, try func() error) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}
