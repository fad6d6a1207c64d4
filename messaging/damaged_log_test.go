package messaging_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"

	"revocation-adapter/messaging"
)

func damageLog(t *testing.T, cfg messaging.Config, at func(n int) int) {
	t.Helper()
	blocks, err := filepath.Glob(filepath.Join(streamDir(cfg, messaging.LogStream), "msgs", "*.blk"))
	if err != nil || len(blocks) == 0 {
		t.Fatalf("blocks: %v, %v", blocks, err)
	}
	block, err := os.ReadFile(blocks[0])
	fatal(t, err)
	block[at(len(block))] ^= 1
	fatal(t, os.WriteFile(blocks[0], block, 0o600))
}

// A record that is missed is not found again because another one expires.
func TestAnExpiryMakesNoRecordReadable(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	r := prepare(t, cfg)
	r.storeMany(t, 0, 300)
	r.store(t, revokedRecord("ends", time.Now().Add(10*time.Second-grace)), jetstream.WithMsgTTL(10*time.Second))
	r.close()
	damageLog(t, cfg, func(n int) int { return n / 2 })
	damaged := follow(t, cfg)
	missed := func() bool { return strings.Contains(damaged.follower.NotReady(), "records that it cannot read") }
	eventually(t, "it is missed", missed)
	if n := damaged.state(t, messaging.LogStream).Msgs; n != 301 {
		t.Fatalf("the hub has %d", n)
	}
	eventually(t, "one expires", func() bool { return damaged.state(t, messaging.LogStream).Msgs == 300 })
	for range 60 { // 6 s: it is asked every 2
		<-time.After(100 * time.Millisecond)
		if damaged.follower.NotReady() == "" {
			t.Fatalf("ready with %d records of %d", damaged.log.Keys(), 300)
		}
	}
}

// The last record cannot be read.
func TestTheLastRecordCannotBeRead(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	r := prepare(t, cfg)
	r.storeMany(t, 0, 300)
	r.close()
	damageLog(t, cfg, func(n int) int { return n - 30 })
	damaged := follow(t, cfg)
	t.Log("hub has", damaged.state(t, messaging.LogStream))
	eventually(t, "it is missed", func() bool { return strings.Contains(damaged.follower.NotReady(), "records that it cannot read") })
	damaged.stop()
	done, err := messaging.Rebase(t.Context(), damaged.conn, cfg, messaging.RebaseOptions{DropUnreadable: true})
	if done != (messaging.Rebased{Records: 299, Dropped: 1}) || err != nil {
		t.Errorf("rebased %+v, %v", done, err)
	}
}

// A rebase that was interrupted while the new log was filled is said to who waits.
func TestALogThatIsBeingFilledIsSaid(t *testing.T) {
	t.Parallel()
	r := prepare(t, external(standalone(t, t.TempDir(), -1)))
	r.updateLog(t, func(c *jetstream.StreamConfig) { c.Metadata = map[string]string{"rebasing": "true"} })
	r.run(t, r.follower.Run)
	eventually(t, "it says so", func() bool { return strings.Contains(r.follower.NotReady(), "rebase") })
}

// What this replica purges while it reads, for its clock is ahead by less than the
// grace, the hub still has: it can be read.
func TestAClockThatIsAheadMissesNothing(t *testing.T) {
	t.Parallel()
	cfg := external(standalone(t, t.TempDir(), -1))
	cfg.PurgeInterval = 50 * time.Millisecond
	cfg.Now = func() time.Time { return time.Now().Add(6 * time.Minute) }
	r := prepare(t, cfg)
	r.store(t, revokedRecord("ends", time.Now().Add(5*time.Minute-grace)), jetstream.WithMsgTTL(5*time.Minute))
	rebasing := func(c *jetstream.StreamConfig) { c.Metadata = map[string]string{"rebasing": "true"} }
	r.updateLog(t, rebasing) // so that it takes its time
	r.run(t, r.follower.Run)
	<-time.After(time.Second)
	r.updateLog(t, func(c *jetstream.StreamConfig) { c.Metadata = nil })
	late := time.After(patience) // the hub has the record for longer
	for r.follower.NotReady() != "" {
		select {
		case <-late:
			t.Fatalf("not ready: %s", r.follower.NotReady())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// An empty block holds nothing: a key that a power failure left as zeros keeps
// nothing from being read.
func TestAnEmptyBlockWithAKeyOfZerosIsRemoved(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	r := prepare(t, cfg)
	r.storeMany(t, 0, 3)
	r.close()
	msgs := filepath.Join(streamDir(cfg, messaging.LogStream), "msgs")
	fatal(t, os.WriteFile(filepath.Join(msgs, "79.blk"), nil, 0o600))
	fatal(t, os.WriteFile(filepath.Join(msgs, "79.key"), make([]byte, 64), 0o600))
	if again := start(t, cfg); len(again.held()) != 3 {
		t.Errorf("%d are held, want 3", len(again.held()))
	}
}

// Another log is made in the place of the one that is followed: by a replica that
// starts on a hub that lost its disk. Its versions are beyond all that were shown.
func TestALogThatWasMadeAnewEmptyIsNoticed(t *testing.T) {
	t.Parallel()
	r := follow(t, external(standalone(t, t.TempDir(), -1)))
	r.storeMany(t, 0, 10)
	r.awaitReady(t)
	r.settle(t)
	r.recreate(t, uint64(time.Now().UnixMicro()))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for len(r.book.find(logrus.ErrorLevel, "Another log")) == 0 {
		select {
		case <-ctx.Done():
			c, stale := r.follower.Confirmed()
			t.Fatalf("ready with %d records of a log that has 0, confirmed %v, stale %v; a replica that starts now serves none", len(r.held()), c, stale)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Records that expire while a rebase counts must not stand for one that cannot be
// read: then something was changed.
func TestARebaseThatLosesSaysSoBeforeItChangesAnything(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	r := prepare(t, cfg)
	r.storeMany(t, 0, 300)
	for i := range 400 {
		ends := time.Duration(4+i%6) * time.Second
		r.store(t, revokedRecord(fmt.Sprint("ends-", i), time.Now().Add(ends-grace)), jetstream.WithMsgTTL(ends))
	}
	r.close()
	damageLog(t, cfg, func(n int) int { return n / 8 })
	damaged := prepare(t, cfg)
	tries := 0
	for damaged.state(t, messaging.LogStream).Msgs > 300 {
		tries++
		t.Log("before try", tries, damaged.state(t, messaging.LogStream).Msgs, "read", len(damaged.content(t, messaging.LogStream)))
		_, err := messaging.Rebase(t.Context(), damaged.conn, cfg, messaging.RebaseOptions{})
		if !errors.Is(err, messaging.ErrRecordsLost) || !strings.Contains(err.Error(), "nothing was changed") {
			t.Fatalf("try %d: %v; the hub has %d", tries, err, damaged.state(t, messaging.LogStream).Msgs)
		}
		if subjects := damaged.stream(t, messaging.LogStream).CachedInfo().Config.Subjects; subjects[0] != "revoked.>" {
			t.Fatalf("try %d: %v", tries, subjects)
		}
	}
	t.Log(tries, "tries")
}
