package messaging_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"
	"google.golang.org/protobuf/proto"

	"revocation-adapter/messaging"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// storeMany writes records that expire in an hour.
func (r *replica) storeMany(t *testing.T, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		r.store(t, revokedRecord(fmt.Sprint("jti-", i), time.Now().Add(time.Hour)))
	}
}

func TestReadyWhenTheLogIsComplete(t *testing.T) {
	t.Parallel()
	for name, records := range map[string]int{"an empty log": 0, "one record": 1, "a long log": 1500} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := prepare(t, external(standalone(t, t.TempDir(), -1)))
			r.storeMany(t, 0, records)
			if why := r.follower.NotReady(); why == "" || r.version() != 0 {
				t.Errorf("before it runs: %q at version %d", why, r.version())
			}
			first := r.log.Snapshot().Next()
			r.run(t, r.follower.Run)
			<-first
			if live := r.log.Snapshot().Counts().Revoked(); live != records {
				t.Errorf("the first that is shown are %d of %d", live, records)
			}
			r.awaitReady(t)
			state := r.state(t, messaging.LogStream)
			if r.version() != state.LastSeq || r.version() == 0 || len(r.held()) != records {
				t.Errorf("ready at %d with %d, want %d with %d", r.version(), len(r.held()), state.LastSeq, records)
			}
			if last, err := r.hub.LastVersion(t.Context()); last != state.LastSeq || err != nil {
				t.Errorf("the hub's last version is %d, %v, want %d", last, err, state.LastSeq)
			}
			eventually(t, "it says so", func() bool {
				lines := r.book.find(logrus.InfoLevel, "The log is complete")
				return len(lines) == 1 && fmt.Sprint(lines[0].Data["version"]) == fmt.Sprint(state.LastSeq)
			})
		})
	}
}

func TestARestartFindsTheSame(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	known := jwtEvent("e4", "jti-4")
	r.publish(t, messaging.SubjectRevocation, known)
	for i := range 20 {
		r.publish(t, messaging.SubjectRevocation, jwtEvent(fmt.Sprint("e", i), fmt.Sprint("jti-", i)))
	}
	r.publish(t, messaging.SubjectApproval, jwtEvent("a3", "jti-3"))
	r.publish(t, messaging.SubjectRevocation, fields{"revokedToken": "never", "type": "JWT", "expiryTime": revocation.Never}.event())
	r.settle(t)
	version, held, content := r.version(), r.held(), r.content(t, messaging.LogStream)
	r.close()
	again := start(t, r.cfg)
	if again.version() != version || !maps.Equal(again.held(), held) || !maps.Equal(again.content(t, messaging.LogStream), content) {
		t.Errorf("version %d with %v became %d with %v", version, held, again.version(), again.held())
	}
	again.publish(t, messaging.SubjectRevocation, known)
	again.settle(t)
	if again.version() != version {
		t.Errorf("a duplicate moved the version from %d to %d", version, again.version())
	}
}

// A log whose records have all expired keeps its version, over a restart too.
func TestTheVersionOutlivesTheRecords(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	for i := range 3 {
		r.store(t, revokedRecord(fmt.Sprint(i), time.Now()), jetstream.WithMsgTTL(time.Second))
	}
	r.settle(t)
	version := r.version()
	eventually(t, "all records are gone", func() bool { return r.state(t, messaging.LogStream).Msgs == 0 })
	r.close()
	again := start(t, r.cfg)
	if again.version() != version {
		t.Errorf("version %d became %d", version, again.version())
	}
	if sequence := again.store(t, revokedRecord("next", time.Now().Add(time.Hour))); sequence != version+1 {
		t.Errorf("the next version after %d is %d", version, sequence)
	}
}

