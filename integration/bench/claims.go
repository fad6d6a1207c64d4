package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nuid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
)

// contest is what a generator of claims is told to do: claim new tokens, some at a
// time, each by many contenders at once.
type contest struct {
	Address     string
	Connections int
	AtATime     int // tokens
	Contenders  int // of each
	Seconds     float64
}

// contested is what came of it. Of each token one claim was granted, or it is an
// error.
type contested struct {
	Claims, Tokens int
	Took           time.Duration
	P50, P99       time.Duration // of one claim
}

// claimers is the role of a generator of claims.
func claimers(ctx context.Context) error {
	return answerAll(func(c contest) (any, error) { return c.run(ctx) })
}

func (c contest) run(ctx context.Context) (contested, error) {
	var clients []revocationv1.ClaimServiceClient
	for range c.Connections {
		conn, err := grpc.NewClient(c.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return contested{}, err
		}
		defer conn.Close() //nolint:errcheck // it is over
		clients = append(clients, revocationv1.NewClaimServiceClient(conn))
	}
	begin := time.Now()
	end := begin.Add(time.Duration(c.Seconds * float64(time.Second)))
	took := make([][]time.Duration, c.AtATime)
	var group errgroup.Group
	for i := range took {
		group.Go(func() (err error) {
			for time.Now().Before(end) && err == nil {
				took[i], err = c.one(ctx, clients, took[i])
			}
			return err
		})
	}
	err := group.Wait()
	all := slices.Concat(took...)
	slices.Sort(all)
	return contested{
		Claims: len(all), Tokens: len(all) / c.Contenders, Took: time.Since(begin),
		P50: all[len(all)/2], P99: all[len(all)*99/100],
	}, err
}

// one has all contenders claim one token, and adds how long each took.
func (c contest) one(ctx context.Context, clients []revocationv1.ClaimServiceClient, took []time.Duration) ([]time.Duration, error) {
	jti, expiry := nuid.Next(), time.Now().Add(time.Hour).UnixMilli()
	times := make([]time.Duration, c.Contenders)
	var granted, revoked atomic.Int64
	var group sync.WaitGroup
	for i := range times {
		group.Go(func() {
			began := time.Now()
			resp, err := clients[i%len(clients)].Claim(ctx, &revocationv1.ClaimRequest{ClaimId: nuid.Next(), Jti: jti, ExpiryMillis: expiry})
			times[i] = time.Since(began)
			switch {
			case err != nil:
			case resp.GetOutcome() == revocationv1.ClaimResponse_OUTCOME_GRANTED:
				granted.Add(1)
			case resp.GetOutcome() == revocationv1.ClaimResponse_OUTCOME_REVOKED:
				revoked.Add(1)
			}
		})
	}
	group.Wait()
	if granted.Load() != 1 || int(revoked.Load()) != c.Contenders-1 {
		return took, fmt.Errorf("of %d claims of one token %d were granted and %d refused", c.Contenders, granted.Load(), revoked.Load())
	}
	return append(took, times...), nil
}

// claims measures the real adapter with an embedded hub, synced and encrypted.
func (b *bench) claims(ctx context.Context) error {
	const contenders = 32
	contended, err := b.contest(ctx, contest{Connections: 16, AtATime: 2, Contenders: contenders, Seconds: 5})
	if err != nil {
		return err
	}
	alone, err := b.contest(ctx, contest{Connections: 16, AtATime: 256, Contenders: 1, Seconds: 5})
	if err != nil {
		return err
	}
	rate := contended.rate()
	b.add(fmt.Sprintf("claims of one-time tokens, two at a time, %d contenders for each, one granted, synced, encrypted", contenders),
		fmt.Sprintf("%.0f/s (%d tokens)", rate, contended.Tokens), "≥ 10,000/s", rate >= 10_000)
	b.add("… 99 % are answered within", fmt.Sprintf("%s (half: %s)", millis(contended.P99), millis(contended.P50)),
		"< 15 ms", contended.P99 < 15*time.Millisecond)
	b.add("… of tokens without another contender, 256 at a time", fmt.Sprintf("%.0f/s, 99 %% within %s", alone.rate(), millis(alone.P99)), "", true)
	return nil
}

func (c contested) rate() float64 { return float64(c.Claims) / c.Took.Seconds() }

// contest has a generator claim at a new adapter, a little at first, and returns the
// median of some rounds.
func (b *bench) contest(ctx context.Context, c contest) (contested, error) {
	var rounds []contested
	err := withAdapter(ctx, b.binary, "info", func(a *adapterProcess) error {
		gen, err := start(ctx, "claimers")
		if err != nil {
			return err
		}
		c.Address = a.xds
		warm := c
		warm.Seconds = 1
		_, err = ask[contested](gen, warm)
		for range min(b.rounds, 3) {
			if err != nil {
				break
			}
			var one contested
			one, err = ask[contested](gen, c)
			rounds = append(rounds, one)
		}
		if e := gen.stop(); err == nil {
			err = e
		}
		return err
	})
	if err != nil {
		return contested{}, err
	}
	slices.SortFunc(rounds, func(x, y contested) int { return int(x.rate() - y.rate()) })
	return rounds[len(rounds)/2], nil
}
