package messaging_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// published publishes an event of a JWT, and says how to look for it.
func (r *replica) published(t *testing.T, subject, id, jti string) messaging.Published {
	t.Helper()
	sequence, err := messaging.Publish(t.Context(), r.conn, subject,
		messaging.Announcement{EventID: id, RevokedToken: jti, Type: messaging.TypeJWT})
	fatal(t, err)
	p := messaging.Published{
		Sequence: sequence, EventID: id, State: revocation.Revoked,
		Domain: revocation.DomainToken, Digest: revocation.DigestOf(revocation.DomainToken, jti),
	}
	if subject == messaging.SubjectApproval {
		p.State = revocation.Approved
	}
	return p
}

// looksFor is the version that AwaitStored returns.
func (r *replica) looksFor(t *testing.T, p messaging.Published) (version uint64, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	record, version, err := messaging.AwaitStored(ctx, r.conn, p)
	if err == nil && (record.State != p.State || record.Digest != p.Digest) {
		t.Errorf("the record is %v", record)
	}
	return version, err
}

func TestAwaitStored(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	for _, step := range []struct{ name, subject, id string }{
		{"revoked", messaging.SubjectRevocation, "e1"},
		{"revoked again", messaging.SubjectRevocation, "e2"},
		{"the same event again", messaging.SubjectRevocation, "e1"},
		{"approved", messaging.SubjectApproval, "e3"},
		{"revoked anew", messaging.SubjectRevocation, "e4"},
	} {
		version, err := r.looksFor(t, r.published(t, step.subject, step.id, "jti-1"))
		fatal(t, err)
		msg, err := r.stream(t, messaging.LogStream).GetLastMsgForSubject(t.Context(), subject(revocation.DomainToken, "jti-1"))
		fatal(t, err)
		if version != msg.Sequence {
			t.Errorf("%s: version %d, the log has %d", step.name, version, msg.Sequence)
		}
	}
}

func TestAwaitStoredOfWhatIsNot(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	refused := r.published(t, messaging.SubjectRevocation, "e1", revocation.NamePrefix+"x") // reserved: a dead letter
	if version, err := r.looksFor(t, refused); !errors.Is(err, messaging.ErrNotStored) {
		t.Errorf("of a dead letter: version %d, %v", version, err)
	}
	overturned := r.published(t, messaging.SubjectRevocation, "e2", "jti-2")
	approved := r.published(t, messaging.SubjectApproval, "e3", "jti-2")
	if _, err := r.looksFor(t, approved); err != nil {
		t.Error(err)
	}
	if version, err := r.looksFor(t, overturned); !errors.Is(err, messaging.ErrNotStored) {
		t.Errorf("of what was approved since: version %d, %v", version, err)
	}
}

// Nobody takes events: it is waited for as long as the asker does.
func TestAwaitStoredWhileNobodyTakesEvents(t *testing.T) {
	t.Parallel()
	r := prepare(t, embedded(t))
	p := r.published(t, messaging.SubjectRevocation, "e1", "jti-1")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, version, err := messaging.AwaitStored(ctx, r.conn, p); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("version %d, %v", version, err)
	}
	r.run(t, r.follower.Run, r.listener.Run)
	if version, err := r.looksFor(t, p); err != nil || version == 0 {
		t.Errorf("once they are taken: version %d, %v", version, err)
	}
}
