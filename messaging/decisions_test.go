package messaging_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revocation-adapter/messaging"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// deciding runs a replica that writes decisions.
func deciding(t *testing.T, cfg messaging.Config) (*replica, *messaging.Decisions) {
	t.Helper()
	r := prepare(t, cfg)
	d := messaging.NewDecisions(r.hub, r.log, messaging.NewMetrics(prometheus.NewRegistry()))
	r.run(t, r.follower.Run, d.Run)
	r.awaitReady(t)
	return r, d
}

// decided is a decision of a person.
func decided(id, jti string, state revocation.State, at time.Time) revocation.Revocation {
	one := revoked(jti, at)
	one.State, one.Source = state, messaging.SourceHTTP
	one.Events = []revocation.Event{{ID: id, Time: one.Time, State: state, Source: messaging.SourceHTTP, Actor: "alice", Reason: "left"}}
	return one
}

// one puts a single decision, which must be written.
func one(t *testing.T, d *messaging.Decisions, r revocation.Revocation) messaging.Outcome {
	t.Helper()
	o := d.Put(t.Context(), r)[0]
	if o.Err != nil {
		t.Fatalf("%s: %v", r.Key, o.Err)
	}
	return o
}

// What is decided later wins, though what it overturns carries a time ahead of
// every clock.
func TestDecisionsOverturnTheFuture(t *testing.T) {
	t.Parallel()
	r, d := deciding(t, embedded(t))
	now := time.Now()
	future := now.Add(time.Hour)
	for name, tt := range map[string]struct{ first, then revocation.State }{
		"an approval":  {revocation.Revoked, revocation.Approved},
		"a revocation": {revocation.Approved, revocation.Revoked},
	} {
		t.Run(name, func(t *testing.T) {
			one(t, d, decided("e1"+name, name, tt.first, future))
			o := one(t, d, decided("e2"+name, name, tt.then, now))
			record, err := r.hub.Record(t.Context(), revocation.DomainToken, revocation.DigestOf(revocation.DomainToken, name))
			fatal(t, err)
			if record.State != tt.then || record.Version != o.Version || !o.Changed || record.Time != future.UnixMicro()+1 {
				t.Errorf("the record is %+v after %+v", record, o)
			}
			if e := record.Events[0]; e.Actor != "alice" || e.Reason != "left" || e.Source != "http" {
				t.Errorf("of the event is kept: %+v", e)
			}
			if again := one(t, d, decided("e1"+name, name, tt.first, now)); again.Changed || again.Version != o.Version {
				t.Errorf("a repeat of the first one: %+v", again)
			}
			if again := one(t, d, decided("e2"+name, name, tt.then, now)); again.Changed || again.Version != o.Version {
				t.Errorf("the same again, as after an answer that was lost: %+v", again)
			}
		})
	}
	t.Run("both in one call, in their order", func(t *testing.T) {
		outcomes := d.Put(t.Context(),
			decided("a", "both", revocation.Revoked, future), decided("b", "both", revocation.Approved, now), decided("c", "both", revocation.Revoked, now))
		var last uint64
		for i, o := range outcomes {
			if o.Err != nil || !o.Changed || o.Version <= last {
				t.Errorf("%d: %+v", i, o)
			}
			last = o.Version
		}
		if rec, _ := r.record(t, revocation.DomainToken, "both"); rec.GetState() != revocationv1.State_STATE_REVOKED {
			t.Errorf("in the end it is %s", rec.GetState())
		}
	})
}

func TestDecisionsNothingIsKnownOf(t *testing.T) {
	t.Parallel()
	r, d := deciding(t, embedded(t))
	digest := revocation.DigestOf(revocation.DomainToken, "a")
	if record, err := r.hub.Record(t.Context(), revocation.DomainToken, digest); !errors.Is(err, messaging.ErrNoRecord) {
		t.Errorf("%+v, %v", record, err)
	}
	o := one(t, d, decided("e1", "a", revocation.Revoked, time.Now()))
	record, err := r.hub.Record(t.Context(), revocation.DomainToken, digest)
	if err != nil || record.Version != o.Version || record.Key != "a" || time.Since(record.Stored) > time.Minute {
		t.Errorf("%+v, %v", record, err)
	}
	if outcomes := d.Put(t.Context()); len(outcomes) != 0 {
		t.Errorf("of nothing: %v", outcomes)
	}
}

