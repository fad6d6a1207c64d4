package revocation

import (
	"iter"
	"sort"
	"time"
)

// Snapshot is the log up to one version. It never changes.
type Snapshot struct {
	head    uint64
	series  [seriesCount]view
	tenants []string // by number
	counts  Counts
	grace   int64 // milliseconds
	next    chan struct{}
}

// view is one series as a snapshot has it.
type view struct {
	segs    []*segment
	tail    int    // records of the last segment that belong to the snapshot
	changed uint64 // version of the newest record ever
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

// Changed is the version at which something of a series became last what it is.
// It is not newer than Version, and 0 if nothing ever was. A replica that
// started later may not know of what has expired since, and say less.
func (s *Snapshot) Changed(of Series) uint64 { return s.series[of].changed }

// Next is closed when the log has published a newer snapshot.
func (s *Snapshot) Next() <-chan struct{} { return s.next }

// Change is what became of one key.
type Change struct {
	Version  uint64 // at which it became so
	State    State
	Lifetime Lifetime
	Domain   Domain
	Expiry   int64  // milliseconds since the epoch, the token's own; Never
	Tenant   string // empty: of none, or of one too many to tell
	seg      *segment
	rec      *record
}

// Before is, of a rule, when the tokens were issued before that it revokes, in
// milliseconds since the epoch; else 0.
func (c Change) Before() int64 { return c.seg.before(c.rec) }

// AppendName appends what the key is called outside: a jti byte for byte as it
// came, or NamePrefix and the digest.
func (c Change) AppendName(dst []byte) []byte { return c.seg.appendName(dst, c.rec) }

// Name is AppendName as a string.
func (c Change) Name() string { return string(c.AppendName(make([]byte, 0, uuidLen))) }

// Digest is the digest of the key in its domain.
func (c Change) Digest() Digest {
	if c.rec.form != formUUID {
		return c.rec.id
	}
	buf := append(append(make([]byte, 0, len("token")+1+uuidLen), c.Domain.String()...), 0)
	return shortened(appendUUID(buf, c.rec.id))
}

// Expired says whether the change has ceased to count at now, grace included.
func (c Change) Expired(now time.Time, grace time.Duration) bool {
	return expired(c.Expiry, now.UnixMilli(), grace.Milliseconds())
}

// Since yields the keys that changed after version, tokens and then rules, each
// series as SinceOf does.
func (s *Snapshot) Since(version uint64, now time.Time) iter.Seq[Change] {
	return func(yield func(Change) bool) {
		for of := range seriesCount {
			for c := range s.SinceOf(of, version, now) {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// SinceOf yields, in the order of their versions, the keys of a series that
// changed after version, each once and as it is in the snapshot. Since version 0
// it is everything: what still counts, and the tombstones of what was
// re-approved. What has expired by now, grace included, is left out. The cost is
// that of the answer.
func (s *Snapshot) SinceOf(of Series, version uint64, now time.Time) iter.Seq[Change] {
	ms, v := now.UnixMilli(), &s.series[of]
	return func(yield func(Change) bool) {
		for i := v.firstAfter(version); i < len(v.segs); i++ {
			seg, n := v.segs[i], v.len(i)
			for j := seg.after(version, n); j < n; j++ {
				r := &seg.recs[j]
				if r.supersededBy(s.head) || expired(r.expiry, ms, s.grace) {
					continue
				}
				if !yield(changeOf(seg, r, s.tenants)) {
					return
				}
			}
		}
	}
}

func changeOf(seg *segment, r *record, tenants []string) Change {
	return Change{
		Version: r.version, State: r.state, Lifetime: r.life, Domain: r.domain,
		Expiry: r.expiry, Tenant: tenants[r.tenant], seg: seg, rec: r,
	}
}

// firstAfter returns the first segment that holds a version after version.
func (v *view) firstAfter(version uint64) int {
	return sort.Search(len(v.segs), func(i int) bool {
		return v.segs[i].recs[v.len(i)-1].version > version
	})
}

// len is the number of records of segment i in the snapshot; never 0.
func (v *view) len(i int) int {
	if i == len(v.segs)-1 {
		return v.tail
	}
	return len(v.segs[i].recs)
}
