package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"revocation-adapter/messaging"
)

// manyEvents publishes events at a rate to an adapter with gateways and returns
// the worst delay from publishing an event to any gateway receiving it.
func manyEvents(ctx context.Context, binary string, gateways, rate, seconds int) (worst time.Duration, deliveries int64, err error) {
	err = withAdapter(ctx, binary, "info", func(a *adapterProcess) error {
		gen, err := start(ctx, "clients")
		if err != nil {
			return err
		}
		if _, err = ask[seen](gen, load{Address: a.xds, Streams: gateways, PerConnection: 1}); err != nil {
			return err
		}
		events := rate * seconds
		s, err := ask[seen](gen, load{
			Publish:    &publishing{URL: "nats://" + a.hub, Events: events, Rate: rate},
			WaitTokens: int64(events) * int64(gateways), WaitSeconds: 60,
		})
		if err == nil && s.TimedOut {
			err = fmt.Errorf("%d of %d tokens arrived", s.Tokens, events*gateways)
		}
		worst, deliveries = s.WorstDelay, s.Tokens
		if e := gen.stop(); err == nil {
			err = e
		}
		return err
	})
	return worst, deliveries, err
}

// ingestRate is how many events per second an adapter takes from plain
// publishes into the log, at a log level.
func ingestRate(ctx context.Context, binary, level string, events int) (perSecond float64, err error) {
	err = withAdapter(ctx, binary, level, func(a *adapterProcess) error {
		conn, err := nats.Connect("nats://" + a.hub)
		if err != nil {
			return err
		}
		defer conn.Close()
		begin := time.Now()
		for i := range events {
			if err := conn.Publish(messaging.SubjectRevocation, event(jti("ingest", i))); err != nil {
				return err
			}
		}
		if err := conn.Flush(); err != nil {
			return err
		}
		if err := a.await(ctx, 4*time.Minute, func(r readiness) bool { return r.Revoked == events }); err != nil {
			return err
		}
		perSecond = float64(events) / time.Since(begin).Seconds()
		return nil
	})
	return perSecond, err
}

func withAdapter(ctx context.Context, binary, level string, do func(*adapterProcess) error) error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	a, err := startAdapter(ctx, binary, dir, level)
	if err != nil {
		return err
	}
	defer a.kill()
	if err := a.await(ctx, time.Minute, func(r readiness) bool { return r.Ready }); err != nil {
		return err
	}
	if err := do(a); err != nil {
		return err
	}
	return a.stop()
}