// Many callers decide on one key at the same time, at two replicas: each gets the
// version of a record that said what he decided, and the last version holds.
func TestDecisionsOfManyCallersOnOneKey(t *testing.T) {
	t.Parallel()
	r, d := deciding(t, embedded(t))
	_, other := deciding(t, r.sameHub())
	const callers, rounds = 16, 12
	type said struct {
		version uint64
		state   revocation.State
	}
	all := make(chan said, callers*rounds)
	var group sync.WaitGroup
	for c := range callers {
		group.Go(func() {
			for round := range rounds {
				state := revocation.State(1 + (c+round)%2) //nolint:gosec // 1 or 2
				at := []*messaging.Decisions{d, other}[c%2]
				o := at.Put(t.Context(), decided(fmt.Sprint(c, "-", round), "key", state, time.Now()))[0]
				if o.Err != nil {
					t.Error(o.Err)
					return
				}
				all <- said{o.Version, state}
			}
		})
	}
	group.Wait()
	close(all)
	states := map[uint64]revocation.State{}
	var last uint64
	for s := range all {
		if was, known := states[s.version]; known && was != s.state {
			t.Errorf("version %d says %s and %s", s.version, was, s.state)
		}
		states[s.version] = s.state
		last = max(last, s.version)
	}
	record, err := r.hub.Record(t.Context(), revocation.DomainToken, revocation.DigestOf(revocation.DomainToken, "key"))
	if err != nil || record.Version != last || record.State != states[last] {
		t.Errorf("the record is %s of %d, %v; the last answer was %s of %d", record.State, record.Version, err, states[last], last)
	}
}

// Who brings ten thousand keys does not hold back who brings one.
func TestDecisionsOfABulkHoldBackNobody(t *testing.T) {
	t.Parallel()
	_, d := deciding(t, embedded(t))
	bulk := make([]revocation.Revocation, 10_000)
	for i := range bulk {
		bulk[i] = decided(fmt.Sprint("b", i), fmt.Sprint("bulk-", i), revocation.Revoked, time.Now())
	}
	begun := one(t, d, decided("first", "first", revocation.Revoked, time.Now())).Version
	done := make(chan []messaging.Outcome, 1)
	go func() { done <- d.Put(t.Context(), bulk...) }()
	between := 0
	for i := 0; ; i++ {
		v := one(t, d, decided(fmt.Sprint("s", i), fmt.Sprint("single-", i), revocation.Revoked, time.Now())).Version
		select {
		case outcomes := <-done:
			if n := count(t, outcomes); n != len(bulk) || between < 3 {
				t.Errorf("%d of the bulk are written, %d singles in between, want some", n, between)
			}
			return
		default:
			if v > begun+1 && v < begun+uint64(len(bulk)) {
				between++
			}
		}
	}
}

func TestDecisionsAreRefusedWhereTheLogIsFull(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	cfg.Limits.MaxLive = 2
	r, d := deciding(t, cfg)
	now := time.Now()
	d.Put(t.Context(), decided("1", "a", revocation.Revoked, now), decided("2", "b", revocation.Revoked, now))
	r.settle(t)
	outcomes := d.Put(t.Context(), decided("3", "c", revocation.Revoked, now), decided("4", "a", revocation.Approved, now.Add(time.Second)))
	if !errors.Is(outcomes[0].Err, messaging.ErrFull) || outcomes[1].Err != nil || !outcomes[1].Changed {
		t.Errorf("got %+v", outcomes)
	}
	bulk := make([]revocation.Revocation, 5000)
	for i := range bulk {
		bulk[i] = decided(fmt.Sprint("b", i), fmt.Sprint("bulk-", i), revocation.Revoked, now)
	}
	for i, o := range d.Put(t.Context(), bulk...) {
		if !errors.Is(o.Err, messaging.ErrFull) {
			t.Fatalf("%d: %+v", i, o)
		}
	}
}

// A list that does not fit is written as far as there is room, and little further.
func TestDecisionsFillTheLog(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	cfg.Limits.MaxLive = 1000
	r, d := deciding(t, cfg)
	bulk := make([]revocation.Revocation, 8000)
	for i := range bulk {
		bulk[i] = decided(fmt.Sprint("b", i), fmt.Sprint("bulk-", i), revocation.Revoked, time.Now())
	}
	written := uint64(0)
	for i, o := range d.Put(t.Context(), bulk...) {
		switch {
		case o.Err == nil:
			written++
		case !errors.Is(o.Err, messaging.ErrFull):
			t.Fatalf("%d: %+v", i, o)
		}
	}
	if s := r.state(t, messaging.LogStream); written < 1000 || written > 4000 || s.Msgs != written {
		t.Errorf("%d are written, %d stored, want 1000 and some", written, s.Msgs)
	}
}

func TestDecisionsRefuseTexts(t *testing.T) {
	t.Parallel()
	_, d := deciding(t, embedded(t))
	bad := decided("1", "a", revocation.Revoked, time.Now())
	bad.Events[0].Reason = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0." + secret
	outcomes := d.Put(t.Context(), bad, decided("2", "b", revocation.Revoked, time.Now()))
	if err := outcomes[0].Err; !errors.Is(err, revocation.ErrEventText) || strings.Contains(err.Error(), secret) || outcomes[1].Err != nil {
		t.Errorf("got %+v", outcomes)
	}
}

