package messaging_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"

	"revocation-adapter/messaging"
)

// updateLog changes the settings of REVOCATIONS under a replica that runs.
func (r *replica) updateLog(t *testing.T, change func(*jetstream.StreamConfig)) {
	t.Helper()
	cfg := r.stream(t, messaging.LogStream).CachedInfo().Config
	change(&cfg)
	_, err := r.js.UpdateStream(t.Context(), cfg)
	fatal(t, err)
}

// removeLog takes REVOCATIONS away and returns what brings it back, empty.
func (r *replica) removeLog(t *testing.T) (restore func()) {
	t.Helper()
	cfg := r.stream(t, messaging.LogStream).CachedInfo().Config
	fatal(t, r.js.DeleteStream(t.Context(), messaging.LogStream))
	return func() {
		_, err := r.js.CreateStream(t.Context(), cfg)
		fatal(t, err)
	}
}

// An outage outlasts any number of deliveries: the event waits in INGEST.
func TestAnOutageBuriesNothing(t *testing.T) {
	t.Parallel()
	account := func(t *testing.T, s *server.Server, maxStore int64) {
		t.Helper()
		limits := server.JetStreamAccountLimits{MaxMemory: -1, MaxStore: maxStore, MaxStreams: -1, MaxConsumers: -1}
		fatal(t, s.GlobalAccount().UpdateJetStreamLimits(map[string]server.JetStreamAccountLimits{"": limits}))
	}
	tests := map[string]func(*testing.T, *replica, *server.Server) (restore func()){
		"the log is full": func(t *testing.T, r *replica, _ *server.Server) func() {
			t.Helper()
			r.updateLog(t, func(c *jetstream.StreamConfig) { c.MaxBytes, c.Discard = 1, jetstream.DiscardNew })
			return func() {
				r.updateLog(t, func(c *jetstream.StreamConfig) { c.MaxBytes, c.Discard = -1, jetstream.DiscardOld })
			}
		},
		"the account is full": func(t *testing.T, _ *replica, s *server.Server) func() {
			t.Helper()
			account(t, s, 1)
			return func() { account(t, s, -1) }
		},
		"nobody has the log": func(t *testing.T, r *replica, _ *server.Server) func() {
			t.Helper()
			return r.removeLog(t)
		},
	}
	for name, cause := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := standalone(t, t.TempDir(), -1)
			cfg := external(s)
			cfg.MaxDeliveries = 1
			r := prepare(t, cfg)
			r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", "jti-1"))
			restore := cause(t, r, s)
			r.run(t, r.listener.Run)
			eventually(t, "it could not be stored", func() bool { return len(r.outcomes(t)) > 0 })
			restore()
			eventually(t, "it is stored", func() bool { return r.outcomes(t)["stored"] == 1 })
			eventually(t, "it is out of the way", func() bool { return r.state(t, messaging.IngestStream).Msgs == 0 })
			if got, lines := r.outcomesOnce(t), r.book.find(logrus.ErrorLevel, ""); got["retried"] == 0 || len(got) != 2 || len(lines) > 0 {
				t.Errorf("outcomes %v, %d error lines", got, len(lines))
			}
			if letters := r.deadLetters(t); len(letters) > 0 {
				t.Errorf("dead letters %v", letters)
			}
		})
	}
}

// A hub that is away when a replica begins to take events is waited for.
func TestTheListenerWaitsForTheHub(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := standalone(t, dir, -1)
	port := portOf(t, s)
	r := prepare(t, external(s))
	shutdown(s)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	go func() { ended <- r.listener.Run(ctx) }()
	select {
	case err := <-ended:
		ended <- context.Canceled
		t.Fatalf("it has left: %v", err)
	case <-time.After(7 * time.Second): // longer than one request may take
	}
	standalone(t, dir, port)
	eventually(t, "the replica is connected again", r.hub.Connected)
	r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", "jti-1"))
	eventually(t, "the event is stored", func() bool { return r.outcomes(t)["stored"] == 1 })
}

