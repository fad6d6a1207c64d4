package messaging_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/sirupsen/logrus"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

func TestMetricsFollowTheConventions(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", "jti-1"))
	r.settle(t)
	families, err := r.reg.Gather()
	fatal(t, err)
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	fatal(t, err)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	for _, want := range []string{
		"events_total", "log_full", "records_undecodable_total", "records_purged_total", "unknown_expiry_total",
		"event_to_publication_seconds", "live_revocations", "approved_keys", "log_version", "hub_connected",
		"ingest_pending_events", "ingest_oldest_age_seconds", "dead_letters", "dead_letter_oldest_age_seconds",
	} {
		if !slices.Contains(names, "revocation_adapter_"+want) {
			t.Errorf("%s is missing in %v", want, names)
		}
	}
}

func TestEventsAreCountedBySourceKindAndOutcome(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	known, opaque := jwtEvent("e1", "jti-1"), fields{"eventId": "e2", "revokedToken": "x", "expiryTime": inAnHour()}.event()
	for _, e := range []struct {
		subject string
		event   []byte
	}{
		{messaging.SubjectRevocation, known},
		{messaging.SubjectRevocation, known},
		{messaging.SubjectRevocation, fields{"revokedToken": "key", "type": "api_key", "expiryTime": 0}.event()},
		{messaging.SubjectRevocation, fields{"revokedToken": "never", "type": "JWT", "expiryTime": revocation.Never}.event()},
		{messaging.SubjectRevocation, opaque},
		{messaging.SubjectApproval, opaque},
		{messaging.SubjectApproval, jwtEvent("e3", "jti-1")},
		{messaging.SubjectRevocation, fields{"revokedToken": "old", "type": "JWT", "expiryTime": 1}.event()},
		{messaging.SubjectRevocation, []byte("malformed")},
		{messaging.SubjectIssued, known},
	} {
		r.publish(t, e.subject, e.event)
		r.settle(t)
	}
	for _, want := range []struct {
		source, kind, outcome string
		n                     float64
	}{
		{"nats_revocation", "jwt", "stored", 2},
		{"nats_revocation", "jwt", "duplicate", 1},
		{"nats_revocation", "jwt", "expired", 1},
		{"nats_revocation", "api_key", "stored", 1},
		{"nats_revocation", "default", "stored", 1},
		{"nats_revocation", "unknown", "dead_letter", 1},
		{"nats_approval", "jwt", "stored", 1},
		{"nats_approval", "default", "duplicate", 1},
		{"nats_issued", "jwt", "stored", 1},
	} {
		if n := r.metric(t, "events_total", "source", want.source, "kind", want.kind, "outcome", want.outcome); n != want.n {
			t.Errorf("%v events %s %s %s, want %v", n, want.source, want.kind, want.outcome, want.n)
		}
	}
	if n := r.metric(t, "events_total"); n != 10 {
		t.Errorf("%v events in all, want 10", n)
	}
	for name, want := range map[string]float64{
		"dead_letters": 1, "ingest_pending_events": 0, "approved_keys": 1, "hub_connected": 1, "log_full": 0,
		"unknown_expiry_total": 1, "records_undecodable_total": 0, "log_version": float64(r.version()),
	} {
		if n := r.metric(t, name); n != want {
			t.Errorf("%s is %v, want %v", name, n, want)
		}
	}
	for lifetime, want := range map[string]float64{"dated": 1, "unknown": 1, "never": 1} {
		if n := r.metric(t, "live_revocations", "lifetime", lifetime); n != want {
			t.Errorf("%v live %s, want %v", n, lifetime, want)
		}
	}
	if n := r.metric(t, "event_to_publication_seconds"); n != 5 {
		t.Errorf("%v publications are measured, want 5", n)
	}
	if age := r.metric(t, "dead_letter_oldest_age_seconds"); age <= 0 || age > 3600 {
		t.Errorf("the oldest dead letter is %v s old", age)
	}
}

func TestDepthOfTheQueue(t *testing.T) {
	t.Parallel()
	r := prepare(t, embedded(t))
	for i := range 3 {
		r.publish(t, messaging.SubjectRevocation, jwtEvent(fmt.Sprint(i), "jti"))
	}
	if n := r.metric(t, "ingest_pending_events"); n != 3 {
		t.Errorf("%v events wait, want 3", n)
	}
	if age := r.metric(t, "ingest_oldest_age_seconds"); age <= 0 || age > 3600 {
		t.Errorf("the oldest of them is %v s old", age)
	}
	r.run(t, r.follower.Run, r.listener.Run)
	eventually(t, "none of them is left", func() bool {
		return r.metric(t, "ingest_pending_events") == 0 && r.metric(t, "ingest_oldest_age_seconds") == 0
	})
}

// A full log holds events back, drops none and forgets none.
func TestAFullLogHoldsEventsBack(t *testing.T) {
	t.Parallel()
	now := &clock{}
	cfg := embedded(t)
	cfg.Now, cfg.Limits.MaxLive, cfg.PurgeInterval = now.Now, 3, time.Second
	r := start(t, cfg)
	for i := range cfg.Limits.MaxLive {
		r.publish(t, messaging.SubjectRevocation, jwtEvent("", fmt.Sprint("jti-", i)))
		r.settle(t)
	}
	const late = 5 // the first of them may have been asked for already
	for i := range late {
		r.publish(t, messaging.SubjectRevocation, fields{
			"revokedToken": fmt.Sprint("late-", i), "type": "JWT", "expiryTime": time.Now().Add(24 * time.Hour).UnixMilli(),
		}.event())
		if i == 0 {
			eventually(t, "it is full", func() bool { return r.metric(t, "log_full") == 1 })
		}
	}
	if waiting, live := r.metric(t, "ingest_pending_events"), len(r.held()); waiting < late-1 || live > cfg.Limits.MaxLive+1 {
		t.Errorf("%v events wait, %d keys are held", waiting, live)
	}
	if lines := r.book.find(logrus.ErrorLevel, "The log is full"); len(lines) != 1 {
		t.Errorf("%d error lines, want one", len(lines))
	}
	now.advance(2 * time.Hour)
	eventually(t, "the first are purged", func() bool { return r.metric(t, "records_purged_total") == 3 })
	eventually(t, "there is room again", func() bool { return r.held()["late-0"] == revocation.Revoked })
	now.advance(24 * time.Hour)
	r.settle(t)              // what could not be stored in time has expired
	got := r.outcomesOnce(t) // what was stored and came again may have, too
	stored, expired := got["stored"], got["expired"]
	delete(got, "stored")
	delete(got, "expired")
	if all := cfg.Limits.MaxLive + late; stored > all || stored+expired < all || len(got) > 0 {
		t.Errorf("%d stored and %d expired of %d, others %v", stored, expired, all, got)
	}
	if full := r.metric(t, "log_full"); full != 0 {
		t.Errorf("log_full is %v", full)
	}
}

// A full queue refuses what is new: the publisher hears of it.
func TestAFullQueueRefuses(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	cfg.Limits.MaxPending = 2
	r := prepare(t, cfg)
	r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", "jti-1"))
	r.publish(t, messaging.SubjectRevocation, jwtEvent("e2", "jti-2"))
	before := r.content(t, messaging.IngestStream)
	conn, _ := anonymous(t, r.hub)
	if _, err := messaging.Publish(t.Context(), conn, messaging.SubjectRevocation, messaging.Announcement{RevokedToken: "jti-3"}); err == nil {
		t.Error("a full queue takes another event")
	}
	if after := r.content(t, messaging.IngestStream); fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("the queue was %v and is %v", before, after)
	}
}
