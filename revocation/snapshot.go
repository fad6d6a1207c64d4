package revocation

import (
	"iter"
	"sort"
	"time"
)

// Snapshot is the log up to one version. It never changes.
type Snapshot struct {
	head   uint64
	segs   []*segment
	tail   int // records of the last segment that belong to the snapshot
	counts Counts
	grace  int64 // milliseconds
	next   chan struct{}
}

// Counts says how many keys a snapshot holds, as of its last purge.
type Counts struct {
	Dated, Unknown, Forever int // revoked, by lifetime
	Approved                int // tombstones of re-approved keys
}

// Revoked is the number of keys that are refused.
func (c Counts) Revoked() int { return c.Dated + c.Unknown + c.Forever }

func (c *Counts) add(r *record, n int) {
	switch {
	case r.state == Approved:
		c.Approved += n
	case r.life == Forever:
		c.Forever += n
	case r.life == Unknown:
		c.Unknown += n
	default:
		c.Dated += n
	}
}

// Version is the hub's sequence up to which everything is in the snapshot or
// gone for good.
func (s *Snapshot) Version() uint64 { return s.head }

// Counts says how much the snapshot holds.
func (s *Snapshot) Counts() Counts { return s.counts }

// Next is closed when the log has published a newer snapshot.
func (s *Snapshot) Next() <-chan struct{} { return s.next }

// Change is what became of one key.
type Change struct {
	Version  uint64 // at which it became so
	State    State
	Lifetime Lifetime
	Domain   Domain
	Expiry   int64 // milliseconds since the epoch, the token's own; Never
	seg      *segment
	rec      *record
}

// AppendName appends what the key is called outside: a jti byte for byte as it
// came, or NamePrefix and the digest.
func (c Change) AppendName(dst []byte) []byte { return c.seg.appendName(dst, c.rec) }

// Name is AppendName as a string.
func (c Change) Name() string { return string(c.AppendName(make([]byte, 0, uuidLen))) }

// Expired says whether the change has ceased to count at now, grace included.
func (c Change) Expired(now time.Time, grace time.Duration) bool {
	return expired(c.Expiry, now.UnixMilli(), grace.Milliseconds())
}

// Since yields, in the order of their versions, the keys that changed after
// version, each once and as it is in the snapshot. Since(0, …) is everything:
// what still counts, and the tombstones of what was re-approved. What has
// expired by now, grace included, is left out. The cost is that of the answer.
func (s *Snapshot) Since(version uint64, now time.Time) iter.Seq[Change] {
	ms := now.UnixMilli()
	return func(yield func(Change) bool) {
		for i := s.firstAfter(version); i < len(s.segs); i++ {
			seg, n := s.segs[i], s.len(i)
			for j := seg.after(version, n); j < n; j++ {
				r := &seg.recs[j]
				if r.supersededBy(s.head) || expired(r.expiry, ms, s.grace) {
					continue
				}
				if !yield(changeOf(seg, r)) {
					return
				}
			}
		}
	}
}

func changeOf(seg *segment, r *record) Change {
	return Change{
		Version: r.version, State: r.state, Lifetime: r.life, Domain: r.domain,
		Expiry: r.expiry, seg: seg, rec: r,
	}
}

// firstAfter returns the first segment that holds a version after version.
func (s *Snapshot) firstAfter(version uint64) int {
	return sort.Search(len(s.segs), func(i int) bool {
		return s.segs[i].recs[s.len(i)-1].version > version
	})
}

// len is the number of records of segment i in the snapshot; never 0.
func (s *Snapshot) len(i int) int {
	if i == len(s.segs)-1 {
		return s.tail
	}
	return len(s.segs[i].recs)
}
