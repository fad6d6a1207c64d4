package messaging_test

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"

	"revocation-adapter/messaging"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// outcomes is how often an event came to each end.
func (r *replica) outcomes(t *testing.T) map[string]int {
	t.Helper()
	all := map[string]int{}
	for _, o := range []string{"stored", "duplicate", "expired", "dead_letter", "retried", "failed"} {
		if n := int(r.metric(t, "events_total", "outcome", o)); n > 0 {
			all[o] = n
		}
	}
	return all
}

// outcomesOnce are those without what came again after it was stored, as what is
// not confirmed in time does.
func (r *replica) outcomesOnce(t *testing.T) map[string]int {
	t.Helper()
	all := r.outcomes(t)
	delete(all, "duplicate")
	return all
}

func TestAnEventBecomesARecord(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	expiry := inAnHour()
	tests := []struct {
		name   string
		event  fields
		domain revocation.Domain
		kind   revocationv1.Kind
		logged string
	}{
		{"JWT", fields{"eventId": "e1", "revokedToken": "fc8ee897", "type": "JWT", "expiryTime": expiry, "tenantId": -1234}, revocation.DomainToken, revocationv1.Kind_KIND_JWT, "JWT"},
		{"API key in seconds", fields{"eventId": "e2", "revokedToken": "4e330dbd", "type": "API_KEY", "expiryTime": fmt.Sprint(expiry / 1000)}, revocation.DomainToken, revocationv1.Kind_KIND_API_KEY, "API_KEY"},
		{"opaque token", fields{"eventId": "e3", "revokedToken": "aa", "type": "Default", "expiryTime": expiry}, revocation.DomainOpaque, 0, "Default"},
		{"blank type", fields{"eventId": "e4", "revokedToken": "bb", "type": "", "expiryTime": expiry}, revocation.DomainOpaque, 0, "Default"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.publish(t, messaging.SubjectRevocation, tt.event.event())
			r.settle(t)
			key := fmt.Sprint(tt.event["revokedToken"])
			rec, msg := r.record(t, tt.domain, key)
			if rec.GetState() != revocationv1.State_STATE_REVOKED || rec.GetKind() != tt.kind ||
				rec.GetLifetime() != revocationv1.Lifetime_LIFETIME_DATED || rec.GetExpiryMillis()/1000 != expiry/1000 {
				t.Errorf("stored: %v", rec)
			}
			if events := rec.GetEvents(); len(events) != 1 || events[0].GetId() != tt.event["eventId"] || events[0].GetTimeMicros() != rec.GetTimeMicros() {
				t.Errorf("events %v", events)
			}
			if msg.Sequence != r.version() || len(r.held()) != i+1 {
				t.Errorf("stored at %d, the log is at %d with %v", msg.Sequence, r.version(), r.held())
			}
			r.checkLogged(t, tt.logged)
		})
	}
	if got := r.outcomes(t); got["stored"] != len(tests) || len(got) != 1 {
		t.Errorf("outcomes %v, want %d stored", got, len(tests))
	}
}

// checkLogged checks the last two lines of the listener.
func (r *replica) checkLogged(t *testing.T, typ string) {
	t.Helper()
	lines := r.book.find(logrus.InfoLevel, "Event ")
	if len(lines) == 0 {
		t.Fatal("no event is logged")
	}
	last := lines[len(lines)-1]
	if last.Message != "Event "+typ+" is received" || len(last.Data) > 0 {
		t.Errorf("logged %q %v", last.Message, last.Data)
	}
	if last.Caller == nil || !strings.HasSuffix(last.Caller.Function, ".handleTokenRevocation") ||
		filepath.Base(last.Caller.File) != "revoked_token_listener.go" {
		t.Errorf("logged from %+v", last.Caller)
	}
	details := r.book.find(logrus.DebugLevel, "RevokedToken: ")
	if len(details) != len(lines) || details[len(details)-1].Message != "RevokedToken: ********, Token Type: "+typ {
		t.Errorf("%d details of %d events, the last: %q", len(details), len(lines), details[len(details)-1].Message)
	}
}

