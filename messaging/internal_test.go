package messaging

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"revocation-adapter/revocation"
)

type arrived struct {
	jetstream.Msg
	sequence uint64
	data     []byte
}

func (m arrived) Data() []byte { return m.data }
func (m arrived) Metadata() (*jetstream.MsgMetadata, error) {
	return &jetstream.MsgMetadata{Sequence: jetstream.SequencePair{Stream: m.sequence}, Timestamp: time.Now()}, nil
}

// What came while the log had gone back was not taken. Until the consumer is made
// anew, what the old one still delivers comes after that gap.
func TestNothingIsTakenOverTheGapOfALogThatIsReadOn(t *testing.T) {
	t.Parallel()
	log := logrus.New()
	log.SetOutput(io.Discard)
	hub := &Hub{cfg: Config{Log: log, Now: time.Now}}
	f := NewFollower(hub, revocation.NewLog(time.Minute), NewMetrics(prometheus.NewRegistry()))
	take := func(sequence uint64) {
		t.Helper()
		r := revocation.Revocation{
			Domain: revocation.DomainToken, Key: "jti", Digest: revocation.DigestOf(revocation.DomainToken, "jti"),
			State: revocation.Revoked, Lifetime: revocation.Forever, Expiry: revocation.Never, Time: 1,
		}
		data, err := encodeRecord(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.take(arrived{sequence: sequence, data: data}); err != nil {
			t.Fatal(err)
		}
	}
	take(1)
	f.mu.Lock()
	f.wentBack = true
	f.mu.Unlock()
	take(2) // is not taken
	f.mu.Lock()
	f.readOn()
	f.mu.Unlock()
	take(3) // of the old consumer, which is still running
	if f.applied != 1 {
		t.Errorf("the next consumer begins at %d, 2 is lost", f.applied+1)
	}
}

// putBack may have been killed between its two renames.
func TestPutBackWhereAnotherWasKilled(t *testing.T) {
	t.Parallel()
	store := t.TempDir()
	for _, dir := range []string{asideDir, storeVersion, storeVersion + ".spoilt"} {
		if err := os.MkdirAll(filepath.Join(store, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(store, dir, "file"), []byte(dir), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := putBack(store); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(store, storeVersion, "file")); string(text) != asideDir || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

// Behind a hub that does not answer nobody waits for one flight after another.
func TestDecisionsThatWaitForASilentHub(t *testing.T) {
	t.Parallel()
	d := NewDecisions(&Hub{}, revocation.NewLog(time.Minute), NewMetrics(prometheus.NewRegistry()))
	enter := func(key string, came time.Time) *decisionCall {
		t.Helper()
		call := &decisionCall{came: came, done: make(chan struct{}), open: 1, outcomes: make([]Outcome, 1)}
		call.left = []decision{{of: call, subject: key, want: revocation.Revocation{Key: key}}}
		if err := d.enter(call); err != nil {
			t.Fatal(err)
		}
		return call
	}
	first := enter("first", time.Now())
	f := d.take()
	late, soon := enter("late", time.Now().Add(-2*writeTimeout)), enter("soon", time.Now())
	f.writes[0].Err = context.DeadlineExceeded
	d.land(f)
	if f = d.take(); len(f.writes) != 1 || f.writes[0].subject != "soon" || d.waiting != 0 {
		t.Errorf("%d are written, %d wait", len(f.writes), d.waiting)
	}
	for _, call := range []*decisionCall{first, late} {
		select {
		case <-call.done:
		default:
			t.Error("somebody waits on")
		}
	}
	if err := late.outcomes[0].Err; !errors.Is(err, ErrDecisionsLate) {
		t.Error(err)
	}
	d.land(f)
	if enter("later", time.Now().Add(-2*writeTimeout)); soon.outcomes[0].Err != nil || len(d.take().writes) != 1 {
		t.Error("the hub has answered")
	}
}
