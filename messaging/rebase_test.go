package messaging_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// A backup was restored under a replica: it refuses, the rebase gives the log
// versions beyond all that were shown, and the replica begins again.
func TestRebase(t *testing.T) {
	t.Parallel()
	r := prepare(t, external(standalone(t, t.TempDir(), -1)))
	ended := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() { ended <- r.follower.Run(ctx) }()
	r.storeMany(t, 0, 10)
	r.awaitReady(t)
	r.settle(t)
	version := r.version()
	r.recreate(t, version-8)
	r.storeMany(t, 0, 5) // what the backup held
	eventually(t, "the log went back", func() bool { return strings.Contains(r.follower.NotReady(), "went back") })
	n, err := messaging.Rebase(t.Context(), r.conn, r.cfg)
	if n != 5 || err != nil {
		t.Fatalf("rebased %d records, %v", n, err)
	}
	if err := <-ended; !errors.Is(err, messaging.ErrRebased) {
		t.Errorf("the follower ended with: %v", err)
	}
	again := follow(t, r.cfg)
	again.awaitReady(t)
	if again.version() <= version || len(again.held()) != 5 {
		t.Errorf("at %d with %v, want beyond %d", again.version(), again.held(), version)
	}
	if msg := again.stored(t, "jti-3"); msg.Header.Get("Nats-TTL") == "" {
		t.Errorf("it lives for ever: %v", msg.Header)
	}
	if _, err := r.js.Stream(t.Context(), "REBASE"); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("the copy: %v", err)
	}
	again.storeMany(t, 20, 21)
	again.settle(t)
}

func (r *replica) stored(t *testing.T, jti string) *jetstream.RawStreamMsg {
	t.Helper()
	msg, err := r.stream(t, messaging.LogStream).GetLastMsgForSubject(t.Context(), subject(revocation.DomainToken, jti))
	fatal(t, err)
	return msg
}

// It may be interrupted at any moment, while others write, and run again: nothing
// is lost, and nobody who starts meanwhile takes a part for the whole.
func TestRebaseIsInterrupted(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	r := prepare(t, external(s))
	w := messaging.NewWriter(r.hub, r.log)
	var rs []revocation.Revocation
	for i := range 3000 {
		rs = append(rs, revoked(fmt.Sprint("jti-", i), time.Now()))
	}
	count(t, w.Put(t.Context(), rs...))
	before := r.state(t, messaging.LogStream).LastSeq
	published, tries := 0, 0
	for patience := 2 * time.Millisecond; ; patience += patience / 4 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err := messaging.Rebase(ctx, r.conn, r.cfg)
		cancel()
		if tries++; err == nil {
			break
		}
		if tries > 60 {
			t.Fatalf("after %s: %v", patience, err)
		}
		r.publish(t, messaging.SubjectRevocation, jwtEvent("", fmt.Sprint("meanwhile-", published)))
		published++
		r.takesNoPart(t, s.ClientURL(), 3000)
	}
	t.Logf("%d tries", tries)
	again := start(t, r.cfg)
	again.settle(t)
	if n := len(again.held()); n != 3000+published || again.version() <= before {
		t.Errorf("%d are held at %d, want %d beyond %d", n, again.version(), 3000+published, before)
	}
}

// takesNoPart starts a replica in the middle of a rebase.
func (r *replica) takesNoPart(t *testing.T, url string, all int) {
	t.Helper()
	cfg := r.cfg
	cfg.External.URLs = []string{url}
	cfg.Log = logrus.New()
	hub, err := messaging.Open(t.Context(), cfg)
	if err != nil {
		return // refused, as it must be while the log is fenced or gone
	}
	defer hub.Close()
	log := revocation.NewLog(cfg.Grace)
	f := messaging.NewFollower(hub, log, messaging.NewMetrics(prometheus.NewRegistry()))
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if err := f.Run(ctx); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, messaging.ErrRebased) {
		t.Errorf("the replica ended with: %v", err)
	}
	if n := log.Snapshot().Counts().Revoked(); f.NotReady() == "" && n < all {
		t.Errorf("ready with %d of %d", n, all)
	}
}

// What a replica has shown outlives it: a log that ends before that went back.
func TestAVersionThatWasShownIsKnownAfterARestart(t *testing.T) {
	t.Parallel()
	cfg := external(standalone(t, t.TempDir(), -1))
	cfg.VersionFile = filepath.Join(t.TempDir(), "new", "version")
	r := follow(t, cfg)
	r.awaitReady(t)
	r.storeMany(t, 0, 5)
	r.settle(t)
	version := r.version()
	r.stop()
	text, err := os.ReadFile(cfg.VersionFile)
	if err != nil || strings.TrimSpace(string(text)) != strconv.FormatUint(version, 10) {
		t.Errorf("the file says %q, %v, want %d", text, err, version)
	}
	same := follow(t, cfg)
	same.awaitReady(t)
	same.stop()

	fatal(t, os.WriteFile(cfg.VersionFile, []byte(strconv.FormatUint(version+1, 10)), 0o600))
	back := follow(t, cfg)
	eventually(t, "the log went back", func() bool { return strings.Contains(back.follower.NotReady(), "went back") })
	if len(back.held()) > 0 {
		t.Errorf("it shows %v", back.held())
	}

	fatal(t, os.WriteFile(cfg.VersionFile, []byte("many\n"), 0o600))
	if err := prepare(t, cfg).follower.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "holds no version") {
		t.Errorf("a file without a version: %v", err)
	}
}