// What expires while it is read is never delivered: not the last record with
// its "nothing is pending" either.
func TestATailThatExpiresDuringReplay(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	r := follow(t, external(s))
	r.awaitReady(t)
	r.storeMany(t, 0, 300)
	for i := range 5 {
		r.store(t, revokedRecord(fmt.Sprint("short-", i), time.Now().Add(time.Hour)), jetstream.WithMsgTTL(time.Second))
	}
	last := r.state(t, messaging.LogStream).LastSeq
	for gone := false; !gone; {
		gone = r.state(t, messaging.LogStream).Msgs == 300
		fresh := follow(t, external(s))
		fresh.awaitReady(t)
		if fresh.version() != last || len(fresh.held()) < 300 {
			t.Errorf("a fresh replica is ready at %d with %d, want %d", fresh.version(), len(fresh.held()), last)
		}
		fresh.close()
	}
	r.settle(t)
	if r.version() != last {
		t.Errorf("the running replica is at %d, want %d", r.version(), last)
	}
}

// What was stored and expired while this replica was cut off raises its
// version, or it would report less than its peers for ever.
func TestAnIdleReplicaRisesToTheLastSequence(t *testing.T) {
	t.Parallel()
	store := t.TempDir()
	s := standalone(t, store, -1)
	cfg := external(s)
	r := follow(t, cfg)
	r.store(t, revokedRecord("kept", time.Now().Add(time.Hour)))
	r.awaitReady(t)
	r.settle(t)
	before := r.version()
	shutdown(s)
	standalone(t, store, portOf(t, s))
	other := follow(t, cfg)
	other.awaitReady(t)
	for i := range 3 {
		other.store(t, revokedRecord(fmt.Sprint("short-", i), time.Now().Add(time.Hour)), jetstream.WithMsgTTL(time.Second))
	}
	eventually(t, "the records are gone", func() bool { return other.state(t, messaging.LogStream).Msgs == 1 })
	for _, x := range []*replica{r, other} {
		x.settle(t)
		if x.version() != before+3 || x.held()["kept"] != revocation.Revoked || x.follower.NotReady() != "" {
			t.Errorf("at %d with %v, %q, want %d", x.version(), x.held(), x.follower.NotReady(), before+3)
		}
	}
}

func TestARestartedReplicaBesideARunningOne(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	a, b := start(t, external(s)), start(t, external(s))
	for round := range 3 {
		for i := range 30 {
			a.publish(t, messaging.SubjectRevocation, jwtEvent(fmt.Sprint("e", round, i), fmt.Sprint("jti-", i)))
		}
		a.settle(t)
		b.settle(t)
		b.close()
		b = start(t, external(s))
		if a.version() != b.version() || !maps.Equal(a.held(), b.held()) {
			t.Errorf("round %d: version %d with %v, restarted %d with %v", round, a.version(), a.held(), b.version(), b.held())
		}
	}
}

func TestAWipedStoreNeverRepeatsAVersion(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	for i := range 20 {
		r.publish(t, messaging.SubjectRevocation, jwtEvent("", fmt.Sprint("jti-", i)))
	}
	r.settle(t)
	old := r.version()
	r.close()
	fatal(t, os.RemoveAll(r.cfg.Embedded.Store))
	wiped := start(t, r.cfg)
	if wiped.version() <= old || len(wiped.held()) != 0 {
		t.Errorf("version %d became %d with %v", old, wiped.version(), wiped.held())
	}
}

// recreate puts another log in the place of REVOCATIONS.
func (r *replica) recreate(t *testing.T, firstSeq uint64) {
	t.Helper()
	cfg := r.stream(t, messaging.LogStream).CachedInfo().Config
	cfg.FirstSeq = firstSeq
	fatal(t, r.js.DeleteStream(t.Context(), messaging.LogStream))
	_, err := r.js.CreateStream(t.Context(), cfg)
	fatal(t, err)
}

func TestALogThatWentBackIsRefused(t *testing.T) {
	t.Parallel()
	for name, behind := range map[string]uint64{"far behind": 1_000_000, "a few behind": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := follow(t, external(standalone(t, t.TempDir(), -1)))
			r.storeMany(t, 0, 10)
			r.awaitReady(t)
			r.settle(t)
			version, held := r.version(), r.held()
			r.recreate(t, version-behind)
			wentBack := func() bool { return strings.Contains(r.follower.NotReady(), "went back") }
			eventually(t, "the replica is not ready", wentBack)
			if why := r.follower.NotReady(); !strings.Contains(why, fmt.Sprint("version ", version)) {
				t.Errorf("the reason does not name version %d: %s", version, why)
			}
			r.storeMany(t, 100, 110) // past the version that was shown, where it was a few behind
			r.passes(t)
			if r.version() != version || !maps.Equal(r.held(), held) || !wentBack() {
				t.Errorf("at %d with %v, %q, want %d with %v", r.version(), r.held(), r.follower.NotReady(), version, held)
			}
			if lines := r.book.find(logrus.ErrorLevel, "The hub's log went back"); len(lines) != 1 {
				t.Errorf("%d error lines, want one", len(lines))
			}
		})
	}
}

