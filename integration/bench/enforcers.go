package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"revocation-adapter/enforcer"
)

// From adapter revoke to the last of many enforcers.

// lookEvery is how often the enforcers are asked, which takes part of the delay.
const lookEvery = 200 * time.Microsecond

// watchFor is what a process of enforcers is told to wait for.
type watchFor struct {
	Adapter   string // to begin with
	Enforcers int
	JTI       string
}

// rejectedAt is when the last enforcer rejected it.
type rejectedAt struct{ UnixNano int64 }

// enforcers is the role of a process that holds them.
func enforcers(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	var all []*enforcer.Enforcer
	err := answerAll(func(w watchFor) (any, error) {
		for i := range w.Enforcers {
			e, err := enforcer.New(enforcer.Config{
				Adapters: []string{w.Adapter}, Instance: fmt.Sprint("bench-", i), Grace: grace, MaxStaleness: time.Minute,
			})
			if err != nil {
				return nil, err
			}
			all = append(all, e)
			group.Go(func() error { return e.Run(ctx) })
		}
		return await(ctx, all, w.JTI)
	})
	cancel()
	if e := group.Wait(); !errors.Is(e, context.Canceled) {
		err = errors.Join(err, e)
	}
	return err
}

// await waits until all enforcers are ready, or reject a token where one is named.
func await(ctx context.Context, all []*enforcer.Enforcer, jti string) (rejectedAt, error) {
	waiting := slices.Clone(all)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for late := time.After(time.Minute); len(waiting) > 0; {
		waiting = slices.DeleteFunc(waiting, func(e *enforcer.Enforcer) bool {
			if jti == "" {
				return e.NotReady() == ""
			}
			return e.Check(enforcer.Token{ID: jti, Expiry: time.Now().Add(time.Hour).UnixMilli()}).Verdict == enforcer.Revoked
		})
		select {
		case <-tick.C:
		case <-late:
			return rejectedAt{}, fmt.Errorf("%d of %d enforcers never came", len(waiting), len(all))
		case <-ctx.Done():
			return rejectedAt{}, ctx.Err()
		}
	}
	return rejectedAt{time.Now().UnixNano()}, nil
}

func (b *bench) rejections(ctx context.Context) error {
	const enforcers, revocations = 100, 500
	delays, err := rejections(ctx, b.binary, enforcers, revocations)
	if err != nil {
		return err
	}
	slices.Sort(delays)
	p50, p99 := delays[len(delays)/2], delays[len(delays)*99/100]
	b.add("from adapter revoke returning to the last of 100 enforcers rejecting, p99 of 500",
		fmt.Sprintf("%s, p50 %s", millis(p99), millis(p50)), "< 50 ms", p99 < 50*time.Millisecond)
	return nil
}

// rejections revokes tokens one after another and returns how long after each was
// stored the last enforcer rejected it.
func rejections(ctx context.Context, binary string, count, revocations int) (delays []time.Duration, err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	a, err := startAdapter(ctx, binary, dir, "info")
	if err != nil {
		return nil, err
	}
	defer a.kill()
	if err := a.await(ctx, time.Minute, func(r readiness) bool { return r.Ready }); err != nil {
		return nil, err
	}
	gateways, err := start(ctx, "enforcers")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, gateways.stop()) }()
	if _, err := ask[rejectedAt](gateways, watchFor{Adapter: a.xds, Enforcers: count}); err != nil {
		return nil, err
	}
	conn, err := nats.Connect("nats://" + a.hub)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	for i := range revocations {
		delay, err := rejection(conn, gateways, jti("reject", i))
		if err != nil {
			return nil, err
		}
		delays = append(delays, delay)
	}
	return delays, a.stop()
}

// rejection revokes a token as adapter revoke does, which returns when the hub
// has stored it.
func rejection(conn *nats.Conn, gateways *child, jti string) (time.Duration, error) {
	event := `{"event":{"payloadData":{"eventId":"` + jti + `","revokedToken":"` + jti + `","ttl":"1","expiryTime":` +
		strconv.FormatInt(time.Now().Add(time.Hour).UnixMilli(), 10) + `,"type":"JWT","tenantId":-1234}}}`
	stored := make(chan int64, 1)
	failed := make(chan error, 1)
	go func() {
		<-time.After(20 * time.Millisecond) // the enforcers look by then
		_, err := conn.Request("tokenRevocation", []byte(event), 5*time.Second)
		stored <- time.Now().UnixNano()
		failed <- err
	}()
	last, err := ask[rejectedAt](gateways, watchFor{JTI: jti})
	if err := errors.Join(err, <-failed); err != nil {
		return 0, err
	}
	return max(0, time.Duration(last.UnixNano-<-stored)), nil
}