func TestADuplicateTakesNoVersion(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	event := jwtEvent("e1", "jti-1")
	r.publish(t, messaging.SubjectRevocation, event)
	r.settle(t)
	before, version := r.content(t, messaging.LogStream), r.version()
	for range 3 {
		r.publish(t, messaging.SubjectRevocation, event)
	}
	r.settle(t)
	if after := r.content(t, messaging.LogStream); fmt.Sprint(before) != fmt.Sprint(after) || r.version() != version {
		t.Errorf("version %d %v became %d %v", version, before, r.version(), after)
	}
	if got := r.outcomes(t); got["stored"] != 1 || got["duplicate"] != 3 || len(got) != 2 {
		t.Errorf("outcomes %v", got)
	}
}

func TestExpiredEventsAreDropped(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		expiry func(time.Time) int64
		kept   bool
	}{
		{"a second beyond grace", func(now time.Time) int64 { return now.Add(-grace - time.Second).UnixMilli() }, false},
		{"long ago", func(time.Time) int64 { return 1_628_175_421_481 }, false},
		{"long ago in seconds", func(time.Time) int64 { return 1_628_175_421 }, false},
		{"inside grace", func(now time.Time) int64 { return now.Add(-grace + time.Minute).UnixMilli() }, true},
		{"inside grace in seconds", func(now time.Time) int64 { return now.Add(-grace + time.Minute).Unix() }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, embedded(t))
			version := r.version()
			r.publish(t, messaging.SubjectRevocation, fields{"revokedToken": "a", "type": "JWT", "expiryTime": tt.expiry(time.Now())}.event())
			r.settle(t)
			outcome, held := "expired", 0
			if tt.kept {
				outcome, held, version = "stored", 1, version+1
			}
			if got := r.outcomes(t); got[outcome] != 1 || len(got) != 1 || len(r.held()) != held || r.version() != version {
				t.Errorf("outcomes %v, held %v, version %d, want %s at %d", got, r.held(), r.version(), outcome, version)
			}
			if letters := r.deadLetters(t); len(letters) > 0 {
				t.Errorf("dead letters %v", letters)
			}
		})
	}
}

func TestLifetimes(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	hour, unknown := int64((time.Hour + grace).Seconds()), int64((r.cfg.UnknownLife + grace).Seconds())
	tests := []struct {
		name     string
		expiry   any
		lifetime revocationv1.Lifetime
		ttl      int64 // seconds; 0: none
	}{
		{"dated", inAnHour(), revocationv1.Lifetime_LIFETIME_DATED, hour},
		{"unknown", 0, revocationv1.Lifetime_LIFETIME_UNKNOWN, unknown},
		{"missing", nil, revocationv1.Lifetime_LIFETIME_UNKNOWN, unknown},
		{"never", revocation.Never, revocationv1.Lifetime_LIFETIME_NEVER, 0},
		{"far ahead", time.Now().AddDate(150, 0, 0).UnixMilli(), revocationv1.Lifetime_LIFETIME_NEVER, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.publish(t, messaging.SubjectRevocation, fields{"revokedToken": tt.name, "type": "JWT", "expiryTime": tt.expiry}.event())
			r.settle(t)
			rec, msg := r.record(t, revocation.DomainToken, tt.name)
			var ttl int64
			if text := msg.Header.Get(jetstream.MsgTTLHeader); text != "" {
				if _, err := fmt.Sscan(text, &ttl); err != nil {
					t.Fatalf("TTL %q: %v", text, err)
				}
			}
			if rec.GetLifetime() != tt.lifetime || ttl > tt.ttl || ttl < tt.ttl-60 {
				t.Errorf("%s for %d s, want %s for %d s", rec.GetLifetime(), ttl, tt.lifetime, tt.ttl)
			}
			if rec.GetExpiryMillis() == 0 || (rec.GetExpiryMillis() == revocation.Never) != (ttl == 0) {
				t.Errorf("expiry %d, TTL %d s", rec.GetExpiryMillis(), ttl)
			}
		})
	}
	counts := r.log.Snapshot().Counts()
	if counts != (revocation.Counts{Dated: 1, Unknown: 2, Forever: 2}) || r.metric(t, "unknown_expiry_total") != 2 {
		t.Errorf("counts %+v, %v of unknown expiry", counts, r.metric(t, "unknown_expiry_total"))
	}
}

