package messaging_test

import (
	"sync/atomic"
	"testing"
	"time"

	"revocation-adapter/messaging"
)

// What INGEST holds is not in the log: as long as it is there, nobody is told
// that the log is complete as of a later time.
func TestCompleteWaitsForIngest(t *testing.T) {
	t.Parallel()
	r := follow(t, embedded(t))
	r.awaitReady(t)
	confirmed := func() messaging.Confirmation {
		c, _ := r.follower.Confirmed()
		return c
	}
	eventually(t, "the log is complete as of a time", func() bool { return !confirmed().Complete.IsZero() })
	r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", "waits"))
	came := r.state(t, messaging.IngestStream).FirstTime
	for range 2 { // confirmations that were asked for after it came
		before := max(confirmed().Time.UnixNano(), time.Now().UnixNano())
		eventually(t, "another confirmation", func() bool { return confirmed().Time.UnixNano() > before })
		if c := confirmed(); c.Complete.After(came) {
			t.Fatalf("complete as of %s, an event of %s waits", c.Complete, came)
		}
	}
	if err := r.stream(t, messaging.IngestStream).Purge(t.Context()); err != nil { // as if it were handled
		t.Fatal(err)
	}
	eventually(t, "it is complete again", func() bool { return confirmed().Complete.After(came) })
}

// The hub's clock is half a minute ahead of this replica's.
func TestCompleteByTheHubsClock(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	cfg.Now = func() time.Time { return time.Now().Add(-30 * time.Second) }
	r := follow(t, cfg)
	r.awaitReady(t)
	confirmed := func() messaging.Confirmation {
		c, _ := r.follower.Confirmed()
		return c
	}
	eventually(t, "complete", func() bool { return !confirmed().Complete.IsZero() })
	r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", "waits"))
	came := cfg.Now() // by this replica's clock
	for range 2 {
		before := max(confirmed().Time.UnixNano(), cfg.Now().UnixNano())
		eventually(t, "another confirmation", func() bool { return confirmed().Time.UnixNano() > before })
	}
	if c := confirmed(); c.Complete.After(came) {
		t.Errorf("complete as of %s, an event that came at %s waits in INGEST: %d", c.Complete, came, r.state(t, messaging.IngestStream).Msgs)
	}
}

// This replica's clock was an hour ahead when it started, and is corrected.
func TestCompleteAfterTheClockWasAhead(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	var ahead atomic.Int64
	ahead.Store(int64(time.Hour))
	cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	r := follow(t, cfg)
	r.awaitReady(t)
	confirmed := func() messaging.Confirmation {
		c, _ := r.follower.Confirmed()
		return c
	}
	eventually(t, "complete", func() bool { return !confirmed().Complete.IsZero() })
	ahead.Store(0)
	r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", "waits"))
	came := time.Now()
	at := confirmed().Time
	eventually(t, "another", func() bool { return !confirmed().Time.Equal(at) })
	at = confirmed().Time
	eventually(t, "another", func() bool { return !confirmed().Time.Equal(at) })
	if c := confirmed(); c.Complete.After(came) {
		t.Errorf("complete as of %s, now %s, an event waits in INGEST: %d", c.Complete, time.Now(), r.state(t, messaging.IngestStream).Msgs)
	}
}
