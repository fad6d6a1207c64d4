package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"revocation-adapter/messaging"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
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
		if err := a.await(ctx, 2*time.Minute, func(r readiness) bool { return r.Revoked == events }); err != nil {
			return err
		}
		perSecond = float64(events) / time.Since(begin).Seconds()
		return nil
	})
	return perSecond, err
}

// restart fills the hub of an adapter, stops it, and returns how long it takes
// from starting it again until it is ready.
func restart(ctx context.Context, binary string, revocations int) (took time.Duration, err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	a, err := startAdapter(ctx, binary, dir, "info")
	if err != nil {
		return 0, err
	}
	defer func() { a.kill() }()
	if err := a.await(ctx, time.Minute, func(r readiness) bool { return r.Ready }); err != nil {
		return 0, err
	}
	if err := fillHub(ctx, a, revocations); err != nil {
		return 0, err
	}
	all := func(r readiness) bool { return r.Ready && r.Revoked == revocations }
	if err := a.await(ctx, time.Minute, all); err != nil {
		return 0, err
	}
	if err := a.stop(); err != nil {
		return 0, err
	}
	if a, err = startAdapter(ctx, binary, dir, "info"); err != nil {
		return 0, err
	}
	if err := a.await(ctx, time.Minute, all); err != nil {
		return 0, err
	}
	took = time.Since(a.started)
	return took, a.stop()
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

// batch is how many records an atomic batch holds.
const batch = 1000

// fillHub writes records into the log as the operator, in atomic batches.
func fillHub(ctx context.Context, a *adapterProcess, n int) error {
	key, err := nats.NkeyOptionFromSeed(messaging.OperatorKey(filepath.Join(a.dir, "hub")))
	if err != nil {
		return err
	}
	conn, err := nats.Connect("nats://"+a.hub, key)
	if err != nil {
		return err
	}
	defer conn.Close()
	expiry := time.Now().Add(time.Hour).UnixMilli()
	for i := range n {
		msg, err := record(jti("restart", i), expiry)
		if err != nil {
			return err
		}
		msg.Header.Set("Nats-Batch-Id", "fill-"+strconv.Itoa(i/batch))
		msg.Header.Set("Nats-Batch-Sequence", strconv.Itoa(i%batch+1))
		if i%batch < batch-1 && i < n-1 {
			if err := conn.PublishMsg(msg); err != nil {
				return err
			}
			continue
		}
		msg.Header.Set("Nats-Batch-Commit", "1")
		if err := commit(ctx, conn, msg); err != nil {
			return err
		}
	}
	return nil
}

func commit(ctx context.Context, conn *nats.Conn, msg *nats.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	_, err = js.PublishMsg(ctx, msg)
	return err
}

func record(jti string, expiry int64) (*nats.Msg, error) {
	digest := revocation.DigestOf(revocation.DomainToken, jti)
	data, err := proto.Marshal(&revocationv1.Record{
		Format: 1, Domain: revocationv1.Domain_DOMAIN_TOKEN, Key: jti, Digest: digest[:],
		State: revocationv1.State_STATE_REVOKED, Kind: revocationv1.Kind_KIND_JWT,
		ExpiryMillis: expiry, Lifetime: revocationv1.Lifetime_LIFETIME_DATED, TimeMicros: time.Now().UnixMicro(),
		Source: "nats", Tenant: "-1234",
		Events: []*revocationv1.Event{{Id: "444d2f9b-57d8-4245-bef2-3f8d824741c3", TimeMicros: time.Now().UnixMicro()}},
	})
	msg := nats.NewMsg("revoked.token." + digest.String())
	msg.Data = data
	msg.Header.Set(jetstream.MsgTTLHeader, "4200")
	return msg, err
}