func TestWhatCanNeverBeStoredIsBuried(t *testing.T) {
	t.Parallel()
	cfg := external(standalone(t, t.TempDir(), -1))
	cfg.MaxDeliveries = 2
	r := prepare(t, cfg)
	r.updateLog(t, func(c *jetstream.StreamConfig) { c.MaxMsgSize = 200 })
	r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", strings.Repeat("j", 300)))
	r.run(t, r.listener.Run)
	eventually(t, "it is buried", func() bool { return r.outcomes(t)["dead_letter"] == 1 })
	if got := r.outcomes(t); got["retried"] != 1 || len(got) != 2 {
		t.Errorf("outcomes %v, want one retry", got)
	}
	letters := r.deadLetters(t)
	if len(letters) != 1 || !strings.Contains(letters[0].Reason, "not stored after 2 deliveries") {
		t.Errorf("dead letters %v", letters)
	}
	eventually(t, "it is out of the way", func() bool { return r.state(t, messaging.IngestStream).Msgs == 0 })
}

// A worker that waits for an answer does not hold up a stop, and its event
// comes again.
func TestStopGivesUpAStoreThatIsStuck(t *testing.T) {
	t.Parallel()
	cfg := external(standalone(t, t.TempDir(), -1))
	cfg.MaxDeliveries = 1
	r := prepare(t, cfg)
	restore := r.removeLog(t)
	stuck, err := r.conn.SubscribeSync("revoked.>") // hears the store, and never answers
	fatal(t, err)
	r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", "jti-1"))
	r.run(t, r.listener.Run)
	_, err = stuck.NextMsg(patience)
	fatal(t, err)
	began := time.Now()
	r.stop()
	if took := time.Since(began); took > 4500*time.Millisecond { // alone, the store would take 5 s
		t.Errorf("Run returns %s after the end", took)
	}
	fatal(t, stuck.Unsubscribe())
	restore()
	r.run(t, r.listener.Run)
	eventually(t, "it is stored", func() bool { return r.outcomes(t)["stored"] == 1 })
	eventually(t, "it is out of the way", func() bool { return r.state(t, messaging.IngestStream).Msgs == 0 })
	if got := r.outcomesOnce(t); got["retried"] == 0 || len(got) != 2 {
		t.Errorf("outcomes %v", got)
	}
}

// A replica that is not ready asks the hub at every beat. It says once that
// nobody answers, and once that somebody does again.
func TestASilentHubIsReportedOnce(t *testing.T) {
	t.Parallel()
	cfg, beats := external(standalone(t, t.TempDir(), -1)), &atomic.Int64{}
	cfg.Now = func() time.Time { beats.Add(1); return time.Now() }
	r := prepare(t, cfg)
	future := revokedRecord("jti-1", time.Now().Add(time.Hour))
	future.Format = 2
	r.store(t, future) // keeps it from being ready
	r.run(t, r.follower.Run)
	saidOnce := func(level logrus.Level, line string) {
		t.Helper()
		eventually(t, line, func() bool { return len(r.book.find(level, line)) > 0 })
		last := beats.Load() + 4
		eventually(t, "it asks again", func() bool { return beats.Load() >= last })
		if lines := r.book.find(level, line); len(lines) != 1 {
			t.Errorf("%d lines %q, want one", len(lines), line)
		}
	}
	eventually(t, "it is not ready", func() bool { return strings.Contains(r.follower.NotReady(), "cannot be understood") })
	restore := r.removeLog(t)
	saidOnce(logrus.WarnLevel, "The hub does not answer")
	restore()
	saidOnce(logrus.InfoLevel, "The hub answers again")
	saidOnce(logrus.WarnLevel, "The hub does not answer")
}

// The connection can be closed for good, by a hub that refuses it for one.
func TestAClosedConsumerEndsTheFollower(t *testing.T) {
	t.Parallel()
	r := prepare(t, external(standalone(t, t.TempDir(), -1)))
	ended := make(chan error, 1)
	go func() { ended <- r.follower.Run(t.Context()) }()
	r.awaitReady(t)
	r.hub.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, jetstream.ErrConnectionClosed) {
			t.Errorf("it ended with: %v", err)
		}
	case <-time.After(patience):
		t.Error("it does not end")
	}
}
