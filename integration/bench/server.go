package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"revocation-adapter/adapter/memory"
	"revocation-adapter/revocation"
	"revocation-adapter/xds"
)

// backend is what is measured: something that holds tokens and pushes changes.
type backend interface {
	// fill makes it hold n tokens, without pushing.
	fill(n int) error
	// push publishes one more token.
	push(i int)
	// run serves until ctx ends.
	run(ctx context.Context, lis net.Listener) error
}

// order is what a server is told to do.
type order struct {
	Events int // to publish
	Rate   int // per second
	Free   bool
}

// report is what it answers.
type report struct {
	Address string
	CPU     time.Duration // used since the process started
	RSS     int64         // bytes
	Peak    int64         // bytes
}

// serve is the role of a server: bench serve ours|raw|linear <tokens>.
func serve(ctx context.Context, args []string) error {
	tokens, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	b, err := newBackend(args[0])
	if err != nil {
		return err
	}
	if err := b.fill(tokens); err != nil {
		return err
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	tuned := make(chan error, 1)
	go func() { tuned <- asTheAdapter(ctx) }()
	served := make(chan error, 1)
	go func() { served <- b.run(ctx, lis) }()
	next := 0
	err = answerAll(func(o order) (any, error) {
		next = paced(b, next, o)
		if o.Free {
			runtime.GC()
			debug.FreeOSMemory()
		}
		r := report{Address: lis.Addr().String(), CPU: cpu()}
		var err error
		if r.RSS, err = memoryOf(os.Getpid(), "VmRSS"); err != nil {
			return nil, err
		}
		r.Peak, err = memoryOf(os.Getpid(), "VmHWM")
		return r, err
	})
	cancel()
	for _, e := range []error{<-served, <-tuned} {
		if !errors.Is(e, context.Canceled) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// asTheAdapter lets garbage collect as the adapter does once it knows the log.
func asTheAdapter(ctx context.Context) error {
	complete := make(chan struct{})
	close(complete)
	return memory.Tune(ctx, memory.Reading, complete)
}

// paced publishes at an even rate.
func paced(b backend, next int, o order) int {
	if o.Events == 0 {
		return next
	}
	tick := time.NewTicker(time.Second / time.Duration(o.Rate))
	defer tick.Stop()
	for range o.Events {
		<-tick.C
		b.push(next)
		next++
	}
	return next
}

func newBackend(name string) (backend, error) {
	switch name {
	case "ours":
		return newOurs()
	case "raw":
		return newRaw(), nil
	case "packed":
		return packed{newRaw()}, nil
	case "linear":
		return newLinear(), nil
	}
	return nil, fmt.Errorf("no backend %q", name)
}

// ours is the project: the log, the cache, go-control-plane's server.
type ours struct {
	log     *revocation.Log
	server  *xds.Server
	version uint64
}

const grace = 10 * time.Minute

func newOurs() (*ours, error) {
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	quiet.SetReportCaller(true)
	o := &ours{log: revocation.NewLog(grace), version: uint64(time.Now().UnixMicro())}
	var err error
	o.server, err = xds.New(serverConfig(o.log, quiet))
	return o, err
}

// confirmed is how often the adapter asks its hub how fresh the log is.
const confirmed = 2 * time.Second

func serverConfig(log *revocation.Log, say logrus.FieldLogger) xds.Config {
	return xds.Config{
		Revocations: log, Grace: grace, Label: "commonEnforcerLabel",
		NotReady:   func() string { return "" },
		Last:       func(context.Context) (uint64, error) { return log.Snapshot().Version(), nil },
		Identity:   func() string { return "bench" },
		Complete:   func() (uint64, time.Time) { return log.Snapshot().Version(), time.Now().Truncate(confirmed) },
		MaxReceive: 4 << 20, Log: say, Metrics: prometheus.NewRegistry(), Now: time.Now,
	}
}

func (o *ours) fill(n int) error {
	for i := range n {
		if err := o.append(jti("held", i), i); err != nil {
			return err
		}
	}
	o.log.Publish(o.version)
	return nil
}

func (o *ours) push(i int) {
	if err := o.append(jti("push", i), i); err != nil {
		panic(err) // the benchmark is wrong
	}
	o.log.Publish(o.version)
}

// append revokes a token that expires within 90 days, none like the one before.
func (o *ours) append(key string, i int) error {
	o.version++
	life := time.Hour + time.Duration(i*7_919_003%(90*24*3600))*time.Second
	return o.log.Append(o.version, revocation.Revocation{
		Domain: revocation.DomainToken, Key: key, State: revocation.Revoked,
		Expiry: time.Now().Add(life).UnixMilli(), Lifetime: revocation.Dated,
	})
}

func (o *ours) run(ctx context.Context, lis net.Listener) error { return o.server.Run(ctx, lis) }

// jti is a UUID that says nothing but is always the same.
func jti(of string, i int) string {
	d := revocation.DigestOf(revocation.DomainToken, of+strconv.Itoa(i))
	return fmt.Sprintf("%x-%x-%x-%x-%x", d[:4], d[4:6], d[6:8], d[8:10], d[10:])
}