// passes waits until a follower that is not ready has had the time to look at
// the hub again: another one has become ready meanwhile, and asked it often.
func (r *replica) passes(t *testing.T) {
	t.Helper()
	for range 10 {
		fresh := follow(t, r.cfg)
		fresh.awaitReady(t)
		fresh.close()
	}
}

func TestAnUndecodableRecordIsAnAlarm(t *testing.T) {
	t.Parallel()
	r := follow(t, external(standalone(t, t.TempDir(), -1)))
	r.storeMany(t, 0, 3)
	r.awaitReady(t)
	r.settle(t)
	spoilt := revokedRecord("jti-1", time.Now().Add(time.Hour))
	spoilt.State, spoilt.Lifetime = revocationv1.State_STATE_APPROVED, 0
	r.store(t, spoilt)
	_, err := r.js.Publish(t.Context(), subject(revocation.DomainToken, "jti-2"), []byte(secret))
	fatal(t, err)
	r.settle(t)
	for i := range 3 {
		if got := r.held()[fmt.Sprint("jti-", i)]; got != revocation.Revoked {
			t.Errorf("jti-%d is %s", i, got)
		}
	}
	if n := r.metric(t, "records_undecodable_total"); n != 2 {
		t.Errorf("%v undecodable, want 2", n)
	}
	if lines := r.book.find(logrus.ErrorLevel, "A record of the hub cannot be understood"); len(lines) != 2 || strings.Contains(r.book.text(), secret) {
		t.Errorf("%d error lines, want 2 without a token:\n%s", len(lines), r.book.text())
	}
}

// A replica that cannot read what a newer one writes would serve a set in which
// revocations are missing: it ends, and gateways go on to the newer one.
func TestANewerRecordEndsTheReplica(t *testing.T) {
	t.Parallel()
	r := prepare(t, external(standalone(t, t.TempDir(), -1)))
	ended := make(chan error, 1)
	go func() { ended <- r.follower.Run(t.Context()) }()
	r.awaitReady(t)
	future := revokedRecord(secret, time.Now().Add(time.Hour))
	future.Format = 2
	r.store(t, future)
	if err := <-ended; !errors.Is(err, messaging.ErrNewerFormat) || strings.Contains(err.Error(), secret) {
		t.Errorf("it ended with: %v", err)
	}
}

// Clocks of the adapter that are five minutes off, and grace of ten: the hub and
// the log keep a revocation for at least as long as its token lives.
func TestClocksThatAreOff(t *testing.T) {
	t.Parallel()
	for name, off := range map[string]time.Duration{"ahead": 5 * time.Minute, "behind": -5 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := &clock{}
			now.advance(off)
			cfg := embedded(t)
			cfg.Now, cfg.PurgeInterval = now.Now, 10*time.Millisecond
			r := start(t, cfg)
			const life = time.Minute
			expiry := time.Now().Add(life)
			r.publish(t, messaging.SubjectRevocation, fields{"revokedToken": "a", "type": "JWT", "expiryTime": expiry.UnixMilli()}.event())
			r.settle(t)
			_, msg := r.record(t, revocation.DomainToken, "a")
			ttl, err := strconv.Atoi(msg.Header.Get("Nats-TTL"))
			if err != nil || time.Duration(ttl)*time.Second < life {
				t.Errorf("the hub keeps it for %q s, %v; its token lives for %s", msg.Header.Get("Nats-TTL"), err, life)
			}
			r.store(t, revokedRecord("gone", now.Now().Add(life-grace-time.Second))) // tells when the log was purged
			now.advance(life)                                                        // to the end of a's life
			eventually(t, "the log is purged", func() bool { return r.metric(t, "records_purged_total") > 0 })
			if held := r.log.Snapshot().Counts().Revoked(); held != 1 {
				t.Errorf("%d are held at the end of the token's life, want it", held)
			}
		})
	}
}

