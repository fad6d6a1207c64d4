package messaging_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"revocation-adapter/messaging"
)

func TestTheStreamsAreAsDesigned(t *testing.T) {
	t.Parallel()
	before := uint64(time.Now().UnixMicro())
	r := prepare(t, embedded(t))
	after := uint64(time.Now().UnixMicro())
	log := r.stream(t, messaging.LogStream).CachedInfo().Config
	if log.FirstSeq < before || log.FirstSeq > after {
		t.Errorf("the first sequence is %d, want the time of creation, %d to %d", log.FirstSeq, before, after)
	}
	if log.MaxMsgsPerSubject != 1 || !log.AllowMsgTTL || !log.AllowAtomicPublish || log.AllowDirect ||
		!log.DenyDelete || !log.DenyPurge || log.MaxBytes != -1 || log.SubjectDeleteMarkerTTL != 0 || log.Storage != jetstream.FileStorage {
		t.Errorf("REVOCATIONS is %+v", log)
	}
	ingest := r.stream(t, messaging.IngestStream).CachedInfo().Config
	if ingest.Retention != jetstream.WorkQueuePolicy || ingest.Discard != jetstream.DiscardNew || ingest.Storage != jetstream.FileStorage ||
		ingest.MaxMsgs != r.cfg.Limits.MaxPending || ingest.MaxBytes != r.cfg.Limits.MaxPendingBytes {
		t.Errorf("INGEST is %+v", ingest)
	}
	if err := r.stream(t, messaging.LogStream).Purge(t.Context()); err == nil {
		t.Error("the log can be purged")
	}
}

// A second Open finds the streams of the first, whatever the time: FirstSeq is
// not compared.
func TestTheTimeOfCreationIsNotCompared(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	first := prepare(t, external(s))
	later := &clock{}
	later.advance(time.Hour)
	cfg := external(s)
	cfg.Now = later.Now
	second := prepare(t, cfg)
	was, is := first.stream(t, messaging.LogStream).CachedInfo(), second.stream(t, messaging.LogStream).CachedInfo()
	if was.Config.FirstSeq != is.Config.FirstSeq || !was.Created.Equal(is.Created) {
		t.Errorf("created at %s from %d, then at %s from %d", was.Created, was.Config.FirstSeq, is.Created, is.Config.FirstSeq)
	}
}

func TestAStreamWithOtherSettingsIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	r := prepare(t, external(s))
	for _, tt := range []struct {
		name, stream string
		change       func(*jetstream.StreamConfig)
		shown        []string // in the error
	}{
		{"reads from any server", messaging.LogStream, func(c *jetstream.StreamConfig) { c.AllowDirect = true }, []string{"AllowDirect is true, must be false"}},
		{"several per key", messaging.LogStream, func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 2 }, []string{"MaxMsgsPerSubject is 2, must be 1"}},
		{"other subjects", messaging.LogStream, func(c *jetstream.StreamConfig) { c.Subjects = []string{"revoked.token.*"} }, []string{"Subjects is [revoked.token.*], must be [revoked.>]"}},
		{"the log forgets by age", messaging.LogStream, func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }, []string{"MaxAge is 1h0m0s, must be 0s"}},
		{"the log forgets by size", messaging.LogStream, func(c *jetstream.StreamConfig) { c.MaxBytes = 1 << 20 }, []string{"MaxBytes is 1048576, must be"}},
		{"the log forgets by number", messaging.LogStream, func(c *jetstream.StreamConfig) { c.MaxMsgs = 10 }, []string{"MaxMsgs is 10, must be"}},
		{"the log takes no large record", messaging.LogStream, func(c *jetstream.StreamConfig) { c.MaxMsgSize = 10 }, []string{"MaxMsgSize is 10, must be"}},
		{"the log can be rolled up", messaging.LogStream, func(c *jetstream.StreamConfig) { c.DenyPurge, c.AllowRollup = false, true }, []string{"AllowRollup is true, must be false", "DenyPurge is false, must be true"}},
		{"delete markers", messaging.LogStream, func(c *jetstream.StreamConfig) {
			c.DenyPurge, c.AllowRollup, c.SubjectDeleteMarkerTTL = false, true, time.Minute
		}, []string{"SubjectDeleteMarkerTTL is 1m0s"}},
		{"published again", messaging.LogStream, func(c *jetstream.StreamConfig) {
			c.RePublish = &jetstream.RePublish{Source: "revoked.>", Destination: "spy.>"}
		}, []string{"RePublish"}},
		{"other limits", messaging.IngestStream, func(c *jetstream.StreamConfig) { c.MaxMsgs, c.MaxBytes = 7, 1<<20 }, []string{"MaxMsgs is 7, must be 100000", "MaxBytes is 1048576, must be 67108864"}},
		{"events are overwritten", messaging.IngestStream, func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld }, []string{"Discard is DiscardOld, must be DiscardNew"}},
		{"events are not acknowledged", messaging.IngestStream, func(c *jetstream.StreamConfig) { c.NoAck = true }, []string{"NoAck is true, must be false"}},
		{"dead letters forget by age", messaging.DeadLetterStream, func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }, []string{"MaxAge"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ours := r.stream(t, tt.stream).CachedInfo().Config
			other := ours
			tt.change(&other)
			r.replace(t, other)
			defer r.replace(t, ours)
			before := r.stream(t, tt.stream).CachedInfo()

			cfg := external(s)
			_, cfg.Log = newLogbook(t)
			began := time.Now()
			hub, err := messaging.Open(t.Context(), cfg)
			if err == nil {
				hub.Close()
				t.Fatal("the hub opens")
			}
			for _, part := range append(tt.shown, tt.stream) {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error does not show %q: %v", part, err)
				}
			}
			if !errors.Is(err, messaging.ErrStreamDiffers) || time.Since(began) > 10*time.Second {
				t.Errorf("after %s: %v", time.Since(began), err)
			}
			after := r.stream(t, tt.stream).CachedInfo()
			if !before.Created.Equal(after.Created) || before.Config.MaxAge != after.Config.MaxAge || before.Config.MaxMsgs != after.Config.MaxMsgs {
				t.Errorf("the stream was changed from %+v to %+v", before, after)
			}
		})
	}
}

