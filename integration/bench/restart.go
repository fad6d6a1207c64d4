package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"revocation-adapter/integration/stack"
	"revocation-adapter/messaging"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// restart fills the hub of an adapter, ends it, and returns how long it takes
// from starting it again until it is ready. Settings are of an external hub at
// address hub; without, it is embedded.
func restart(ctx context.Context, binary string, revocations int, hub, settings string, end func(*adapterProcess) error) (took time.Duration, err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	begin := func() (*adapterProcess, error) {
		if settings != "" {
			return startAdapterAt(ctx, binary, dir, "info", hub, settings)
		}
		return startAdapter(ctx, binary, dir, "info")
	}
	a, err := begin()
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
	if err := end(a); err != nil {
		return 0, err
	}
	if a, err = begin(); err != nil {
		return 0, err
	}
	if err := a.await(ctx, time.Minute, all); err != nil {
		return 0, err
	}
	took = time.Since(a.started)
	return took, a.stop()
}

// restartAtExternalHub does the same at a NATS server that is a process of its
// own and goes on.
func restartAtExternalHub(ctx context.Context, binary string, revocations int) (took time.Duration, err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	hub, err := stack.Free()
	if err != nil {
		return 0, err
	}
	nats, err := start(ctx, "nats", hub, dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, nats.stop()) }()
	settings := fmt.Sprintf("mode = \"external\"\nreplicas = 1\nurls = [\"nats://%s\"]", hub)
	return restart(ctx, binary, revocations, hub, settings, (*adapterProcess).stop)
}

// natsServer is a NATS server, until its input ends.
func natsServer(_ context.Context, args []string) error {
	host, port, err := net.SplitHostPort(args[0])
	if err != nil {
		return err
	}
	opts := &server.Options{Host: host, JetStream: true, StoreDir: args[1], SyncAlways: true, NoLog: true, NoSigs: true}
	if opts.Port, err = strconv.Atoi(port); err != nil {
		return err
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	return answerAll(func(struct{}) (any, error) { return struct{}{}, nil })
}

// batch is how many records an atomic batch holds.
const batch = 1000

// fillHub writes records into the log as the operator, in atomic batches.
func fillHub(ctx context.Context, a *adapterProcess, n int) error {
	var opts []nats.Option
	if seed := messaging.OperatorKey(filepath.Join(a.dir, "hub")); exists(seed) { // of an embedded hub
		key, err := nats.NkeyOptionFromSeed(seed)
		if err != nil {
			return err
		}
		opts = append(opts, key)
	}
	conn, err := nats.Connect("nats://"+a.hub, opts...)
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

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
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
