package messaging_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"revocation-adapter/messaging"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// startToBury runs a replica that buries at once what it cannot store.
func startToBury(t *testing.T) *replica {
	t.Helper()
	cfg := embedded(t)
	cfg.MaxDeliveries = 1
	return start(t, cfg)
}

// buryUnder publishes an event that becomes a dead letter, because a newer
// adapter has written the record of its key, and then mends the record.
func (r *replica) buryUnder(t *testing.T, mended *revocationv1.Record, subject string, event []byte) {
	t.Helper()
	before := len(r.deadLetters(t))
	newer := proto.CloneOf(mended)
	newer.Format = 2
	r.store(t, newer)
	r.publish(t, subject, event)
	r.settle(t)
	if n := len(r.deadLetters(t)); n != before+1 {
		t.Fatalf("%d dead letters, want %d", n, before+1)
	}
	r.store(t, mended)
	r.settle(t)
}

// replay replays every dead letter and waits until the events are handled.
func (r *replica) replay(t *testing.T) {
	t.Helper()
	for _, d := range r.deadLetters(t) {
		_, err := messaging.Replay(t.Context(), r.conn, d)
		fatal(t, err)
	}
	r.settle(t)
}

// approvedRecord is the record of an approval long ago.
func approvedRecord(rec *revocationv1.Record) *revocationv1.Record {
	rec.State, rec.TimeMicros = revocationv1.State_STATE_APPROVED, time.Now().Add(-time.Hour).UnixMicro()
	return rec
}

// Of an opaque token a dead letter has only the digest: it is enough.
func TestAnOpaqueTokenIsRevokedByReplay(t *testing.T) {
	t.Parallel()
	r := startToBury(t)
	digest := revocation.DigestOf(revocation.DomainOpaque, secret)
	rec := approvedRecord(revokedRecord("", time.Now().Add(time.Hour)))
	rec.Domain, rec.Digest, rec.Kind = revocationv1.Domain_DOMAIN_OPAQUE, digest[:], revocationv1.Kind_KIND_UNSPECIFIED
	r.buryUnder(t, rec, messaging.SubjectRevocation, fields{"eventId": "e1", "revokedToken": secret, "expiryTime": inAnHour()}.event())
	name := revocation.NamePrefix + digest.String()
	if d := r.deadLetters(t)[0]; strings.Contains(string(d.Event), secret) || r.held()[name] != revocation.Approved {
		t.Fatalf("before: %s, held %v", d.Event, r.held())
	}
	r.replay(t)
	if letters := r.deadLetters(t); len(letters) != 0 || r.held()[name] != revocation.Revoked || len(r.held()) != 1 {
		t.Errorf("after: dead letters %v, held %v", letters, r.held())
	}
	if got := r.outcomes(t); got["stored"] != 1 || got["dead_letter"] != 1 {
		t.Errorf("outcomes %v", got)
	}
}

// A replayed event is as old as it is, and does not overturn what came since.
func TestAReplayOverturnsNothingLater(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, subject, later string
		want                 revocation.State
	}{
		{"a revocation", messaging.SubjectRevocation, messaging.SubjectApproval, revocation.Approved},
		{"an approval", messaging.SubjectApproval, messaging.SubjectRevocation, revocation.Revoked},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := startToBury(t)
			rec := approvedRecord(revokedRecord("jti-1", time.Now().Add(time.Hour)))
			r.buryUnder(t, rec, tt.subject, jwtEvent("e1", "jti-1"))
			r.publish(t, tt.later, jwtEvent("e2", "jti-1"))
			r.settle(t)
			r.replay(t)
			if got := r.held()["jti-1"]; got != tt.want || len(r.deadLetters(t)) != 0 {
				t.Errorf("it is %s, want %s", got, tt.want)
			}
		})
	}
}

