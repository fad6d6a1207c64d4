package messaging

import (
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
