package enforcer

import (
	"bytes"
	"crypto/sha256"
	"io"
	"slices"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// Hasten makes e impatient: a test waits for what it does after seconds.
func (e *Enforcer) Hasten() {
	e.pace.retryMin, e.pace.retryMax = time.Millisecond, 50*time.Millisecond
	e.pace.silence, e.pace.claim, e.pace.claimRetry = 300*time.Millisecond, 2*time.Second, 5*time.Millisecond
	e.pace.purge = 20 * time.Millisecond
}

// Held is how many tokens the set has, those that have expired too.
func (e *Enforcer) Held() int { return e.view.Load().set.tokens.count }

// Take is what an adapter's response does, without the adapter.
func (e *Enforcer) Take(r *discovery.DiscoveryResponse) error { return e.take(r) }

// Retry is how long to wait when all adapters have failed for the nth time.
func Retry(n int) time.Duration { return steady().retry(n) }

// Save writes the snapshot file, if it would say something new.
func (e *Enforcer) Save() { e.save() }

// WriteSnapshot writes what the snapshot file would hold.
func (e *Enforcer) WriteSnapshot(to io.Writer) error { return e.writeSnapshot(to, e.view.Load()) }

// ReadSnapshot puts in force what a snapshot file with body, and the sum of it,
// would.
func (e *Enforcer) ReadSnapshot(body []byte) error {
	sum := sha256.Sum256(body)
	file := append(slices.Clone(body), sum[:]...)
	v, err := e.readSnapshot(bytes.NewReader(file), int64(len(file)))
	if err == nil {
		e.view.Store(v)
	}
	return err
}

// Purge drops what has expired.
func (e *Enforcer) Purge() { e.purge() }

// ByHand is t as if nothing had read it.
func (t Token) ByHand() Token {
	t.read = nil
	return t
}
