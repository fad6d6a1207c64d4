package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/crypto/bcrypt"

	"revocation-adapter/integration/chaos/history"
	"revocation-adapter/revocation"
)

// Who calls the control API.
const (
	callerName   = "chaos"
	callerSecret = "chaos-secret"
	callLimit    = 4 * time.Second // longer than waitFor, which is longer by a second when a replica is silent
	waitFor      = "wait=1"
	waitEvery    = 5 // revocations, of which one waits for its receipt
)

// caller publishes by the control API of the replicas: what is answered with 200 is
// acknowledged. It stays at a replica until one does not answer.
type caller struct {
	replicas []string // control addresses
	at       int
	client   *http.Client
	record   *recorder
	calls    int
}

func newCaller(number int, replicas []string, record *recorder) *caller {
	return &caller{replicas: replicas, at: number, client: &http.Client{Timeout: callLimit}, record: record}
}

// callerConfig is the section of a replica that knows the caller.
func callerConfig() (string, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(callerSecret), bcrypt.MinCost)
	return fmt.Sprintf("[[clients]]\nid = %q\nsecret_hash = %q\nroles = [\"revoke_any\", \"approve\"]\n", callerName, hash), err
}

// send has one replica store an event. Another one is next when it does not.
func (c *caller) send(ctx context.Context, kind string, e history.Event) (receipt, error) {
	got, err := c.call(ctx, c.replicas[c.at%len(c.replicas)], kind, e)
	if err != nil {
		c.at++
	}
	return got, err
}

func (c *caller) call(ctx context.Context, replica, kind string, e history.Event) (receipt, error) {
	body, err := json.Marshal(map[string]any{
		"tokens": []any{map[string]any{"jti": e.JTI, "type": kind, "expires_at": e.Expiry, "tenant": "-1234"}},
		"state":  e.State.String(),
	})
	if err != nil {
		return receipt{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+replica+"/revocations", bytes.NewReader(body))
	if err != nil {
		return receipt{}, err
	}
	req.SetBasicAuth(callerName, callerSecret)
	req.Header.Set("Content-Type", "application/json")
	if e.State == revocation.Approved { // one that arrives late must not overturn what was revoked since
		req.Header.Set("Idempotency-Key", e.ID)
	}
	if c.calls++; c.calls%waitEvery == 0 {
		req.Header.Set("Prefer", waitFor)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return receipt{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return receipt{}, fmt.Errorf("replica %s answers %s", replica, resp.Status)
	}
	var answer struct{ Gateways receipt }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return receipt{}, err
	}
	answer.Gateways.at = c.record.now()
	return answer.Gateways, nil
}

func (c *caller) named() bool { return false }
func (c *caller) close()      { c.client.CloseIdleConnections() }