// What is still not understood is a dead letter again, with the time at which it
// first came, and is not replayed again.
func TestAReplayOfWhatIsNotUnderstoodEnds(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	bad := []fields{
		{"revokedToken": "jti-1", "type": "JWT", "expiryTime": -1},
		{"revokedToken": []string{secret}},
		{"revokedToken": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0." + secret, "type": "JWT"},
		{"revokedToken": secret, "type": "x"},
	}
	for _, e := range bad {
		r.publish(t, messaging.SubjectRevocation, e.event())
		r.settle(t)
	}
	before, version := r.deadLetters(t), r.version()
	headers := r.headers(t)
	replayed := 0
	for d, err := range messaging.DeadLetters(t.Context(), r.conn) {
		fatal(t, err)
		_, err = messaging.Replay(t.Context(), r.conn, d)
		fatal(t, err)
		r.settle(t)
		replayed++
	}
	after := r.deadLetters(t)
	if replayed != len(bad) || len(after) != len(bad) || r.version() != version {
		t.Fatalf("%d were replayed, %d are left, version %d; want %d at %d", replayed, len(after), r.version(), len(bad), version)
	}
	for i, d := range after {
		b := before[i]
		if d.Sequence <= before[len(bad)-1].Sequence || string(d.Event) != string(b.Event) || d.Reason == "" {
			t.Errorf("%s %+v became %+v", d.Event, b, d)
		}
	}
	if !slices.Equal(r.headers(t), headers) {
		t.Errorf("they first came at %v, now %v", headers, r.headers(t))
	}
}

// headers are the times at which the events of dead letters first came.
func (r *replica) headers(t *testing.T) (came []string) {
	t.Helper()
	for _, d := range r.deadLetters(t) {
		msg, err := r.stream(t, messaging.DeadLetterStream).GetMsg(t.Context(), d.Sequence)
		fatal(t, err)
		at := msg.Header.Get("Event-Came")
		if _, err := time.Parse(time.RFC3339Nano, at); err != nil {
			t.Error(err)
		}
		came = append(came, at)
	}
	return came
}

func TestReplayKeepsWhatItCannotPublish(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	r.publish(t, messaging.SubjectRevocation, []byte(strings.Repeat("x", 1<<20)))
	r.settle(t)
	d := r.deadLetters(t)[0]
	if _, err := messaging.Replay(t.Context(), r.conn, d); !errors.Is(err, messaging.ErrIncomplete) {
		t.Errorf("an event that is not whole: %v", err)
	}
	r.stop()
	fatal(t, r.js.DeleteStream(t.Context(), messaging.IngestStream))
	d.Reason = "something else"
	if _, err := messaging.Replay(t.Context(), r.conn, d); !errors.Is(err, jetstream.ErrNoStreamResponse) {
		t.Errorf("a hub without %s: %v", messaging.IngestStream, err)
	}
	if n := len(r.deadLetters(t)); n != 1 {
		t.Errorf("%d dead letters, want the one", n)
	}
}

func TestPurgeDeadLetters(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	for range 4 {
		r.publish(t, messaging.SubjectRevocation, []byte("malformed"))
		r.settle(t)
	}
	letters := r.deadLetters(t)
	fatal(t, messaging.RemoveDeadLetter(t.Context(), r.conn, letters[0].Sequence))
	if err := messaging.RemoveDeadLetter(t.Context(), r.conn, letters[0].Sequence); err == nil {
		t.Error("it is removed twice")
	}
	for _, tt := range []struct {
		before  time.Time
		removed int
		left    int
	}{
		{letters[0].Time, 0, 3},
		{letters[2].Time, 1, 2},
		{letters[3].Time.Add(time.Nanosecond), 2, 0},
		{time.Now(), 0, 0},
	} {
		removed, err := messaging.PurgeDeadLetters(t.Context(), r.conn, tt.before)
		if left := len(r.deadLetters(t)); err != nil || removed != tt.removed || left != tt.left {
			t.Errorf("%d removed, %d left, %v; want %d and %d", removed, left, err, tt.removed, tt.left)
		}
	}
}

// Anybody may say when an event first came: it can only be made older, and
// never end earlier.
func TestWhenAnEventFirstCame(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	began := time.Now()
	earlier := began.Add(-48 * time.Hour).UTC()
	for name, tt := range map[string]struct {
		header string
		want   time.Time // zero: when it was stored
	}{
		"earlier":      {earlier.Format(time.RFC3339Nano), earlier},
		"later":        {began.Add(time.Hour).Format(time.RFC3339Nano), time.Time{}},
		"no time":      {"yesterday", time.Time{}},
		"before times": {"1970-01-01T00:00:00Z", time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			msg := &nats.Msg{Subject: messaging.SubjectRevocation, Data: fields{"eventId": "e1", "revokedToken": name, "type": "JWT"}.event()}
			msg.Header = nats.Header{"Event-Came": {tt.header}}
			_, err := r.js.PublishMsg(t.Context(), msg)
			fatal(t, err)
			r.settle(t)
			rec, _ := r.record(t, revocation.DomainToken, name)
			at := time.UnixMicro(rec.GetTimeMicros())
			if tt.want.IsZero() && at.Before(began.Truncate(time.Microsecond)) || !tt.want.IsZero() && !at.Equal(tt.want.Truncate(time.Microsecond)) {
				t.Errorf("it came at %s, want %s", at, tt.want)
			}
			if expiry := time.UnixMilli(rec.GetExpiryMillis()); expiry.Before(began.Add(r.cfg.UnknownLife - time.Minute)) {
				t.Errorf("it counts until %s only", expiry)
			}
		})
	}
}