func TestTheKindIsNoIdentity(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	first, last := inAnHour(), inAnHour()+1000
	r.publish(t, messaging.SubjectRevocation, fields{"eventId": "e1", "revokedToken": "a", "type": "JWT", "expiryTime": first}.event())
	r.settle(t)
	r.publish(t, messaging.SubjectRevocation, fields{"eventId": "e2", "revokedToken": "a", "type": "API_KEY", "expiryTime": last}.event())
	r.settle(t)
	rec, _ := r.record(t, revocation.DomainToken, "a")
	if rec.GetKind() != revocationv1.Kind_KIND_API_KEY || rec.GetExpiryMillis() != last || len(rec.GetEvents()) != 2 {
		t.Errorf("stored %v", rec)
	}
	if content := r.content(t, messaging.LogStream); len(content) != 1 || len(r.held()) != 1 {
		t.Errorf("%d records, held %v, want one", len(content), r.held())
	}
}

func TestApproval(t *testing.T) {
	t.Parallel()
	expiry := inAnHour()
	event := func(id string, more fields) []byte {
		f := fields{"eventId": id, "revokedToken": "a", "type": "JWT", "expiryTime": expiry}
		for k, v := range more {
			f[k] = v
		}
		return f.event()
	}
	type step struct {
		subject string
		event   []byte
	}
	revoke := func(id string) step { return step{messaging.SubjectRevocation, event(id, nil)} }
	approve := func(id string) step { return step{messaging.SubjectApproval, event(id, nil)} }
	tests := []struct {
		name  string
		steps []step
		want  revocation.State
	}{
		{"a revoked token", []step{revoke("e1"), approve("e2")}, revocation.Approved},
		{"a token that was never revoked", []step{approve("e1")}, revocation.Approved},
		{"a retry of the first revocation", []step{revoke("e1"), approve("e2"), revoke("e1")}, revocation.Approved},
		{"a new revocation", []step{revoke("e1"), approve("e2"), revoke("e3")}, revocation.Revoked},
		{"a retry of the approval", []step{revoke("e1"), approve("e2"), revoke("e3"), approve("e2")}, revocation.Revoked},
		{"its status may say so", []step{revoke("e1"), {messaging.SubjectApproval, event("e2", fields{"status": "approved"})}}, revocation.Approved},
		{"an approval that says revoked", []step{revoke("e1"), {messaging.SubjectApproval, event("e2", fields{"status": "revoked"})}}, revocation.Revoked},
		{"a revocation that says approved", []step{revoke("e1"), {messaging.SubjectRevocation, event("e2", fields{"status": "approved"})}}, revocation.Revoked},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, embedded(t))
			for _, s := range tt.steps {
				r.publish(t, s.subject, s.event)
				r.settle(t)
			}
			if got := r.held()["a"]; got != tt.want {
				t.Errorf("it is %s, want %s; outcomes %v", got, tt.want, r.outcomes(t))
			}
			if content := r.content(t, messaging.LogStream); len(content) != 1 {
				t.Errorf("%d records, want one", len(content))
			}
			if again := follow(t, r.sameHub()); true {
				again.awaitReady(t)
				if got := again.held()["a"]; got != tt.want || again.version() != r.version() {
					t.Errorf("a new replica says %s at %d, want %s at %d", got, again.version(), tt.want, r.version())
				}
			}
		})
	}
}

// What was fetched and not begun comes back at once, not after ackWait.
func TestAStoppedListenerGivesBackItsEvents(t *testing.T) {
	t.Parallel()
	for range 10 {
		if givesBack(t) {
			return
		}
	}
	t.Error("events come back only after ackWait, or all were handled before the listener stopped: publish more, or this proves nothing")
}

