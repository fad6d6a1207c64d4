package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"revocation-adapter/integration/chaos/history"
	"revocation-adapter/integration/cluster"
	"revocation-adapter/messaging"
)

// How long parts of a run may take.
const (
	buildLimit  = 5 * time.Minute
	startLimit  = 90 * time.Second
	finishLimit = 60 * time.Second // for publishers to have their last event acknowledged
)

// world is what runs, and what can be broken.
type world struct {
	dir        string
	cluster    *cluster.Cluster
	cutter     *cutter
	impossible map[kind]error // and why
	replicas   []*replica
	conn       *nats.Conn
	js         jetstream.JetStream
	record     *recorder

	mu        sync.Mutex
	incidents []string // what should not have happened, beside what the checker finds
}

// run breaks things for as long as it was told, and judges.
func run(ctx context.Context, s settings, dir string) (r report, err error) {
	if err := settleIn(); err != nil {
		return r, err
	}
	w := &world{dir: dir, impossible: map[kind]error{}, record: &recorder{began: time.Now()}}
	defer func() { err = errors.Join(err, w.stop()) }()
	if err := w.start(ctx); err != nil {
		return r, err
	}
	w.say("all runs")
	if err := w.live(ctx, s); err != nil {
		return r, err
	}
	h := w.record.history()
	if h.Hub, err = w.hubSays(ctx, h.Events); err != nil {
		return r, err
	}
	h.End = w.record.now()
	return report{
		seed: s.seed, history: h, verdict: history.Check(h), incidents: w.incidents, impossible: w.impossible,
		retries: w.record.retries, failovers: w.record.failovers,
	}, nil
}

// start starts the hub and the replicas.
func (w *world) start(ctx context.Context) error {
	server, adapter, err := build(ctx, w.dir)
	if err != nil {
		return err
	}
	if w.cutter, err = newCutter(w.dir); err == nil {
		server, err = w.cutter.wrap(server)
	}
	if err != nil {
		w.impossible[nodeCut] = err
	}
	if err := mountDisk(storeOf(w.dir, fullNode)); err != nil {
		w.impossible[nodeFull] = err
	}
	for kind, why := range w.impossible {
		fmt.Printf("left out, %s: %v\n", kind, why)
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	w.cluster, err = cluster.Start(ctx, cluster.Options{Binary: server, Dir: w.dir, Nodes: nodes, Config: nodeConfig})
	if err != nil {
		return err
	}
	if err := w.connect(); err != nil {
		return err
	}
	return w.startReplicas(ctx, adapter)
}

// nodeConfig is as the cluster's own, but for the room that streams may reserve:
// the server would reckon it from the small disk.
const nodeConfig = `
jetstream {
  store_dir: $NODE_STORE
  sync_interval: always
  max_file_store: 8GB
}
`

func build(ctx context.Context, dir string) (server, adapter string, err error) {
	ctx, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	if server, err = cluster.Build(ctx, dir); err != nil {
		return "", "", err
	}
	adapter = filepath.Join(dir, "adapter")
	out, err := exec.CommandContext(ctx, "go", "build", "-tags", "clockfault", "-o", adapter, "revocation-adapter/adapter").CombinedOutput()
	if err != nil {
		return "", "", fmt.Errorf("build the adapter: %w: %s", err, out)
	}
	return server, adapter, nil
}

func (w *world) connect() (err error) {
	w.conn, err = messaging.Dial(messaging.ExternalConfig{URLs: w.cluster.URLs()}, nats.MaxReconnects(-1),
		nats.ReconnectWait(100*time.Millisecond), nats.PingInterval(time.Second), nats.MaxPingsOutstanding(2), nats.Name("chaos"))
	if err != nil {
		return err
	}
	w.js, err = jetstream.New(w.conn)
	return err
}

func (w *world) startReplicas(ctx context.Context, adapter string) error {
	for i := range replicas {
		r, err := newReplica(i, adapter, w.dir, w.cluster.URLs())
		if err != nil {
			return err
		}
		w.replicas = append(w.replicas, r)
		if err := r.start(0); err != nil {
			return err
		}
	}
	for i := range w.replicas {
		if err := w.awaitReplica(ctx, i); err != nil {
			return fmt.Errorf("replica %d is not ready: %w", i, err)
		}
	}
	return nil
}

func (w *world) stop() error {
	var errs []error
	for _, r := range w.replicas {
		errs = append(errs, r.kill())
	}
	if w.conn != nil {
		w.conn.Close()
	}
	if w.cluster != nil {
		errs = append(errs, w.cluster.Stop())
	}
	return errors.Join(errs...)
}

// live runs publishers and gateways, disturbs them, and waits until all is calm.
func (w *world) live(ctx context.Context, s settings) error {
	ctx, cancel := context.WithCancel(ctx)
	var reading, writing sync.WaitGroup
	defer reading.Wait()
	defer writing.Wait()
	defer cancel()
	var addresses []string
	for _, r := range w.replicas {
		addresses = append(addresses, r.xds)
	}
	for i := range gateways {
		g := &gateway{number: i, replicas: addresses, record: w.record, held: map[string]string{}}
		reading.Go(func() { g.run(ctx) })
	}
	finish := make(chan struct{})
	patience, giveUp := context.WithCancel(ctx)
	defer giveUp()
	ways, err := w.ways()
	if err != nil {
		return err
	}
	var last *publisher
	for i, way := range ways {
		defer way.close()
		p := newPublisher(i, s.seed, way, w.record)
		writing.Go(func() { p.run(patience, finish) })
		if way.named() {
			last = p
		}
	}
	err = w.disturb(ctx, schedule(s.seed, s.duration))
	close(finish)
	timer := time.AfterFunc(finishLimit, giveUp)
	defer timer.Stop()
	writing.Wait()
	if err != nil {
		return err
	}
	return w.settle(ctx, last)
}

// ways are those by which publishers publish, one for each.
func (w *world) ways() (all []way, err error) {
	var control []string
	for _, r := range w.replicas {
		control = append(control, r.control)
	}
	for range publishers {
		b, err := newByHub(w.cluster.URLs())
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	for i := range callers {
		all = append(all, newCaller(i, control, w.record))
	}
	return all, nil
}

// say tells what happens, as it happens.
func (w *world) say(format string, args ...any) {
	fmt.Printf("%7.1f s  %s\n", w.record.now().Seconds(), fmt.Sprintf(format, args...))
}

// incident is something that should not have happened.
func (w *world) incident(format string, args ...any) {
	w.say(format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.incidents = append(w.incidents, fmt.Sprintf(format, args...))
}

func (w *world) incidentIf(err error) {
	if err != nil {
		w.incident("%v", err)
	}
}

// keepLogs copies the logs of all processes.
func keepLogs(dir, to string) error {
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, log := range logs {
		text, err := os.ReadFile(filepath.Clean(log))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(log)), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}