func TestDecisionsAreCounted(t *testing.T) {
	t.Parallel()
	r := prepare(t, embedded(t))
	reg := prometheus.NewRegistry()
	d := messaging.NewDecisions(r.hub, r.log, messaging.NewMetrics(reg))
	r.run(t, r.follower.Run, d.Run)
	r.awaitReady(t)
	now := time.Now()
	one(t, d, decided("1", "a", revocation.Revoked, now))
	one(t, d, decided("1", "a", revocation.Revoked, now))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	d.Put(ended, decided("2", "b", revocation.Revoked, now))
	r.reg = reg
	if got := r.outcomes(t); got["stored"] != 1 || got["duplicate"] != 1 || got["failed"] != 1 {
		t.Errorf("counted %v", got)
	}
}

// A caller whose context ends gets an error, and what was not begun is not written.
// Where nothing runs any more, everybody gets one.
func TestDecisionsEnd(t *testing.T) {
	t.Parallel()
	r := prepare(t, embedded(t))
	d := messaging.NewDecisions(r.hub, r.log, messaging.NewMetrics(prometheus.NewRegistry()))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if o := d.Put(ctx, decided("1", "a", revocation.Revoked, time.Now()))[0]; !errors.Is(o.Err, context.DeadlineExceeded) || o.Version != 0 {
		t.Errorf("nobody writes yet: %+v", o)
	}
	r.run(t, d.Run)
	one(t, d, decided("2", "b", revocation.Revoked, time.Now()))
	if s := r.state(t, messaging.LogStream); s.Msgs != 1 {
		t.Errorf("%d records, want that of b alone", s.Msgs)
	}
	r.stop()
	if o := d.Put(t.Context(), decided("3", "c", revocation.Revoked, time.Now()))[0]; !errors.Is(o.Err, messaging.ErrDecisionsStopped) {
		t.Errorf("after the end: %+v", o)
	}
}

// While callers decide, the hub is closed. What was answered is stored; the others
// get an error, and soon.
func TestDecisionsOfAHubThatIsClosed(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	r := prepare(t, cfg)
	d := messaging.NewDecisions(r.hub, r.log, messaging.NewMetrics(prometheus.NewRegistry()))
	r.run(t, d.Run)
	var stored sync.Map
	var answered atomic.Int64
	var group sync.WaitGroup
	for c := range 8 {
		group.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprint(c, "-", i)
				began := time.Now()
				o := d.Put(t.Context(), decided(key, key, revocation.Revoked, began))[0]
				if o.Err != nil {
					if took := time.Since(began); took > 8*time.Second || o.Version != 0 {
						t.Errorf("after %s: %+v", took, o)
					}
					return
				}
				stored.Store(key, o.Version)
				answered.Add(1)
			}
		})
	}
	eventually(t, "some are answered", func() bool { return answered.Load() > 200 })
	r.hub.Close()
	group.Wait()
	r.stop()
	again := follow(t, cfg)
	again.awaitReady(t)
	stored.Range(func(key, version any) bool {
		if _, msg := again.record(t, revocation.DomainToken, key.(string)); msg.Sequence != version {
			t.Errorf("%s is at %d, was answered as %d", key, msg.Sequence, version)
		}
		return true
	})
}

// An outcome says of whom the record is: whom a call names is not all whom it concerns.
func TestDecisionsSayWhomTheyConcern(t *testing.T) {
	t.Parallel()
	_, d := deciding(t, embedded(t))
	now := time.Now()
	for i, step := range []struct {
		tenant, want string
		changed      bool
	}{
		{"acme", "acme", true}, {"acme", "acme", false}, {"other", "", true}, {"acme", "", false},
	} {
		r := decided(fmt.Sprint("t", i), "of-two", revocation.Revoked, now)
		r.Tenant = step.tenant
		if o := one(t, d, r); o.Tenant != step.want || o.Changed != step.changed {
			t.Errorf("%d: %+v", i, o)
		}
	}
}

// Who revokes once more what has no known expiry has it kept for about as long as the
// first did; said again soon after it changes nothing.
func TestDecisionsKeepWhatIsRevokedAgain(t *testing.T) {
	t.Parallel()
	r, d := deciding(t, embedded(t))
	const life = 90 * 24 * time.Hour
	now := time.Now()
	for i, step := range []struct {
		after   time.Duration
		changed bool
	}{{0, true}, {time.Hour, false}, {life - time.Hour, true}, {life, false}} {
		again := decided(fmt.Sprint("u", i), "of-unknown-life", revocation.Revoked, now)
		again.Expiry, again.Lifetime = now.Add(life+step.after).UnixMilli(), revocation.Unknown
		o := one(t, d, again)
		record, err := r.hub.Record(t.Context(), again.Domain, again.Digest)
		fatal(t, err)
		if o.Changed != step.changed || step.changed && record.Expiry != again.Expiry || record.Lifetime != revocation.Unknown {
			t.Errorf("after %s: %+v, %+v", step.after, o, record)
		}
	}
}