// replace makes a stream anew: not every setting can be changed.
func (r *replica) replace(t *testing.T, cfg jetstream.StreamConfig) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	fatal(t, r.js.DeleteStream(ctx, cfg.Name))
	_, err := r.js.CreateStream(ctx, cfg)
	fatal(t, err)
}

// What an operator of a cluster decides is not ours.
func TestSettingsThatAreTheOperators(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	r := prepare(t, external(s))
	for _, name := range []string{messaging.IngestStream, messaging.LogStream, messaging.DeadLetterStream} {
		cfg := r.stream(t, name).CachedInfo().Config
		cfg.Description, cfg.Compression = "of the gateways", jetstream.S2Compression
		cfg.Metadata = map[string]string{"team": "gateways"}
		r.replace(t, cfg)
	}
	prepare(t, external(s))
}

func TestOpenWaitsForTheHub(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	cfg := external(s)
	shutdown(s)
	book, log := newLogbook(t)
	cfg.Log = log
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opened := make(chan error, 1)
	go func() {
		_, err := messaging.Open(ctx, cfg)
		opened <- err
	}()
	eventually(t, "it says that it tries again", func() bool { return strings.Contains(book.text(), "cannot be reached") })
	cancel()
	if err := <-opened; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	standalone(t, t.TempDir(), portOf(t, s))
	prepare(t, cfg)
}

func TestOpenReportsWhatTryingCannotMend(t *testing.T) {
	t.Parallel()
	locked, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true, Username: "adapter", Password: "right",
		JetStream: true, StoreDir: t.TempDir(),
	})
	fatal(t, err)
	locked.Start()
	t.Cleanup(func() { shutdown(locked) })
	if !locked.ReadyForConnections(patience) {
		t.Fatal("the server is not ready")
	}
	url := []string{locked.ClientURL()}
	for _, tt := range []struct {
		name string
		ext  messaging.ExternalConfig
		ok   bool
	}{
		{"the right password", messaging.ExternalConfig{URLs: url, User: "adapter", Password: "right", Replicas: 1}, true},
		{"a wrong password", messaging.ExternalConfig{URLs: url, User: "adapter", Password: "wrong", Replicas: 1}, false},
		{"no credentials", messaging.ExternalConfig{URLs: url, Replicas: 1}, false},
		{"a missing nkey", messaging.ExternalConfig{URLs: url, NKey: "missing.nk", Replicas: 1}, false},
		{"a missing creds file", messaging.ExternalConfig{URLs: url, Credentials: "missing.creds", Replicas: 1}, false},
		{"a missing CA", messaging.ExternalConfig{URLs: url, CA: "missing.pem", Replicas: 1}, false},
		{"a missing certificate", messaging.ExternalConfig{URLs: url, Cert: "missing.pem", Key: "missing.key", Replicas: 1}, false},
		{"a bad URL", messaging.ExternalConfig{URLs: []string{"nats://127.0.0.1:port"}, Replicas: 1}, false},
		{"replicas that a single server has not", messaging.ExternalConfig{URLs: url, User: "adapter", Password: "right", Replicas: 3}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config()
			cfg.External = tt.ext
			_, cfg.Log = newLogbook(t)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			hub, err := messaging.Open(ctx, cfg)
			if err == nil {
				hub.Close()
			}
			if tt.ok != (err == nil) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want opened: %v", err, tt.ok)
			}
		})
	}
}