// A leader that was deposed may answer with an older log. When the log turns out
// to be the same one, the replica reads on where it was.
func TestALogThatComesBackIsReadOn(t *testing.T) {
	t.Parallel()
	old, dir := t.TempDir(), t.TempDir()
	s := standalone(t, dir, -1)
	port := portOf(t, s)
	r := follow(t, external(s))
	r.awaitReady(t)
	r.storeMany(t, 0, 3)
	r.settle(t)
	shutdown(s)
	fatal(t, os.CopyFS(filepath.Join(old, "copy"), os.DirFS(dir)))
	s = standalone(t, dir, port)
	eventually(t, "it is connected", r.conn.IsConnected)
	r.storeMany(t, 3, 6)
	r.settle(t)
	shutdown(s)
	s = standalone(t, filepath.Join(old, "copy"), port)
	eventually(t, "the log went back", func() bool { return strings.Contains(r.follower.NotReady(), "went back") })
	held := r.held()
	shutdown(s)
	standalone(t, dir, port)
	r.awaitReady(t)
	r.storeMany(t, 6, 7)
	r.settle(t)
	held["jti-6"] = revocation.Revoked
	if got := r.held(); !maps.Equal(got, held) {
		t.Errorf("held %v, want %v", got, held)
	}
}

// A consumer can be blind while the leader has more: it is made anew.
func TestABlindConsumerIsMadeAnew(t *testing.T) {
	t.Parallel()
	r := follow(t, external(standalone(t, t.TempDir(), -1)))
	r.awaitReady(t)
	r.storeMany(t, 0, 3)
	r.settle(t)
	blinded := r.stream(t, messaging.LogStream)
	for name := range blinded.ConsumerNames(t.Context()).Name() {
		_, err := blinded.PauseConsumer(t.Context(), name, time.Now().Add(time.Hour))
		fatal(t, err)
	}
	r.storeMany(t, 3, 6)
	r.settle(t)
	if n := r.metric(t, "consumer_rebuilds_total"); n != 1 || len(r.held()) != 6 {
		t.Errorf("%v rebuilds, %d are held", n, len(r.held()))
	}
}

// A replica whose hub is away serves what it has, and says since when.
func TestALogThatIsNotConfirmedIsStale(t *testing.T) {
	t.Parallel()
	now := &clock{}
	dir := t.TempDir()
	s := standalone(t, dir, -1)
	port := portOf(t, s)
	cfg := external(s)
	cfg.Now = now.Now
	r := follow(t, cfg)
	r.awaitReady(t)
	c, stale := r.follower.Confirmed()
	if stale || c.Version != r.version() || now.Now().Sub(c.Time) > time.Minute {
		t.Errorf("confirmed %v, stale %v", c, stale)
	}
	shutdown(s)
	now.advance(7 * time.Second)
	eventually(t, "it is stale", func() bool { return r.metric(t, "log_stale") == 1 })
	since, stale := r.follower.Confirmed()
	lines := r.book.find(logrus.WarnLevel, "The log is stale")
	if !stale || len(lines) != 1 || fmt.Sprint(lines[0].Data["since"]) != since.Time.UTC().Format(time.RFC3339) || r.follower.NotReady() != "" {
		t.Errorf("stale %v since %v, %v; %s", stale, since, lines, r.follower.NotReady())
	}
	standalone(t, dir, port)
	eventually(t, "it is confirmed", func() bool { return r.metric(t, "log_stale") == 0 })
	if _, stale := r.follower.Confirmed(); stale {
		t.Error("it is still stale")
	}
}

// A record that cannot be understood must not get lost: the log stays as it is.
func TestRebaseOfAnUnreadableRecordChangesNothing(t *testing.T) {
	t.Parallel()
	r := prepare(t, external(standalone(t, t.TempDir(), -1)))
	r.storeMany(t, 0, 3)
	_, err := r.js.Publish(t.Context(), subject(revocation.DomainToken, "jti-1"), []byte(secret))
	fatal(t, err)
	if _, err := messaging.Rebase(t.Context(), r.conn, r.cfg); !errors.Is(err, messaging.ErrRecord) || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("rebase: %v", err)
	}
	r.storeMany(t, 3, 4) // it is still written
}

// An adapter that starts while a rebase is under way says so.
func TestAFencedLogIsBeingRebased(t *testing.T) {
	t.Parallel()
	r := prepare(t, external(standalone(t, t.TempDir(), -1)))
	r.updateLog(t, func(c *jetstream.StreamConfig) { c.Subjects = []string{"rebase-fenced.>"} })
	if _, err := messaging.Open(t.Context(), r.cfg); !errors.Is(err, messaging.ErrRebasing) {
		t.Errorf("opened: %v", err)
	}
}