// givesBack returns false where nothing was left, or where what was left may have
// waited: the machine may be busy.
func givesBack(t *testing.T) bool {
	t.Helper()
	cfg := embedded(t)
	cfg.Workers = 1
	r := prepare(t, cfg)
	defer r.close()
	const events, ackWait = 600, 5 * time.Second // more events than are begun at the same time
	for i := range events {
		r.publish(t, messaging.SubjectRevocation, jwtEvent(fmt.Sprint("e", i), fmt.Sprint("jti-", i)))
	}
	began := time.Now()
	r.run(t, r.listener.Run)
	eventually(t, "the first is stored", func() bool { return r.state(t, messaging.LogStream).Msgs > 0 })
	r.stop()
	left := r.state(t, messaging.IngestStream).Msgs
	r.run(t, r.follower.Run, r.listener.Run)
	r.settle(t)
	took := time.Since(began)
	if len(r.held()) != events {
		t.Errorf("%d of %d are held", len(r.held()), events)
	}
	t.Logf("%d were left, all are stored after %s", left, took)
	return left > 0 && took < ackWait
}

// An event that was taken is finished, and answered, before Run returns.
func TestStopFinishesWhatWasBegun(t *testing.T) {
	t.Parallel()
	for _, events := range []int{400, 200, 100, 50, 25} { // fewer, while the disk is slow
		if stopFinishes(t, events) {
			return
		}
	}
	t.Error("it never stops in time")
}

// stopFinishes returns false where it took so long that the listener may give up.
func stopFinishes(t *testing.T, events int) bool {
	t.Helper()
	cfg := embedded(t)
	cfg.Workers = 32
	r := prepare(t, cfg)
	for i := range events {
		r.publish(t, messaging.SubjectRevocation, jwtEvent(fmt.Sprint("e", i), fmt.Sprint("jti-", i)))
	}
	began := time.Now()
	r.run(t, r.listener.Run)
	eventually(t, "the first is stored", func() bool { return r.outcomes(t)["stored"] > 0 })
	stopping := time.Now()
	r.stop()
	late := time.Since(stopping) >= 2*time.Second || time.Since(began) >= 5*time.Second // then some come again
	r.close()
	if late {
		return false
	}
	if warnings := r.book.find(logrus.WarnLevel, "Event"); len(warnings) > 0 {
		t.Errorf("%d warnings, the first: %s", len(warnings), warnings[0].Message)
	}
	handled := r.outcomes(t)
	again := prepare(t, r.cfg)
	if stored := again.state(t, messaging.LogStream).Msgs; int(stored) != handled["stored"] || len(handled) > 1 { //nolint:gosec // a count
		t.Errorf("%d are stored, outcomes %v", stored, handled)
	}
	return true
}

// A whole JWT is a secret: its jti and expiry are read, and nothing else of it
// is kept. What looks like one and cannot be read is no jti either.
func TestWholeJWTs(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	enc := base64.RawURLEncoding.EncodeToString
	expiry := time.Now().Add(time.Hour).Truncate(time.Second)
	whole := enc([]byte(`{"alg":"RS256"}`)) + "." + enc(fmt.Appendf(nil, `{"jti":"jti-1","exp":%d}`, expiry.Unix())) + "." + secret
	r.publish(t, messaging.SubjectRevocation, fields{"revokedToken": whole, "type": "JWT"}.event())
	r.publish(t, messaging.SubjectRevocation, fields{"revokedToken": strings.Replace(whole, ".", ".!", 1), "type": "JWT"}.event())
	r.settle(t)
	if rec, _ := r.record(t, revocation.DomainToken, "jti-1"); rec.GetExpiryMillis() != expiry.UnixMilli() ||
		rec.GetLifetime() != revocationv1.Lifetime_LIFETIME_DATED {
		t.Errorf("stored %v, want it until %s", rec, expiry)
	}
	letters := r.deadLetters(t)
	if len(letters) != 1 || !strings.Contains(letters[0].Reason, "not a JWT") || len(r.held()) != 1 {
		t.Errorf("dead letters %v, held %v", letters, r.held())
	}
	kept := fmt.Sprint(r.content(t, messaging.LogStream), r.content(t, messaging.DeadLetterStream), r.book.text())
	if strings.Contains(kept, secret) || strings.Contains(kept, whole[:20]) {
		t.Errorf("a token is kept or logged: %s", kept)
	}
}
