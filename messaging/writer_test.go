package messaging_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// revoked is a revocation of a jti as a source hands it over.
func revoked(jti string, at time.Time) revocation.Revocation {
	return revocation.Revocation{
		Domain: revocation.DomainToken, Key: jti, Digest: revocation.DigestOf(revocation.DomainToken, jti),
		State: revocation.Revoked, Kind: revocation.KindJWT, Expiry: at.Add(time.Hour).UnixMilli(),
		Lifetime: revocation.Dated, Time: at.UnixMicro(), Source: "test",
	}
}

func approved(jti string, at time.Time) revocation.Revocation {
	r := revoked(jti, at)
	r.State = revocation.Approved
	return r
}

// count is how many of the outcomes changed something. Any error ends the test.
func count(t *testing.T, outcomes []messaging.Outcome) int {
	t.Helper()
	n := 0
	for _, o := range outcomes {
		fatal(t, o.Err)
		if o.Changed {
			n++
		}
	}
	return n
}

// A batch is written whole, beyond the hub's limit of 1,000 too; what the log
// says already takes no version.
func TestPutManyAtOnce(t *testing.T) {
	t.Parallel()
	r := follow(t, embedded(t))
	r.awaitReady(t)
	w := messaging.NewWriter(r.hub, r.log)
	now := time.Now()
	var rs []revocation.Revocation
	for i := range 2500 {
		rs = append(rs, revoked(fmt.Sprint("jti-", i%2400), now))
	}
	before := r.state(t, messaging.LogStream).LastSeq
	if n := count(t, w.Put(t.Context(), rs...)); n != 2400 {
		t.Errorf("%d of 2500 changed the log, of which 100 are there twice", n)
	}
	if n := r.state(t, messaging.LogStream).LastSeq - before; n != 2400 {
		t.Errorf("%d versions, want 2400", n)
	}
	r.settle(t)
	if n := count(t, w.Put(t.Context(), rs...)); n != 0 || r.state(t, messaging.LogStream).LastSeq != r.version() {
		t.Errorf("again: %d changed the log", n)
	}
	if n := len(r.held()); n != 2400 {
		t.Errorf("%d keys are held", n)
	}
	rec, msg := r.record(t, revocation.DomainToken, "jti-7")
	if rec.GetKey() != "jti-7" || msg.Header.Get("Nats-TTL") == "" {
		t.Errorf("stored: %v %v", rec, msg.Header)
	}
}

// The outcome tells of two revocations of one key in one batch which of them
// says something new.
func TestPutOneKeyTwice(t *testing.T) {
	t.Parallel()
	r := follow(t, embedded(t))
	r.awaitReady(t)
	w := messaging.NewWriter(r.hub, r.log)
	now := time.Now()
	outcomes := w.Put(t.Context(), revoked("a", now), revoked("b", now), revoked("a", now), approved("a", now.Add(time.Second)))
	_, a := r.record(t, revocation.DomainToken, "a")
	_, b := r.record(t, revocation.DomainToken, "b")
	want := []messaging.Outcome{
		{Changed: true, Version: a.Sequence}, {Changed: true, Version: b.Sequence}, {Version: a.Sequence}, {Changed: true, Version: a.Sequence},
	}
	for i, o := range outcomes {
		if o != want[i] {
			t.Errorf("%d: %+v, want %+v", i, o, want[i])
		}
	}
	r.settle(t)
	if held := r.held(); held["a"] != revocation.Approved || held["b"] != revocation.Revoked {
		t.Errorf("held: %v", held)
	}
}

