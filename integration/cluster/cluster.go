// Package cluster starts real nats-server processes on loopback that form a
// JetStream cluster, and does to them what happens to servers: it kills,
// pauses and restarts them.
//
// A cluster keeps its addresses and its stores for as long as it lives. The
// package ends what it started and nothing else, and removes no file.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"revocation-adapter/integration/stack"
)

// Build builds nats-server from the module in go.mod into dir and returns its
// path. It must be called within this module.
func Build(ctx context.Context, dir string) (binary string, err error) {
	binary = filepath.Join(dir, "nats-server")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/nats-io/nats-server/v2").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build nats-server: %w: %s", err, out)
	}
	return binary, nil
}

// Options say what Start starts.
type Options struct {
	Binary string // path of nats-server, as Build returns it
	Dir    string // of configurations, logs and one store per node
	Nodes  int    // 1 is a single server, without a cluster

	// Config is more NATS configuration for every node, "" for none. A block in
	// it takes the place of ours with the same name; what differs from node to
	// node is in the variables of its environment: $NODE_NAME, $NODE_LISTEN,
	// $NODE_HTTP, $NODE_STORE, $NODE_CLUSTER and $NODE_ROUTES.
	Config string
	Env    []string // NAME=value, more of the environment of every node
}

// Cluster is running servers. Its methods may be called at the same time for
// different nodes; Stop comes last.
type Cluster struct {
	nodes []*node
}

// Start starts the servers, and returns when a meta leader exists and every
// node is in sync. They run until Stop, whatever becomes of ctx.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	ports, err := stack.FreePorts(portsPerNode * o.Nodes)
	if err != nil {
		return nil, fmt.Errorf("start a cluster: %w", err)
	}
	c := &Cluster{}
	for i := range o.Nodes {
		c.nodes = append(c.nodes, newNode(o, i, ports))
	}
	for _, n := range c.nodes {
		if err = errors.Join(n.configure(o, ports), n.start()); err != nil {
			break
		}
	}
	if err == nil {
		err = c.Await(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a cluster: %w", err), c.Stop())
	}
	return c, nil
}

// Await returns when a meta leader exists and every node that was not killed or
// paused is in sync.
func (c *Cluster) Await(ctx context.Context) error {
	for _, n := range c.nodes {
		if !n.runs() {
			continue
		}
		if err := n.await(ctx, len(c.nodes)); err != nil {
			return err
		}
	}
	return nil
}

// URLs are where clients connect, by node.
func (c *Cluster) URLs() []string {
	var urls []string
	for _, n := range c.nodes {
		urls = append(urls, "nats://"+n.listen)
	}
	return urls
}

// Name is the server name of a node: a stream names its leader so.
func (c *Cluster) Name(node int) string { return c.nodes[node].name }

// Log is the path of a node's log file, which restarts continue.
func (c *Cluster) Log(node int) string { return c.nodes[node].log }

// Kill ends a node with SIGKILL and waits for its end.
func (c *Cluster) Kill(node int) error { return c.nodes[node].kill() }

// Pause stops a node with SIGSTOP: its connections stay open, and nobody
// answers on them.
func (c *Cluster) Pause(node int) error { return c.nodes[node].signal(syscall.SIGSTOP) }

// Resume lets a paused node go on, with SIGCONT. Await tells when it is in sync
// again.
func (c *Cluster) Resume(node int) error { return c.nodes[node].signal(syscall.SIGCONT) }

// Restart starts a node that was killed, on the same store and addresses, and
// returns when it is in sync. Without a majority it never is: nodes that were
// all killed are restarted at the same time.
func (c *Cluster) Restart(ctx context.Context, node int) error {
	n := c.nodes[node]
	if err := n.start(); err != nil {
		return err
	}
	return n.await(ctx, len(c.nodes))
}

// Stop kills the nodes that still run.
func (c *Cluster) Stop() error {
	var errs []error
	for _, n := range c.nodes {
		if n.alive() {
			errs = append(errs, n.kill())
		}
	}
	return errors.Join(errs...)
}

const (
	portsPerNode = 3
	beat         = 50 * time.Millisecond
)

func address(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

func write(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }
