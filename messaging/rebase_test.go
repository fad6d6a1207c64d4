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
	r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", "meanwhile"))
	r.run(t, r.listener.Run)
	r.putFails(t, messaging.ErrWentBack)
	done, err := messaging.Rebase(t.Context(), r.conn, r.cfg, messaging.RebaseOptions{})
	if done != (messaging.Rebased{Records: 5}) || err != nil {
		t.Fatalf("rebased %+v, %v", done, err)
	}
	r.stop()
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
	again.run(t, again.listener.Run)
	again.settle(t)
	if again.held()["meanwhile"] != revocation.Revoked {
		t.Error("an event that came while the log had gone back is lost")
	}
}

// putFails writes a record as the replica itself would.
func (r *replica) putFails(t *testing.T, want error) {
	t.Helper()
	before := r.state(t, messaging.LogStream).LastSeq
	outcomes := messaging.NewWriter(r.hub, r.log).Put(t.Context(), revocationOf(revocation.DomainToken, "refused"))
	if !errors.Is(outcomes[0].Err, want) || r.state(t, messaging.LogStream).LastSeq != before {
		t.Errorf("got %+v, want %v and nothing written", outcomes, want)
	}
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
		_, err := messaging.Rebase(ctx, r.conn, r.cfg, messaging.RebaseOptions{})
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
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	hub, err := messaging.Open(ctx, cfg)
	if err != nil {
		return // it waits, as it must while the log is fenced or gone
	}
	defer hub.Close()
	log := revocation.NewLog(cfg.Grace)
	f := messaging.NewFollower(hub, log, messaging.NewMetrics(prometheus.NewRegistry()))
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
	if _, err := messaging.Rebase(t.Context(), r.conn, r.cfg, messaging.RebaseOptions{}); !errors.Is(err, messaging.ErrRecord) || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("rebase: %v", err)
	}
	r.storeMany(t, 3, 4) // it is still written
	done, err := messaging.Rebase(t.Context(), r.conn, r.cfg, messaging.RebaseOptions{DropUnreadable: true})
	if done != (messaging.Rebased{Records: 3, Dropped: 1}) || err != nil {
		t.Errorf("rebased %+v, %v", done, err)
	}
}

// A newer adapter's record is not unreadable: it is not given up.
func TestRebaseNeverDropsANewerFormat(t *testing.T) {
	t.Parallel()
	r := prepare(t, external(standalone(t, t.TempDir(), -1)))
	newer := revokedRecord("newer", time.Now().Add(time.Hour))
	newer.Format = 99
	r.store(t, newer)
	_, err := messaging.Rebase(t.Context(), r.conn, r.cfg, messaging.RebaseOptions{DropUnreadable: true})
	if !errors.Is(err, messaging.ErrNewerFormat) {
		t.Errorf("rebase: %v", err)
	}
}

// The hub delivers nothing that it cannot read, and does not say so: the log is
// not complete without it, until a person gives it up.
func TestARecordThatTheHubCannotReadIsMissed(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	r := prepare(t, cfg)
	r.storeMany(t, 0, 300)
	r.close()
	blocks, err := filepath.Glob(filepath.Join(streamDir(cfg, messaging.LogStream), "msgs", "*.blk"))
	if err != nil || len(blocks) == 0 {
		t.Fatalf("blocks: %v, %v", blocks, err)
	}
	block, err := os.ReadFile(blocks[0])
	fatal(t, err)
	block[len(block)/2] ^= 1
	fatal(t, os.WriteFile(blocks[0], block, 0o600))
	damaged := prepare(t, cfg)
	ended := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() { ended <- damaged.follower.Run(ctx) }()
	eventually(t, "it is missed", func() bool { return strings.Contains(damaged.follower.NotReady(), "1 records that it cannot read") })
	if n := len(damaged.book.find(logrus.ErrorLevel, "The hub has records that it cannot read")); n != 1 {
		t.Errorf("said %d times, want once", n)
	}
	_, err = messaging.Rebase(t.Context(), damaged.conn, cfg, messaging.RebaseOptions{})
	if !errors.Is(err, messaging.ErrRecordsLost) || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("rebase: %v", err)
	}
	done, err := messaging.Rebase(t.Context(), damaged.conn, cfg, messaging.RebaseOptions{DropUnreadable: true})
	if done != (messaging.Rebased{Records: 299, Dropped: 1}) || err != nil {
		t.Errorf("rebased %+v, %v", done, err)
	}
	if err := <-ended; !errors.Is(err, messaging.ErrRebased) {
		t.Errorf("the follower ended with: %v", err)
	}
	damaged.close()
	if again := start(t, cfg); len(again.held()) != 299 {
		t.Errorf("%d are held, want 299", len(again.held()))
	}
}

// An adapter that starts while a rebase is under way waits for its end: the
// embedded server must run for it.
func TestAFencedLogIsBeingRebased(t *testing.T) {
	t.Parallel()
	r := prepare(t, external(standalone(t, t.TempDir(), -1)))
	cfg := r.cfg
	book, log := newLogbook(t)
	cfg.Log = log
	subjects := r.stream(t, messaging.LogStream).CachedInfo().Config.Subjects
	r.updateLog(t, func(c *jetstream.StreamConfig) { c.Subjects = []string{"rebase-fenced.>"} })
	opened := make(chan error, 1)
	open := func(ctx context.Context) {
		hub, err := messaging.Open(ctx, cfg)
		if err == nil {
			hub.Close()
		}
		opened <- err
	}
	saysSo := func(times int) {
		eventually(t, "it says so", func() bool {
			return len(book.find(logrus.ErrorLevel, "The hub's log is being written anew")) == times
		})
	}
	impatient, cancel := context.WithCancel(t.Context())
	go open(impatient)
	saysSo(1)
	cancel()
	if err := <-opened; !errors.Is(err, messaging.ErrRebasing) {
		t.Fatalf("opened: %v", err)
	}
	go open(t.Context())
	saysSo(2)
	r.updateLog(t, func(c *jetstream.StreamConfig) { c.Subjects = subjects })
	fatal(t, <-opened)
}

// A rebase is of the log alone: what else the hub keeps is as it was.
func TestRebaseTouchesNothingElse(t *testing.T) {
	t.Parallel()
	r := prepare(t, external(standalone(t, t.TempDir(), -1)))
	audit := messaging.NewAudit(r.hub, messaging.AuditConfig{})
	r.run(t, audit.Run)
	r.storeMany(t, 0, 5)
	fatal(t, messaging.NewGrants(r.hub).Put(t.Context(), jwtGrant("jti-1", "refresh")))
	fatal(t, audit.Add(t.Context(), messaging.AuditEntry{Action: "revoke"}))
	fatal(t, r.hub.Clients().Put(t.Context(), client("a", "revoke")))
	fatal(t, messaging.NewAnswers(r.hub).Keep(t.Context(), "a", "key", []byte("answer")))
	streams := []string{messaging.GrantsStream, messaging.AuditStream, "KV_" + messaging.ClientsBucket, "KV_" + messaging.AnswersBucket}
	before := map[string]string{}
	for _, name := range streams {
		before[name] = fmt.Sprint(r.stream(t, name).CachedInfo().Created, r.content(t, name))
	}
	done, err := messaging.Rebase(t.Context(), r.conn, r.cfg, messaging.RebaseOptions{})
	if done.Records != 5 || err != nil {
		t.Fatalf("rebased %+v, %v", done, err)
	}
	for _, name := range streams {
		if after := fmt.Sprint(r.stream(t, name).CachedInfo().Created, r.content(t, name)); after != before[name] || !strings.Contains(after, " map[1:") {
			t.Errorf("%s was %s, is %s", name, before[name], after)
		}
	}
}
