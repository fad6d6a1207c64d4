package jwks

import (
	"crypto/sha256"
	"encoding/binary"
	"testing"
	"time"
)

func digest(n int) (d [sha256.Size]byte) {
	binary.BigEndian.PutUint64(d[:], uint64(n)) //nolint:gosec // a test counts up
	return d
}

func TestVerifiedIsBounded(t *testing.T) {
	v, now := &verified{}, time.Unix(1_800_000_000, 0)
	used := digest(-1)
	v.add(used, now, time.Time{})
	for n := range 5 * maxVerified {
		v.add(digest(n), now, time.Time{})
		if n%1000 == 0 && !v.has(used, now) {
			t.Fatalf("a token in use is forgotten after %d others", n)
		}
	}
	if len(v.young) > maxVerified || len(v.old) > maxVerified {
		t.Errorf("%d and %d tokens are remembered", len(v.young), len(v.old))
	}
	if v.has(digest(0), now) {
		t.Error("the first of many is still remembered")
	}
}

func TestVerifiedForgets(t *testing.T) {
	v, now := &verified{}, time.Unix(1_800_000_000, 0)
	v.add(digest(1), now, now.Add(time.Minute))
	v.add(digest(2), now, time.Time{})
	v.add(digest(3), now, now.Add(time.Hour))
	for after, want := range map[time.Duration][3]bool{
		time.Minute - 1: {true, true, true}, time.Minute: {false, true, true}, rememberAtMost: {false, false, false},
	} {
		for i, remembered := range want {
			if v.has(digest(i+1), now.Add(after)) != remembered {
				t.Errorf("token %d after %s: want %v", i+1, after, remembered)
			}
		}
	}
	if v.has(digest(4), now) {
		t.Error("a token that was never verified is")
	}
}
