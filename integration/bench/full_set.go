package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// fullSet is what it takes to bring one new gateway up to date.
type fullSet struct {
	took       time.Duration
	growth     int64 // of the server's memory at its peak, bytes
	maxMessage int64 // bytes
}

// loadFullSet connects one gateway to a server that holds tokens.
func loadFullSet(ctx context.Context, backend string, tokens int) (fullSet, error) {
	return loadFullSets(ctx, backend, tokens, load{Streams: 1})
}

// loadFullSets connects gateways at the same time, each on its own connection,
// and waits until all have all.
func loadFullSets(ctx context.Context, backend string, tokens int, l load) (f fullSet, err error) {
	server, err := start(ctx, "serve", backend, strconv.Itoa(tokens))
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	before, err := ask[report](server, order{Free: true})
	if err != nil {
		return f, err
	}
	gateway, err := start(ctx, "clients")
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, gateway.stop()) }()
	peak := watchPeak(server.cmd.Process.Pid)
	want := int64(tokens) * int64(l.Streams)
	l.Address, l.PerConnection, l.WaitTokens, l.WaitSeconds = before.Address, 1, want, 60
	s, err := ask[seen](gateway, l)
	highest := peak()
	if err == nil && s.TimedOut {
		err = fmt.Errorf("%s: %d of %d tokens arrived", backend, s.Tokens, want)
	}
	return fullSet{took: s.Took, growth: highest - before.RSS, maxMessage: s.MaxBytes}, err
}

// watchPeak samples a process's memory every few milliseconds until the
// returned function is called, which tells the highest. The kernel's own peak
// would include what filling the server took.
func watchPeak(pid int) func() int64 {
	stop, done := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		highest := int64(0)
		for {
			if rss, err := memoryOf(pid, "VmRSS"); err == nil {
				highest = max(highest, rss)
			}
			select {
			case <-tick.C:
			case <-stop:
				done <- highest
				return
			}
		}
	}()
	return func() int64 {
		close(stop)
		return <-done
	}
}