// Writers that do not know of each other put revocations and approvals of the
// same keys: all end with what Merge says, and nobody's is lost.
func TestWritersOfTheSameKeys(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	const writers, keys, rounds = 4, 60, 6
	r := follow(t, external(s))
	r.awaitReady(t)
	begin := time.Now()
	want := map[string]revocation.Revocation{}
	var mu sync.Mutex
	var group sync.WaitGroup
	for range writers {
		other := prepare(t, external(s)) // follows nothing: it expects every key to be new
		group.Go(func() {
			w := messaging.NewWriter(other.hub, other.log)
			for range rounds {
				var rs []revocation.Revocation
				for _, k := range rand.Perm(keys)[:keys/2] {
					one := revoked(fmt.Sprint("key-", k), begin.Add(time.Duration(rand.N(1000))*time.Microsecond))
					one.State = revocation.State(1 + rand.N(2))
					rs = append(rs, one)
				}
				for _, o := range w.Put(t.Context(), rs...) {
					if o.Err != nil {
						t.Error(o.Err)
					}
				}
				mu.Lock()
				for _, one := range rs {
					if old, known := want[one.Key]; known {
						one = revocation.Merge(old, one)
					}
					want[one.Key] = one
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	r.settle(t)
	states := map[string]revocation.State{}
	for key, one := range want {
		states[key] = one.State
		if rec, _ := r.record(t, revocation.DomainToken, key); rec.GetTimeMicros() != one.Time {
			t.Errorf("%s is of %d, want %d", key, rec.GetTimeMicros(), one.Time)
		}
	}
	if held := r.held(); !maps.Equal(held, states) {
		t.Errorf("held %v\nwant %v", held, states)
	}
}

// One revocation that cannot be stored does not keep the others of its batch
// from the log.
func TestPutWhatCannotBeStored(t *testing.T) {
	t.Parallel()
	r := follow(t, embedded(t))
	r.awaitReady(t)
	w := messaging.NewWriter(r.hub, r.log)
	now := time.Now()
	var rs []revocation.Revocation
	for i := range 20 {
		rs = append(rs, revoked(fmt.Sprint("jti-", i), now))
	}
	rs[13].Reason = strings.Repeat("x", 2<<20) // beyond what a message can be
	for i, o := range w.Put(t.Context(), rs...) {
		if bad := i == 13; o.Changed == bad || (o.Err != nil) != bad {
			t.Errorf("%d: %+v", i, o)
		}
	}
	r.settle(t)
	if n := len(r.held()); n != 19 {
		t.Errorf("%d are held, want 19", n)
	}
}

// While the hub is away a write is tried again, and found where only its answer
// was lost; it ends with its context.
func TestPutWaitsForTheHub(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := standalone(t, dir, -1)
	port := portOf(t, s)
	r := follow(t, external(s))
	r.awaitReady(t)
	w := messaging.NewWriter(r.hub, r.log)
	shutdown(s)
	done := make(chan []messaging.Outcome, 1)
	go func() { done <- w.Put(t.Context(), revoked("a", time.Now()), revoked("b", time.Now())) }()
	select {
	case o := <-done:
		t.Fatalf("without a hub: %+v", o)
	case <-time.After(300 * time.Millisecond):
	}
	standalone(t, dir, port)
	for _, o := range <-done {
		if o.Err != nil {
			t.Errorf("%+v", o)
		}
	}
	r.settle(t)
	if n := len(r.held()); n != 2 {
		t.Errorf("%d are held, want 2", n)
	}
}

func TestPutEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	r := follow(t, external(s))
	r.awaitReady(t)
	shutdown(s)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	for _, o := range messaging.NewWriter(r.hub, r.log).Put(ctx, revoked("a", time.Now())) {
		if o.Err == nil || errors.Is(o.Err, messaging.ErrRecord) {
			t.Errorf("%+v", o)
		}
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

// Every outcome names the record that says it: of a batch, of the halves of one
// that was refused, and where nothing was written.
func TestOutcomesNameTheirVersions(t *testing.T) {
	t.Parallel()
	r := follow(t, embedded(t))
	r.awaitReady(t)
	now := time.Now()
	keys := func(from, to int) (rs []revocation.Revocation) {
		for i := from; i < to; i++ {
			rs = append(rs, revoked(fmt.Sprint("jti-", i), now))
		}
		return rs
	}
	other := revocation.NewLog(grace) // knows nothing: it expects every key to be new
	check := func(name string, rs []revocation.Revocation, changed int) {
		t.Helper()
		outcomes := messaging.NewWriter(r.hub, other).Put(t.Context(), rs...)
		if n := count(t, outcomes); n != changed {
			t.Errorf("%s: %d changed the log, want %d", name, n, changed)
		}
		for i, o := range outcomes {
			if _, msg := r.record(t, revocation.DomainToken, rs[i].Key); o.Version != msg.Sequence {
				t.Errorf("%s: %s is of version %d, its record of %d", name, rs[i].Key, o.Version, msg.Sequence)
			}
		}
	}
	check("one", keys(0, 1), 1)
	check("a few", keys(1, 8), 7)
	check("a batch", keys(10, 60), 50)
	check("halves", keys(40, 120), 60)
	check("two batches", keys(200, 1300), 1100)
	check("known already", keys(10, 60), 0)
}
