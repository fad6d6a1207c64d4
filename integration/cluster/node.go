package cluster

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
)

// node is a server and where it keeps its things.
type node struct {
	binary, name             string
	conf, log, store         string // paths
	listen, monitor, cluster string // addresses
	env                      []string

	mu     sync.Mutex
	cmd    *exec.Cmd     // nil: not started, or killed
	left   chan struct{} // closed when the process has left
	paused bool
}

func newNode(o Options, number int, ports []int) *node {
	name := fmt.Sprint("n", number)
	at := func(suffix string) string { return filepath.Join(o.Dir, name+suffix) }
	own := ports[number*portsPerNode:]
	return &node{
		binary: o.Binary, name: name, conf: at(".conf"), log: at(".log"), store: at(""),
		listen: address(own[0]), cluster: address(own[1]), monitor: address(own[2]),
	}
}

// base is the configuration of a node; the last block of a name counts.
const base = `
server_name: $NODE_NAME
listen: $NODE_LISTEN
http: $NODE_HTTP
jetstream {
  store_dir: $NODE_STORE
  sync_interval: always
  max_buffered_msgs: 1000000
  max_buffered_size: 1GB
}
`

const clustered = `
cluster {
  name: hub
  listen: $NODE_CLUSTER
  routes: $NODE_ROUTES
}
`

// configure writes the configuration, the same for every node, and its
// environment, which is the node's own.
func (n *node) configure(o Options, ports []int) error {
	var routes []string
	for i := range o.Nodes {
		routes = append(routes, strconv.Quote("nats://"+address(ports[i*portsPerNode+1])))
	}
	n.env = append(append(os.Environ(), o.Env...),
		"NODE_NAME="+n.name, "NODE_LISTEN="+n.listen, "NODE_HTTP="+n.monitor, "NODE_CLUSTER="+n.cluster,
		"NODE_STORE="+strconv.Quote(n.store), "NODE_ROUTES=["+strings.Join(routes, ",")+"]",
	)
	text := base
	if o.Nodes > 1 {
		text += clustered
	}
	return write(n.conf, text+o.Config)
}

func (n *node) start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		return fmt.Errorf("start %s: it runs", n.name)
	}
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the process has its own
	cmd := exec.Command(n.binary, "--config", n.conf)
	cmd.Env, cmd.Stdout, cmd.Stderr = n.env, log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	left := make(chan struct{})
	go func() { // kill waits for it
		defer close(left)
		_ = cmd.Wait() // how it left is in its log
	}()
	n.cmd, n.left, n.paused = cmd, left, false
	return nil
}

func (n *node) kill() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return fmt.Errorf("kill %s: it does not run", n.name)
	}
	err := n.cmd.Process.Kill()
	<-n.left
	n.cmd = nil
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", n.name, err)
	}
	return nil
}

func (n *node) signal(s syscall.Signal) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return fmt.Errorf("send %s to %s: it does not run", s, n.name)
	}
	if err := n.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("send %s to %s: %w", s, n.name, err)
	}
	n.paused = s == syscall.SIGSTOP
	return nil
}

func (n *node) alive() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cmd != nil
}

func (n *node) runs() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cmd != nil && !n.paused
}

// await waits until the node is in sync in a cluster of a size.
func (n *node) await(ctx context.Context, size int) error {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	n.mu.Lock()
	left := n.left
	n.mu.Unlock()
	for {
		err := n.inSync(ctx, size)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-left:
			return fmt.Errorf("%s has left: %s", n.name, n.lastLine())
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", n.name, ctx.Err(), err)
		}
	}
}

// inSync asks the server for its health, which is that of everything it stores,
// and for the meta group's leader.
func (n *node) inSync(ctx context.Context, size int) error {
	if err := n.get(ctx, "/healthz", &struct{}{}); err != nil || size == 1 {
		return err
	}
	var js struct {
		Meta struct {
			Leader string `json:"leader"`
			Size   int    `json:"cluster_size"`
		} `json:"meta_cluster"`
	}
	if err := n.get(ctx, "/jsz", &js); err != nil {
		return err
	}
	if js.Meta.Leader == "" || js.Meta.Size != size {
		return fmt.Errorf("%s knows %d of %d peers, and the leader %q", n.name, js.Meta.Size, size, js.Meta.Leader)
	}
	return nil
}

func (n *node) get(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.monitor+path, nil)
	if err != nil {
		return err
	}
	req.Close = true // leaves no connection behind
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s%s: %s", n.name, path, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

func (n *node) lastLine() string {
	text, err := os.ReadFile(n.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}
