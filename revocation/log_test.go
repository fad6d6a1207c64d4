package revocation_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"revocation-adapter/revocation"
)

const grace = 10 * time.Minute

var epoch = time.UnixMilli(1_700_000_000_000)

func uuid(n uint64) string {
	rng := rand.New(rand.NewPCG(n, 3))
	a, b := rng.Uint64(), rng.Uint64()
	return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", a>>32, a>>16&0xffff, a&0xffff, b>>48, b&0xffffffffffff)
}

func revoke(key string, expiry time.Time) revocation.Revocation {
	return revocation.Revocation{
		Domain: revocation.DomainToken, Key: key, Digest: revocation.DigestOf(revocation.DomainToken, key),
		State: revocation.Revoked, Expiry: expiry.UnixMilli(), Lifetime: revocation.Dated,
	}
}

func mustAppend(tb testing.TB, l *revocation.Log, version uint64, r revocation.Revocation) {
	tb.Helper()
	if err := l.Append(version, r); err != nil {
		tb.Fatal(err)
	}
}

func names(s *revocation.Snapshot, since uint64, now time.Time) map[string]revocation.State {
	got := map[string]revocation.State{}
	for c := range s.Since(since, now) {
		got[c.Name()] = c.State
	}
	return got
}

func TestLogShowsNothingBeforePublish(t *testing.T) {
	l := revocation.NewLog(grace)
	before := l.Snapshot()
	mustAppend(t, l, 7, revoke("a", epoch.Add(time.Hour)))
	if got := names(l.Snapshot(), 0, epoch); len(got) != 0 {
		t.Errorf("an unpublished record is visible: %v", got)
	}
	l.Publish(9)
	select {
	case <-before.Next():
	default:
		t.Error("nobody was woken by the publication")
	}
	if v := l.Snapshot().Version(); v != 9 {
		t.Errorf("version %d after publishing 9", v)
	}
	if got := names(l.Snapshot(), 0, epoch); len(got) != 1 {
		t.Errorf("published: %v, want a", got)
	}
	if got := names(before, 0, epoch); len(got) != 0 {
		t.Errorf("an old snapshot changed: %v", got)
	}
}

func TestLogRefusesWhatIsOutOfOrder(t *testing.T) {
	l := revocation.NewLog(grace)
	mustAppend(t, l, 5, revoke("a", epoch))
	l.Publish(8)
	for _, version := range []uint64{5, 8} {
		if err := l.Append(version, revoke("b", epoch)); !errors.Is(err, revocation.ErrOutOfOrder) {
			t.Errorf("append %d after 8: %v, want out of order", version, err)
		}
	}
}

func TestLogServesAKeyByteForByte(t *testing.T) {
	keys := []string{
		uuid(1), "FC8EE897-B3D9-3BB6-A9CA-F4AEB036E5C0", "fc8ee897b3d93bb6a9caf4aeb036e5c0", "{" + uuid(2) + "}",
		"x", "ключ", "with space", "fc8ee897-b3d9-3bb6-a9ca-f4aeb036e5cg", "fc8ee897-b3d9-3bb6-a9ca-f4aeb036e5c-",
	}
	l := revocation.NewLog(grace)
	for i, key := range keys {
		mustAppend(t, l, uint64(i+1), revoke(key, epoch.Add(time.Hour)))
	}
	opaque := revocation.Revocation{
		Domain: revocation.DomainOpaque, Digest: revocation.DigestOf(revocation.DomainOpaque, "secret"),
		State: revocation.Revoked, Expiry: revocation.Never, Lifetime: revocation.Forever,
	}
	mustAppend(t, l, 100, opaque)
	l.Publish(100)
	got := names(l.Snapshot(), 0, epoch)
	for _, want := range append(keys, opaque.Name()) {
		if _, ok := got[want]; !ok {
			t.Errorf("%q is not among %v", want, got)
		}
	}
	if len(got) != len(keys)+1 {
		t.Errorf("%d names, want %d", len(got), len(keys)+1)
	}
}

// model is the log as a plain map would be: by key, the version and the record.
type model map[string]struct {
	version uint64
	rev     revocation.Revocation
}

func (m model) since(version uint64, now time.Time) map[string]revocation.State {
	want := map[string]revocation.State{}
	for key, e := range m {
		if e.version > version && !e.rev.Expired(now, grace) {
			want[key] = e.rev.State
		}
	}
	return want
}

func TestLogAgainstAMap(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { compareWithMap(t, seed) })
	}
}

