package messaging_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

func TestMalformedEventsBecomeDeadLetters(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	tests := []struct {
		name, subject string
		event         []byte
		reason        string
	}{
		{"no JSON", messaging.SubjectRevocation, []byte(secret), "not a JSON object"},
		{"nothing", messaging.SubjectRevocation, nil, "not a JSON object"},
		{"no token", messaging.SubjectRevocation, fields{"type": "JWT"}.event(), "revokedToken is missing"},
		{"a negative expiry", messaging.SubjectRevocation, fields{"revokedToken": secret, "expiryTime": -1}.event(), "expiryTime is negative"},
		{"an unknown type", messaging.SubjectRevocation, fields{"revokedToken": secret, "type": "x"}.event(), "its type"},
		{"another status", messaging.SubjectRevocation, fields{"revokedToken": secret, "status": "approved"}.event(), "its status"},
		{"another status of an approval", messaging.SubjectApproval, fields{"revokedToken": secret, "status": "revoked"}.event(), "its status"},
		{"an issued token", messaging.SubjectIssued, fields{"refreshToken": secret}.event(), "revokedToken is missing"},
	}
	version := r.version()
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.publish(t, tt.subject, tt.event)
			r.settle(t)
			letters := r.deadLetters(t)
			if len(letters) != i+1 {
				t.Fatalf("%d dead letters, want %d", len(letters), i+1)
			}
			d := letters[i]
			if d.Subject != tt.subject || !strings.Contains(d.Reason, tt.reason) || time.Since(d.Time) > time.Hour {
				t.Errorf("%+v, want the reason %q", d, tt.reason)
			}
			found, err := messaging.FindDeadLetter(t.Context(), r.conn, d.Sequence)
			if fmt.Sprint(found) != fmt.Sprint(d) || err != nil {
				t.Errorf("found %+v, %v, want %+v", found, err, d)
			}
		})
	}
	errorLines := r.book.find(logrus.ErrorLevel, "Event goes to the dead letters")
	if len(errorLines) != len(tests) || strings.Contains(r.book.text(), secret) {
		t.Errorf("%d error lines, want %d and no token in any:\n%s", len(errorLines), len(tests), r.book.text())
	}
	if got := r.outcomes(t); got["dead_letter"] != len(tests) || len(got) != 1 || r.version() != version {
		t.Errorf("outcomes %v, version %d, want %d dead letters at %d", got, r.version(), len(tests), version)
	}
	r.checkNothingPending(t)
}

// checkNothingPending: no event waits for another delivery.
func (r *replica) checkNothingPending(t *testing.T) {
	t.Helper()
	cons, err := r.stream(t, messaging.IngestStream).Consumer(t.Context(), "adapter")
	fatal(t, err)
	eventually(t, "every answer has arrived", func() bool {
		info, err := cons.Info(t.Context())
		return err == nil && info.NumAckPending == 0
	})
	if info := cons.CachedInfo(); info.NumPending != 0 || info.NumRedelivered != 0 {
		t.Errorf("%d pending, %d redelivered", info.NumPending, info.NumRedelivered)
	}
}

func TestThereIsNoSuchDeadLetter(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	r.publish(t, messaging.SubjectRevocation, []byte("malformed"))
	r.settle(t)
	for _, sequence := range []uint64{0, 2, 1 << 63} {
		if d, err := messaging.FindDeadLetter(t.Context(), r.conn, sequence); !errors.Is(err, messaging.ErrNoDeadLetter) {
			t.Errorf("%d is %+v, %v", sequence, d, err)
		}
	}
}

// Every event that holds an opaque token, whole JWT or refresh token, by what
// becomes of it.
func TestAnOpaqueTokenIsKeptNowhere(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	opaque := secret + "-fc8ee897-b3d9"
	jwtWithoutID := "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0." + opaque
	events := []fields{
		{"revokedToken": opaque},
		{"revokedToken": opaque + "1", "type": "Default", "expiryTime": inAnHour()},
		{"revokedToken": opaque + "2", "type": "Default", "expiryTime": 1_628_175_421_481},
		{"revokedToken": opaque, "type": "Default", "expiryTime": -1},
		{"revokedToken": opaque, "status": "approved"},
		{"revokedToken": opaque, "type": "x"},
		{"revokedToken": opaque, "type": []string{"JWT"}},
		{"revokedToken": []string{opaque}},
		{"revokedToken": fields{"JWT": opaque}, "type": "JWT"},
		{"revokedToken": jwtWithoutID, "type": "JWT"},
		{"revokedToken": jwtWithoutID, "type": "api_key"},
		{"revokedToken": opaque, "accessToken": opaque, "expiryTime": -1},
		{"revokedToken": opaque, "RevokedToken": opaque, "type": "x"},
	}
	for _, e := range events {
		r.publish(t, messaging.SubjectRevocation, e.event())
		r.publish(t, messaging.SubjectApproval, e.event())
	}
	r.publish(t, messaging.SubjectIssued, events[0].event())
	r.publish(t, messaging.SubjectRevocation, []byte(`{"event":{"payloadData":{"revokedToken":"`+opaque+`","revokedToken":"x","expiryTime":-1}}}`))
	r.settle(t)
	for name, text := range r.everything(t) {
		if strings.Contains(text, secret) {
			t.Errorf("%s holds the token: %s", name, text)
		}
		for sequence, content := range r.content(t, name) {
			if strings.Contains(content, secret) {
				t.Errorf("%s holds the token at %d: %s", name, sequence, content)
			}
		}
	}
	if text := r.book.text(); strings.Contains(text, secret) {
		t.Errorf("the log holds the token:\n%s", text)
	}
	letters := r.deadLetters(t)
	if len(letters) != 10+9+1 {
		t.Errorf("%d dead letters", len(letters))
	}
	digest := revocation.NamePrefix + revocation.DigestOf(revocation.DomainOpaque, opaque).String()
	if !slices.ContainsFunc(letters, func(d messaging.DeadLetter) bool { return strings.Contains(string(d.Event), digest) }) {
		t.Errorf("no digest is kept: %v", letters)
	}
}