// Of a record that cannot be understood when the log is first read nothing is
// known: the set would not be whole.
func TestAReplicaThatCannotReadEverythingIsNotReady(t *testing.T) {
	t.Parallel()
	r := prepare(t, external(standalone(t, t.TempDir(), -1)))
	r.storeMany(t, 0, 3)
	future := revokedRecord("jti-1", time.Now().Add(time.Hour))
	future.Format = 2
	r.store(t, future)
	r.run(t, r.follower.Run)
	eventually(t, "it says why", func() bool {
		return strings.Contains(r.follower.NotReady(), "1 records of the hub cannot be understood")
	})
	if r.version() != 0 || len(r.held()) > 0 {
		t.Errorf("it shows version %d with %v", r.version(), r.held())
	}
}

func TestPurge(t *testing.T) {
	t.Parallel()
	now := &clock{}
	cfg := external(standalone(t, t.TempDir(), -1))
	cfg.Now = now.Now
	r := follow(t, cfg)
	r.storeMany(t, 0, 5)
	r.store(t, revokedRecord("later", time.Now().Add(3*time.Hour)))
	r.awaitReady(t)
	r.settle(t)
	version := r.version()
	now.advance(time.Hour + grace - time.Minute)
	r.store(t, revokedRecord("awake", time.Now().Add(3*time.Hour)))
	r.settle(t)
	if live := r.log.Snapshot().Counts().Revoked(); live != 7 {
		t.Errorf("%d are live inside grace, want 7", live)
	}
	now.advance(2 * time.Minute)
	eventually(t, "the expired are purged", func() bool { return r.metric(t, "records_purged_total") == 5 })
	if live := r.log.Snapshot().Counts().Revoked(); live != 2 || r.version() != version+1 {
		t.Errorf("%d are live at version %d, want 2 at %d", live, r.version(), version+1)
	}
}

// Keys that are written all the time have records that are gone before they are
// read: that is no log that went back, keeps no replica from being ready, and
// hides no key at the moment in which the replica becomes ready.
func TestBusyKeys(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	w := prepare(t, external(s))
	const keys = 3000
	var records []*nats.Msg
	for i := range keys {
		record := revokedRecord(fmt.Sprint("busy-", i), time.Now().Add(time.Hour))
		w.store(t, record)
		data, err := proto.Marshal(record)
		fatal(t, err)
		records = append(records, &nats.Msg{Subject: subject(revocation.DomainToken, record.GetKey()), Data: data})
	}
	rewrite(t, w, records)
	for range 15 {
		r := follow(t, external(s))
		select {
		case <-r.follower.Complete():
		case <-time.After(patience):
			t.Fatalf("not ready: %s", r.follower.NotReady())
		}
		at := r.log.Snapshot()
		if n := at.Counts().Revoked(); n != keys {
			t.Errorf("ready at version %d with %d of %d keys", at.Version(), n, keys)
		}
		eventually(t, "it follows", func() bool { return r.version() > at.Version() })
		r.close()
		if lines := r.book.find(logrus.ErrorLevel, ""); len(lines) > 0 {
			t.Errorf("logged %q %v", lines[0].Message, lines[0].Data)
		}
	}
}

// rewrite writes records again, in bursts with a pause for the acknowledgements
// between them, until the test ends.
func rewrite(t *testing.T, w *replica, records []*nats.Msg) {
	t.Helper()
	const burst, pause = 100, 2 * time.Millisecond
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() {
		var err error
		for err == nil && ctx.Err() == nil {
			for range burst {
				if _, err = w.js.PublishMsgAsync(records[rand.N(len(records))]); err != nil {
					break
				}
			}
			<-w.js.PublishAsyncComplete()
			<-time.After(pause)
		}
		ended <- err
	}()
	t.Cleanup(func() {
		stop()
		fatal(t, <-ended)
	})
}
