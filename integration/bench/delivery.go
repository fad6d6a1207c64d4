package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// delivery is one setting in which the server's CPU per delivery is measured:
// a response with one event, pushed to one stream.
type delivery struct {
	backend       string
	tokens        int // held before
	streams       int
	perConnection int
	rate          int // events per second, so low that each is pushed by itself
	events        int
}

// compareDelivery measures two settings in turns and returns the medians of the
// server's CPU per delivery.
func compareDelivery(ctx context.Context, rounds int, a, b delivery) (ofA, ofB time.Duration, err error) {
	var as, bs []time.Duration
	ra, err := startDelivery(ctx, a)
	if err != nil {
		return 0, 0, err
	}
	rb, err := startDelivery(ctx, b)
	if err != nil {
		return 0, 0, errors.Join(err, ra.stop())
	}
	for range rounds {
		one, errA := ra.round()
		two, errB := rb.round()
		if err = errors.Join(errA, errB); err != nil {
			break
		}
		as, bs = append(as, one), append(bs, two)
	}
	if err = errors.Join(err, ra.stop(), rb.stop()); err != nil {
		return 0, 0, err
	}
	return median(as), median(bs), nil
}

func median[T ~int64 | ~float64](all []T) T {
	slices.Sort(all)
	return all[len(all)/2]
}

// running is a server and its load generator.
type running struct {
	delivery
	server, load *child
}

func startDelivery(ctx context.Context, d delivery) (*running, error) {
	server, err := start(ctx, "serve", d.backend, strconv.Itoa(d.tokens))
	if err != nil {
		return nil, err
	}
	r := &running{delivery: d, server: server}
	at, err := ask[report](server, order{})
	if err != nil {
		return nil, errors.Join(err, server.stop())
	}
	if r.load, err = start(ctx, "clients"); err != nil {
		return nil, errors.Join(err, server.stop())
	}
	held := int64(d.tokens) * int64(d.streams)
	s, err := ask[seen](r.load, load{
		Address: at.Address, Streams: d.streams, PerConnection: d.perConnection,
		WaitTokens: held, WaitSeconds: 120,
	})
	if err == nil && s.TimedOut {
		err = fmt.Errorf("%s: %d of %d tokens arrived", d.backend, s.Tokens, held)
	}
	if err != nil {
		return nil, errors.Join(err, r.stop())
	}
	return r, nil
}

// round pushes events and returns the server's CPU per delivery.
func (r *running) round() (time.Duration, error) {
	before, err := ask[report](r.server, order{Free: true})
	if err != nil {
		return 0, err
	}
	want := int64(r.events) * int64(r.streams)
	type result struct {
		s   seen
		err error
	}
	arrived := make(chan result, 1)
	go func() {
		s, err := ask[seen](r.load, r.awaits(want))
		arrived <- result{s, err}
	}()
	if _, err := ask[report](r.server, order{Events: r.events, Rate: r.rate}); err != nil {
		return 0, err
	}
	got := <-arrived
	if got.err != nil {
		return 0, got.err
	}
	if got.s.TimedOut {
		return 0, fmt.Errorf("%s: %d of %d deliveries arrived", r.backend, got.s.Tokens, want)
	}
	after, err := ask[report](r.server, order{})
	if err != nil {
		return 0, err
	}
	return (after.CPU - before.CPU) / time.Duration(want), nil
}

// awaits is the wait for as many deliveries. LinearCache sends everything each
// time, so that only its responses can be counted; ours may coalesce them.
func (r *running) awaits(deliveries int64) load {
	if r.backend == "linear" {
		return load{WaitResponses: deliveries, WaitSeconds: 120}
	}
	return load{WaitTokens: deliveries, WaitSeconds: 120}
}

func (r *running) stop() error { return errors.Join(r.load.stop(), r.server.stop()) }
