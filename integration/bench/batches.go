package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// batchRate is how many revocations per second sources that hold many at a time
// put into the log of an embedded hub, synced and encrypted, until a replica has
// applied the last of them.
func batchRate(ctx context.Context, revocations int) (perSecond float64, err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	hub, err := messaging.Open(ctx, messaging.Config{
		Embedded: &messaging.EmbeddedConfig{Listen: "127.0.0.1:0", Store: dir},
		Limits:   messaging.Limits{MaxLive: 10_000_000, MaxPending: 1000, MaxPendingBytes: 1 << 20},
		Grace:    grace, UnknownLife: time.Hour, PurgeInterval: time.Minute, MaxDeliveries: 10, Workers: 1,
		Log: quiet, Now: time.Now,
	})
	if err != nil {
		return 0, err
	}
	defer hub.Close()
	log := revocation.NewLog(grace)
	follower := messaging.NewFollower(hub, log, messaging.NewMetrics(prometheus.NewRegistry()))
	following, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- follower.Run(following) }()
	<-follower.Complete()

	begin := time.Now()
	err = putAll(ctx, messaging.NewWriter(hub, log), revocations)
	for err == nil {
		s := log.Snapshot()
		if s.Counts().Revoked() == revocations {
			break
		}
		select {
		case <-s.Next():
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(time.Minute):
			err = fmt.Errorf("%d of %d arrived", s.Counts().Revoked(), revocations)
		}
	}
	perSecond = float64(revocations) / time.Since(begin).Seconds()
	stop()
	if e := <-ended; err == nil && !errors.Is(e, context.Canceled) {
		err = e
	}
	return perSecond, err
}

// putAll puts revocations from four sources, a batch at a time each.
func putAll(ctx context.Context, w *messaging.Writer, revocations int) error {
	const sources = 4
	group, ctx := errgroup.WithContext(ctx)
	for source := range sources {
		group.Go(func() error {
			for at := source * batch; at < revocations; at += sources * batch {
				for _, o := range w.Put(ctx, someRevocations(at, min(at+batch, revocations))...) {
					if o.Err != nil {
						return o.Err
					}
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func someRevocations(from, to int) []revocation.Revocation {
	now := time.Now()
	var rs []revocation.Revocation
	for i := from; i < to; i++ {
		key := jti("batch", i)
		rs = append(rs, revocation.Revocation{
			Domain: revocation.DomainToken, Key: key, Digest: revocation.DigestOf(revocation.DomainToken, key),
			State: revocation.Revoked, Kind: revocation.KindJWT, Expiry: now.Add(time.Hour).UnixMilli(),
			Lifetime: revocation.Dated, Time: now.UnixMicro(), Source: "bench",
		})
	}
	return rs
}
