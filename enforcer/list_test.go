package enforcer_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"revocation-adapter/enforcer"
	"revocation-adapter/revocation"
)

func TestRevokedListsWhatIsRefused(t *testing.T) {
	h, c := newHub(), clockAt(epoch)
	dated := tokenDigest("dated")
	h.put(dated, item{revoked: true, seconds: epoch.Add(time.Minute).Unix()})
	h.put(tokenDigest("for ever"), item{revoked: true})
	h.put(tokenDigest("approved"), item{revoked: true, seconds: epoch.Add(time.Hour).Unix()})
	e := start(t, configOf(c, serve(t, h)))
	reaches(t, e, h.approve("approved"))
	all := slices.Collect(e.Revoked())
	if len(all) != 2 || !slices.IsSortedFunc(all, func(a, b enforcer.Listed) int { return slices.Compare(a.Digest[:], b.Digest[:]) }) {
		t.Fatalf("listed: %v", all)
	}
	for _, l := range all {
		want := revocation.Never
		if l.Digest == dated {
			want = epoch.Add(time.Minute).UnixMilli()
		}
		if l.Expiry != want || l.Name() != "sha256:"+l.Digest.String() || strings.Contains(l.Name(), "=") {
			t.Errorf("listed: %s until %d, want %d", l.Name(), l.Expiry, want)
		}
	}
	c.advance(time.Minute + grace)
	if left := slices.Collect(e.Revoked()); len(left) != 1 || left[0].Digest == dated {
		t.Errorf("after it expired: %v", left)
	}
	for range e.Revoked() {
		break // who stops early is not called again
	}
}
