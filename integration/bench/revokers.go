package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sync/errgroup"

	"revocation-adapter/integration/stack"
)

// Revocations over HTTP: POST /oauth2/revoke with a JWT that is verified.

// revoking is what a generator of them is told to do.
type revoking struct {
	Keys        string // write the keys of a new issuer there, and nothing else
	Algorithm   string // of that issuer
	Address     string
	Connections int
	Rate        float64 // per second, at even times; 0: one after another, as fast as they are answered
	Count       int
	Prefer      string // of every second request; "": of none
}

// revokedOver is what came of it.
type revokedOver struct {
	Took          time.Duration
	P50, P99      time.Duration // from when a request was due until it was answered
	PreferringP50 time.Duration // of those that prefer something
}

// revokers is the role of a generator. Its tokens are signed before the clock runs.
func revokers(ctx context.Context) error {
	var issuer *stack.Issuer
	n := 0
	return answerAll(func(r revoking) (_ any, err error) {
		if r.Keys != "" {
			if issuer, err = newIssuer(r.Algorithm); err == nil {
				err = issuer.WriteKeys(r.Keys)
			}
			return revokedOver{}, err
		}
		n += r.Count
		bodies, err := r.sign(issuer, n)
		if err != nil {
			return nil, err
		}
		return r.run(ctx, bodies)
	})
}

func newIssuer(algorithm string) (*stack.Issuer, error) {
	if algorithm == rs256 {
		return stack.NewRSAIssuer("bench")
	}
	return stack.NewIssuer("bench")
}

// rs256 is how API-M signs; everything else is ES256 here.
const rs256 = "RS256"

// sign makes the forms, with tokens that are called up to last.
func (r revoking) sign(issuer *stack.Issuer, last int) ([]string, error) {
	bodies := make([]string, r.Count)
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range bodies {
		group.Go(func() error {
			raw, err := issuer.AccessToken(jti("revoke", last-i), nil)
			bodies[i] = url.Values{"token": {raw}, "token_type_hint": {"access_token"}}.Encode()
			return err
		})
	}
	return bodies, group.Wait()
}

func (r revoking) run(ctx context.Context, bodies []string) (revokedOver, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: r.Connections, MaxConnsPerHost: r.Connections}}
	defer client.CloseIdleConnections()
	took := make([]time.Duration, len(bodies))
	var next atomic.Int64
	begin := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for range r.Connections {
		group.Go(func() error {
			for i := int(next.Add(1)) - 1; i < len(bodies); i = int(next.Add(1)) - 1 {
				due := time.Now()
				if r.Rate > 0 {
					due = begin.Add(time.Duration(float64(i) / r.Rate * float64(time.Second)))
					<-time.After(time.Until(due))
				}
				if err := r.one(ctx, client, bodies[i], r.prefer(i)); err != nil {
					return err
				}
				took[i] = time.Since(due)
			}
			return nil
		})
	}
	err := group.Wait()
	return r.summary(took, time.Since(begin)), err
}

// prefer is what the i-th request prefers.
func (r revoking) prefer(i int) string {
	if i%2 == 1 {
		return r.Prefer
	}
	return ""
}

func (r revoking) one(ctx context.Context, client *http.Client, body, prefer string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.Address+"/oauth2/revoke", strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(benchClient, benchSecret)
	if prefer != "" {
		req.Header.Set("Prefer", prefer)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("RevokedAccessToken") == "" {
		return fmt.Errorf("a revocation is answered with %s, %s", resp.Status, resp.Header.Get("Revocation-Effect"))
	}
	return nil
}

func (r revoking) summary(took []time.Duration, all time.Duration) revokedOver {
	var plain, preferring []time.Duration
	for i, d := range took {
		if r.prefer(i) == "" {
			plain = append(plain, d)
		} else {
			preferring = append(preferring, d)
		}
	}
	s := revokedOver{Took: all}
	slices.Sort(plain)
	slices.Sort(preferring)
	s.P50, s.P99 = plain[len(plain)/2], plain[len(plain)*99/100]
	if len(preferring) > 0 {
		s.PreferringP50 = preferring[len(preferring)/2]
	}
	return s
}

// Who revokes: the client of stack.Issuer's tokens.
const (
	benchClient = "client-1"
	benchSecret = "bench-secret"
)

const revokersConfig = `
listen = %q
[[clients]]
id = %q
secret_hash = %q
roles = ["revoke"]
requests_per_second = 1000000
[[issuers]]
name = "https://localhost:9443/oauth2/token"
jwks = [%q]
`

// withRevokers runs do with an adapter that knows the client and the issuer of a
// generator.
func (b *bench) withRevokers(ctx context.Context, algorithm string, do func(*adapterProcess, *child) error) (err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	gen, err := start(ctx, "revokers")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gen.stop()) }()
	keys := filepath.Join(dir, "keys.json")
	if _, err := ask[revokedOver](gen, revoking{Keys: keys, Algorithm: algorithm}); err != nil {
		return err
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(benchSecret), bcrypt.MinCost)
	if err != nil {
		return err
	}
	hub, err := stack.Free()
	if err != nil {
		return err
	}
	a, err := startAdapterAt(ctx, b.binary, dir, "info", hub, fmt.Sprintf(revokersConfig, hub, benchClient, hash, keys))
	if err != nil {
		return err
	}
	defer a.kill()
	if err := a.await(ctx, time.Minute, func(r readiness) bool { return r.Ready }); err != nil {
		return err
	}
	if err := do(a, gen); err != nil {
		return err
	}
	return a.stop()
}