func TestADeadLetterKeepsWhatIsNoSecret(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	r.publish(t, messaging.SubjectRevocation, fields{
		"eventId": "e1", "revokedToken": "jti-1", "type": "JWT", "expiryTime": -1, "tenantId": -1234, "ttl": "5000", "status": "revoked",
	}.event())
	r.settle(t)
	r.publish(t, messaging.SubjectRevocation, []byte(`{"event": `+secret))
	r.settle(t)
	letters := r.deadLetters(t)
	if len(letters) != 2 {
		t.Fatalf("dead letters %v", letters)
	}
	const want = `{"event":{"payloadData":{"eventId":"e1","expiryTime":-1,"revokedToken":"jti-1","status":"revoked","tenantId":-1234,"ttl":"5000","type":"JWT"}}}`
	if got := string(letters[0].Event); got != want {
		t.Errorf("kept %s, want %s", got, want)
	}
	if got := string(letters[1].Event); got != `{"event": `+secret {
		t.Errorf("an event that does not parse is kept as %s", got)
	}
}

// An event of the greatest size is buried too, and not delivered for ever: with
// its reason it does not fit into one message.
func TestTheLargestEventIsBuried(t *testing.T) {
	t.Parallel()
	for name, event := range map[string][]byte{
		"no JSON":                 bytes.Repeat([]byte("x"), 1<<20),
		"it grows when rewritten": fields{"eventId": strings.Repeat("<", 160_000), "revokedToken": "x"}.event(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, embedded(t))
			raw := bytes.ReplaceAll(event, []byte(`\u003c`), []byte("<<<<<<"))
			r.publish(t, messaging.SubjectRevocation, raw)
			r.settle(t)
			letters := r.deadLetters(t)
			if len(letters) != 1 || len(letters[0].Event) < 1<<19 || !strings.Contains(letters[0].Reason, "only its beginning") {
				t.Errorf("%d dead letters", len(letters))
			}
			r.checkNothingPending(t)
		})
	}
}

// A record that cannot be understood is never written over, and the event that
// could not be merged with it is kept.
func TestAnUndecodableRecordIsNotOverwritten(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	cfg.MaxDeliveries = 2
	r := start(t, cfg)
	spoilt := revokedRecord("jti-1", time.Now().Add(time.Hour))
	spoilt.Lifetime = 0
	sequence := r.store(t, spoilt)
	r.publish(t, messaging.SubjectApproval, jwtEvent("e1", "jti-1"))
	r.settle(t)
	if _, msg := r.record(t, revocation.DomainToken, "jti-1"); msg.Sequence != sequence {
		t.Errorf("the record at %d was replaced at %d", sequence, msg.Sequence)
	}
	letters := r.deadLetters(t)
	if len(letters) != 1 || !strings.Contains(letters[0].Reason, "lifetime 0") {
		t.Errorf("dead letters %v", letters)
	}
	if got := r.outcomes(t); got["retried"] != 1 || got["dead_letter"] != 1 {
		t.Errorf("outcomes %v, want one retry and one dead letter", got)
	}
}

// What cannot even be buried is delivered again, not lost.
func TestAnEventThatCannotBeBuriedWaits(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	dead := r.stream(t, messaging.DeadLetterStream).CachedInfo().Config
	sealed := dead
	sealed.MaxMsgSize = 1
	_, err := r.js.UpdateStream(t.Context(), sealed)
	fatal(t, err)
	r.publish(t, messaging.SubjectRevocation, []byte("malformed"))
	eventually(t, "it is delivered again", func() bool { return r.outcomes(t)["retried"] > 0 })
	if left := r.state(t, messaging.IngestStream).Msgs; left != 1 {
		t.Errorf("%d events wait, want 1", left)
	}
	_, err = r.js.UpdateStream(t.Context(), dead)
	fatal(t, err)
	r.settle(t)
	if letters := r.deadLetters(t); len(letters) != 1 {
		t.Errorf("dead letters %v", letters)
	}
}

func TestDeadLettersOfNoHub(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	conn, err := nats.Connect(s.ClientURL())
	fatal(t, err)
	t.Cleanup(conn.Close)
	for _, err := range messaging.DeadLetters(t.Context(), conn) {
		if !errors.Is(err, jetstream.ErrStreamNotFound) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := messaging.FindDeadLetter(t.Context(), conn, 1); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("got %v", err)
	}
}