func compareWithMap(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 4))
	l, m, now, version := revocation.NewLog(grace), model{}, epoch, uint64(0)
	keys := 1 + rng.Uint64N(40_000)
	var old *revocation.Snapshot
	var oldWant map[string]revocation.State
	var oldNow time.Time
	for range 60_000 {
		version += 1 + rng.Uint64N(3)
		key := uuid(rng.Uint64N(keys))
		switch rng.IntN(4) {
		case 0:
			key = "jti-" + key
		case 1:
			key = "azp=" + key
		}
		r := revoke(key, now.Add(time.Duration(rng.IntN(3600))*time.Second))
		if strings.HasPrefix(key, "azp=") {
			r = ruleOf(key, int64(version), now.Add(time.Duration(rng.IntN(3600))*time.Second))
		}
		r.Tenant = []string{"", "a", "b"}[rng.IntN(3)]
		if rng.IntN(5) == 0 {
			r.State = revocation.Approved
		}
		mustAppend(t, l, version, r)
		e := m[key]
		e.version, e.rev = version, r
		m[key] = e
		if rng.IntN(10_000) != 0 {
			continue
		}
		l.Reserve(rng.IntN(100_000))
		l.Publish(version)
		since := rng.Uint64N(version + 1)
		if got, want := names(l.Snapshot(), since, now), m.since(since, now); !maps.Equal(got, want) {
			t.Fatalf("at %d since %d: %d keys, want %d", version, since, len(got), len(want))
		}
		m.compareSeries(t, l.Snapshot(), since, now)
		if old != nil {
			if got := names(old, 0, oldNow); !maps.Equal(got, oldWant) {
				t.Fatalf("the snapshot of %d changed: %d keys, want %d", old.Version(), len(got), len(oldWant))
			}
		}
		now = now.Add(time.Duration(rng.IntN(40)) * time.Minute)
		l.Purge(now)
		old, oldWant, oldNow = l.Snapshot(), m.since(0, now), now
		if got, want := l.Snapshot().Counts(), len(m.since(0, now)); got.Revoked()+got.Approved != want {
			t.Fatalf("counts %+v, want %d in all", got, want)
		}
	}
}

func TestLogGivesExpiredMemoryBack(t *testing.T) {
	l := revocation.NewLog(grace)
	version := uint64(0)
	now := epoch
	for round := range 10 {
		for range 50_000 {
			version++
			mustAppend(t, l, version, revoke(uuid(version), now.Add(time.Minute)))
		}
		mustAppend(t, l, version+1, revoke(fmt.Sprint("stays ", round), epoch.Add(1000*time.Hour)))
		version++
		l.Publish(version)
		now = now.Add(time.Hour)
		l.Purge(now)
	}
	if got := names(l.Snapshot(), 0, now); len(got) != 10 {
		t.Errorf("%d keys still count, want the 10 that stay", len(got))
	}
	if size := heapOf(func() any { return l }); size > 3<<20 {
		t.Errorf("the log of 10 keys holds %d bytes after a million expired", size)
	}
}

// heapOf is what is no longer on the heap once the value is gone, roughly.
func heapOf(keep func() any) uint64 {
	var with runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&with)
	runtime.KeepAlive(keep())
	return with.HeapAlloc
}

func TestLogReadersSeeWholeVersionsWhileItIsWritten(t *testing.T) {
	l := revocation.NewLog(grace)
	const keys, rounds = 50, 1000
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for s := l.Snapshot(); s.Version() < keys*rounds; s = l.Snapshot() {
				n := 0
				for range s.Since(0, epoch) {
					n++
				}
				if s.Version() >= keys && n != keys {
					t.Errorf("version %d shows %d keys, want %d", s.Version(), n, keys)
					return
				}
			}
		})
	}
	for version := uint64(1); version <= keys*rounds; version++ {
		mustAppend(t, l, version, revoke(uuid(version%keys), epoch.Add(time.Hour)))
		l.Publish(version)
		if version%1000 == 0 {
			l.Purge(epoch)
		}
	}
	readers.Wait()
}

func TestTTL(t *testing.T) {
	tests := []struct {
		name   string
		expiry int64
		want   int64
	}{
		{"rounded up", epoch.Add(1500 * time.Millisecond).UnixMilli(), 602},
		{"already expired, in grace", epoch.Add(-5 * time.Minute).UnixMilli(), 300},
		{"beyond grace", epoch.Add(-time.Hour).UnixMilli(), 1},
		{"never", revocation.Never, 0},
		{"nearly never does not overflow", revocation.Never - 1, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := revocation.Revocation{Expiry: tt.expiry}
			if got := r.TTL(epoch, grace); got != tt.want {
				t.Errorf("TTL %d s, want %d", got, tt.want)
			}
			if expired, want := r.Expired(epoch, grace), tt.name == "beyond grace"; expired != want {
				t.Errorf("expired %v, want %v", expired, want)
			}
		})
	}
}

// BenchmarkSince100 asks for the newest 100 changes of a log of a million.
func BenchmarkSince100(b *testing.B) {
	l, version := millionTokens(b)
	var name []byte
	b.ResetTimer()
	for range b.N {
		n := 0
		for c := range l.Snapshot().Since(version-100, epoch) {
			name = c.AppendName(name[:0])
			n++
		}
		if n != 100 {
			b.Fatalf("%d changes", n)
		}
	}
}

// BenchmarkBytesPerToken reports the heap of a log of a million UUID tokens.
func BenchmarkBytesPerToken(b *testing.B) {
	for range b.N {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		l, _ := millionTokens(b)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "B/token")
		runtime.KeepAlive(l)
	}
}

func millionTokens(b *testing.B) (*revocation.Log, uint64) {
	b.Helper()
	l := revocation.NewLog(grace)
	const n = 1_000_000
	for version := uint64(1); version <= n; version++ {
		mustAppend(b, l, version, revoke(uuid(version), epoch.Add(time.Hour)))
	}
	l.Publish(n)
	return l, n
}
