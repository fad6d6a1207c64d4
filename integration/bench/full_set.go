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
func loadFullSet(ctx context.Context, backend string, tokens int) (f fullSet, err error) {
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
	s, err := ask[seen](gateway, load{
		Address: before.Address, Streams: 1, PerConnection: 1, WaitTokens: int64(tokens), WaitSeconds: 60,
	})
	highest := peak()
	if err == nil && s.TimedOut {
		err = fmt.Errorf("%s: %d of %d tokens arrived", backend, s.Tokens, tokens)
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
			if rss, err := memory(pid, "VmRSS"); err == nil {
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
