package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"

	"revocation-adapter/adapter/receipts"
	"revocation-adapter/integration/stack"
)

// Three adapters on one NATS server, and a thousand gateways at each.
const (
	receiptAdapters = 3
	receiptGateways = 1000
	receiptRounds   = 20
)

// receipts measures how long it takes to learn of all gateways, and that all of
// them have a revocation: one of the adapters is asked, which asks the others.
func (b *bench) receipts(ctx context.Context) error {
	return withReplicas(ctx, b.binary, func(control string) error {
		gateways, err := timed(func(int) error { return listed(ctx, control) })
		if err != nil {
			return err
		}
		b.add("GET /gateways, 1,000 at each of three adapters, with their newest ACKs",
			millis(gateways), "< 100 ms", gateways < 100*time.Millisecond)
		enforced, err := timed(func(i int) error { return enforcedBy(ctx, control, jti("receipt", i)) })
		if err != nil {
			return err
		}
		b.add("… POST /revocations with Prefer: wait, until all 3,000 enforce it", millis(enforced), "", true)
		return nil
	})
}

// timed is how long something takes, the median of some rounds.
func timed(do func(round int) error) (time.Duration, error) {
	var took []time.Duration
	for i := range receiptRounds {
		began := time.Now()
		if err := do(i); err != nil {
			return 0, err
		}
		took = append(took, time.Since(began))
	}
	return median(took), nil
}

// listed fails unless the adapter lists all gateways.
func listed(ctx context.Context, control string) error {
	var all struct{ Gateways []receipts.Gateway }
	err := asOperator(ctx, http.MethodGet, "http://"+control+"/gateways", "", &all)
	if err == nil && len(all.Gateways) != receiptAdapters*receiptGateways {
		err = fmt.Errorf("%d gateways are listed", len(all.Gateways))
	}
	return err
}

// enforcedBy revokes a token, and fails unless all gateways enforce it.
func enforcedBy(ctx context.Context, control, id string) error {
	var answer struct{ Gateways struct{ Enforced int } }
	err := asOperator(ctx, http.MethodPost, "http://"+control+"/revocations", `{"tokens":[{"jti":"`+id+`"}]}`, &answer)
	if err == nil && answer.Gateways.Enforced != receiptAdapters*receiptGateways {
		err = fmt.Errorf("%d gateways enforce it", answer.Gateways.Enforced)
	}
	return err
}

// asOperator calls the control API and reads the answer.
func asOperator(ctx context.Context, method, address, body string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.SetBasicAuth(benchClient, benchSecret)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Prefer", "wait=20")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s is answered with %s", address, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}

// withReplicas starts a NATS server, adapters and gateways, all as processes.
func withReplicas(ctx context.Context, binary string, do func(control string) error) (err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	hub, err := stack.Free()
	if err != nil {
		return err
	}
	server, err := start(ctx, "nats", hub, filepath.Join(dir, "nats"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	control := ""
	for i := range receiptAdapters {
		at, stop, err := startReplica(ctx, binary, filepath.Join(dir, fmt.Sprint("r", i)), hub)
		defer stop()
		if err != nil {
			return err
		}
		control = at
	}
	if err := allKnown(ctx, control); err != nil {
		return err
	}
	return do(control)
}

// startReplica starts an adapter and its gateways, and returns its control port.
// Stop may be called in any case.
func startReplica(ctx context.Context, binary, dir, hub string) (control string, stop func(), err error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(benchSecret), bcrypt.MinCost)
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil {
		return "", func() {}, err
	}
	a, err := startAdapterAt(ctx, binary, dir, "error", hub, fmt.Sprintf(
		"mode = \"external\"\nreplicas = 1\nurls = [\"nats://%s\"]\n[[clients]]\nid = %q\nsecret_hash = %q\nroles = [\"operator\", \"revoke_any\"]",
		hub, benchClient, hash))
	if err != nil {
		return "", func() {}, err
	}
	if err := a.await(ctx, time.Minute, func(r readiness) bool { return r.Ready }); err != nil {
		return "", a.kill, err
	}
	gateways, err := start(ctx, "clients")
	if err != nil {
		return "", a.kill, err
	}
	stop = func() {
		_ = gateways.stop() // its streams end as the adapter's do
		a.kill()
	}
	_, err = ask[seen](gateways, load{Address: a.xds, Streams: receiptGateways, PerConnection: 10, Names: filepath.Base(dir) + "-"})
	return a.control, stop, err
}

// allKnown waits until the gateways of every adapter are known at one.
func allKnown(ctx context.Context, control string) error {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	late := time.After(time.Minute)
	for {
		err := listed(ctx, control)
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-late:
			return err
		}
	}
}