// revocations measures the real adapter with an embedded hub, synced and encrypted.
func (b *bench) revocations(ctx context.Context) error {
	const rate, seconds = 5000, 4
	var sustained, most []revokedOver
	err := b.withRevokers(ctx, rs256, func(a *adapterProcess, gen *child) error {
		warm := revoking{Address: a.control, Connections: 128, Count: 2000}
		_, err := ask[revokedOver](gen, warm)
		for range min(b.rounds, 3) {
			if err != nil {
				return err
			}
			paced, fast := warm, warm
			paced.Rate, paced.Count = rate, rate*seconds
			fast.Count = 10_000
			var one revokedOver
			if one, err = ask[revokedOver](gen, paced); err == nil {
				sustained = append(sustained, one)
				one, err = ask[revokedOver](gen, fast)
				most = append(most, one)
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	slices.SortFunc(sustained, func(x, y revokedOver) int { return int(x.P99 - y.P99) })
	slices.SortFunc(most, func(x, y revokedOver) int { return int(x.Took - y.Took) })
	s, m := sustained[len(sustained)/2], most[len(most)/2]
	done := rate * seconds / s.Took.Seconds()
	b.add("POST /oauth2/revoke of JWTs (RS256, verified), audited, synced, encrypted, 128 connections: 5,000/s for 4 s",
		fmt.Sprintf("%.0f/s", done), "≥ 5,000/s", done >= 0.99*rate)
	b.add("… 99 % are answered, from when they were due, within", fmt.Sprintf("%s (half: %s)", millis(s.P99), millis(s.P50)),
		"< 20 ms", s.P99 < 20*time.Millisecond)
	b.add("… at most, as fast as they are answered", fmt.Sprintf("%.0f/s", 10_000/m.Took.Seconds()), "", true)
	return nil
}

// waits measures what Prefer: wait adds, with ten enforcers.
func (b *bench) waits(ctx context.Context) error {
	var alone, waiting, push time.Duration
	err := b.withRevokers(ctx, rs256, func(a *adapterProcess, gen *child) (err error) {
		gateways, err := start(ctx, "enforcers")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, gateways.stop()) }()
		if _, err := ask[rejectedAt](gateways, watchFor{Adapter: a.xds, Enforcers: 10}); err != nil {
			return err
		}
		r := revoking{Address: a.control, Connections: 1, Count: 200, Prefer: "wait=5"}
		if _, err := ask[revokedOver](gen, r); err != nil {
			return err
		}
		before, err := a.pushes(ctx)
		if err != nil {
			return err
		}
		r.Count = 1000
		one, err := ask[revokedOver](gen, r)
		if err != nil {
			return err
		}
		after, err := a.pushes(ctx)
		alone, waiting = one.P50, one.PreferringP50
		push = time.Duration((after.sum - before.sum) / (after.count - before.count) * float64(time.Second))
		return err
	})
	if err != nil {
		return err
	}
	added := waiting - alone
	b.add("… Prefer: wait adds, with 10 enforcers, at the median",
		fmt.Sprintf("%s (%s without, %s with; from publication to ACK %s)", millis(added), millis(alone), millis(waiting), millis(push)),
		"≤ 1 push round trip", added <= push)
	return nil
}

// ackTimes is the histogram of how long gateways took to acknowledge.
type ackTimes struct{ sum, count float64 }

func (a *adapterProcess) pushes(ctx context.Context) (p ackTimes, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.control+"/metrics", nil)
	if err != nil {
		return p, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return p, err
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		n, _ := strconv.ParseFloat(value, 64) // what is no number is a comment
		switch {
		case strings.HasPrefix(name, "revocation_adapter_publication_to_ack_seconds_sum"):
			p.sum += n
		case strings.HasPrefix(name, "revocation_adapter_publication_to_ack_seconds_count"):
			p.count += n
		}
	}
	return p, nil
}
