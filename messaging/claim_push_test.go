package messaging_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// busy claims new tokens, some at the same time, until stop is called, which tells
// how many.
func (c claiming) busy(t *testing.T) (stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var done [8]int
	for i := range done {
		group.Go(func() {
			for ctx.Err() == nil {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
				outcome, err := claim(ctx, claimOf(fmt.Sprint("busy-", i, "-", done[i])), c)
				cancel()
				if outcome != revocation.ClaimGranted {
					t.Errorf("it is %s, %v", outcome, err)
				}
				done[i]++
			}
		})
	}
	return func() (all int) {
		cancel()
		group.Wait()
		for _, n := range done {
			all += n
		}
		return all
	}
}

// publications says how long it takes from one until n more have come.
func (r *replica) publications(t *testing.T, n int) time.Duration {
	t.Helper()
	late := time.After(patience)
	var began time.Time
	for i := range n + 1 {
		select {
		case <-r.log.Snapshot().Next():
		case <-late:
			t.Fatalf("after %s there are %d publications", patience, i)
		}
		if i == 0 {
			began = time.Now()
		}
	}
	return time.Since(began)
}

// Used tokens go out to all gateways, ten times a second at most, however many.
func TestUsedTokensArePublishedTogether(t *testing.T) {
	t.Parallel()
	r := decide(t, embedded(t))
	r.settle(t)
	stop := r.busy(t)
	const published = 30 // so many that one beat that is late does not matter
	took := r.publications(t, published)
	claims := stop()
	t.Logf("%d claims, %d publications in %s", claims, published, took)
	if published > 11*took.Seconds() || claims < published {
		t.Errorf("%d claims are shown in %d publications in %s", claims, published, took)
	}
	r.settle(t)
	if n := len(r.held()); n != claims {
		t.Errorf("%d are held, %d were used", n, claims)
	}
	if n := r.metric(t, "event_to_publication_seconds"); n != 0 {
		t.Errorf("%v claims are measured as events", n)
	}
}

// A revocation waits for no beat: neither among claims nor after one.
func TestARevocationAmongClaimsIsPublishedAtOnce(t *testing.T) {
	t.Parallel()
	r := decide(t, embedded(t))
	r.settle(t)
	w := messaging.NewWriter(r.hub, r.log)
	stop := r.busy(t)
	const times, soon = 30, 10 * time.Millisecond
	var delays []time.Duration
	late := 0
	for i := range times {
		jti := fmt.Sprint("jti-", i)
		count(t, w.Put(t.Context(), revoked(jti, time.Now())))
		began := time.Now()
		for s := r.log.Snapshot(); !r.shows(s, jti); s = r.log.Snapshot() {
			<-s.Next()
		}
		took := time.Since(began)
		delays = append(delays, took)
		if took > soon {
			late++
		}
		<-time.After(time.Duration(i%7) * 10 * time.Millisecond) // at all times of the beat
	}
	stop()
	t.Logf("shown after %s", delays)
	if late > 3*times/4 { // of those that wait for the beat nine in ten would be; the rest is for a busy machine
		t.Errorf("%d of %d are shown later than %s", late, times, soon)
	}
}

// shows says whether a token is in a snapshot.
func (r *replica) shows(s *revocation.Snapshot, jti string) bool {
	c, found := r.log.Lookup(jti)
	return found && c.Version <= s.Version()
}
