package xds

import (
	"testing"
	"time"

	"revocation-adapter/revocation"
)

// Between two heartbeats everybody is told the same, so that one batch serves a
// thousand streams that load the set, though the log is confirmed meanwhile.
func TestFreshnessBetweenHeartbeats(t *testing.T) {
	var version uint64
	at := time.Unix(100, 0)
	c := &Cache{fresh: func() (uint64, time.Time) { return version, at }}
	c.told.Store(&freshness{})
	s := revocation.NewLog(time.Minute).Snapshot()
	says := func(want time.Time) {
		t.Helper()
		f := c.freshFor(s)
		if want.IsZero() && f.at == 0 {
			return
		}
		if f.at != want.UnixMicro() {
			t.Errorf("it says %s, want %s", time.UnixMicro(f.at), want)
		}
	}
	first := at
	says(first) // nobody was told yet
	c.beat()
	at = at.Add(50 * time.Millisecond)
	says(first)
	c.beat()
	says(at)
	at = first.Add(-time.Second) // the clock that tells is set back
	says(at)
	version = s.Version() + 1 // what is confirmed is not in s
	says(time.Time{})
	version, at = s.Version(), time.Time{} // nothing is known any more
	says(time.Time{})
}
