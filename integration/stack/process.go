// Package stack runs the whole path of a call as it runs in production, each part
// a process of its own on free ports of this machine: a hub and an adapter,
// enforcers, a gateway, and an API behind it. Tests, the demo and the benchmark
// share it.
package stack

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Process is a program that runs, and can be started again.
type Process struct {
	Name string
	Args []string // the program and what it is told
	Dir  string

	cmd  *exec.Cmd
	left chan struct{} // closed when it has left
	log  Output        // over all its starts
}

// Log is what the process has printed.
func (p *Process) Log() string {
	return p.log.String()
}

// Start starts the process. It must not run.
func (p *Process) Start() error {
	cmd := exec.Command(p.Args[0], p.Args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.Dir, &p.log, &p.log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	left := make(chan struct{})
	p.cmd, p.left = cmd, left
	go func() {
		_ = cmd.Wait() // how it ended is in its state
		close(left)
	}()
	return nil
}

// PID is the process's id; 0 while it was never started.
func (p *Process) PID() int {
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Left is closed when the process has left.
func (p *Process) Left() <-chan struct{} { return p.left }

// Stop asks the process to stop, and waits.
func (p *Process) Stop() error { return p.end(syscall.SIGTERM) }

// Kill ends the process as a crash would, and waits.
func (p *Process) Kill() error { return p.end(syscall.SIGKILL) }

// patience is how long a process may take to stop.
const patience = 20 * time.Second

func (p *Process) end(s os.Signal) error {
	if p.cmd == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.Name, err)
	}
	select {
	case <-p.left:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%s does not stop on %s", p.Name, s)
	}
}

// Ports that the system gives to nobody who asks for any: to one who connects, it
// would give a port that was found free a moment before.
const (
	firstPort = 10_000
	lastPort  = 32_000
)

// given are the ports that Free has returned: tests that run beside each other must
// not get the same one before they listen on it.
var given sync.Map //nolint:gochecknoglobals // the ports of a machine are one for all

// Free is an address of this machine on which nobody listens, and that was not
// returned before.
func Free() (string, error) {
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", firstPort+rand.N(lastPort-firstPort))
		if _, again := given.LoadOrStore(address, true); again {
			continue
		}
		lis, err := net.Listen("tcp", address)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return "", err
		}
		return address, lis.Close()
	}
	return "", errors.New("no port is free")
}

// FreePorts are the ports of so many addresses of Free.
func FreePorts(count int) (ports []int, err error) {
	for range count {
		at, err := Free()
		if err != nil {
			return nil, err
		}
		_, text, err := net.SplitHostPort(at)
		if err != nil {
			return nil, err
		}
		port, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}

// free fills addresses.
func free(addresses ...*string) (err error) {
	for _, at := range addresses {
		if *at, err = Free(); err != nil {
			return err
		}
	}
	return nil
}

// Build compiles the command of one of our packages into dir.
func Build(ctx context.Context, dir, name, pkg string, flags ...string) (string, error) {
	path := filepath.Join(dir, name)
	args := append(append([]string{"build", "-o", path}, flags...), pkg)
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", name, err, out)
	}
	return path, nil
}

// Until waits until done says so, the process leaves or ctx ends.
func (p *Process) Until(ctx context.Context, what string, done func() bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-p.left:
			return fmt.Errorf("%s has left, before %s: %s", p.Name, what, p.Log())
		case <-ctx.Done():
			return fmt.Errorf("%s is not %s: %w", p.Name, what, ctx.Err())
		}
	}
	return nil
}

// status is what a page answers with; 0: nobody does.
func status(ctx context.Context, url string) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close() // nothing is read
	return resp.StatusCode
}
