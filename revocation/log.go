package revocation

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The faults of Log.
var (
	// ErrOutOfOrder means that a version is not after the log's last.
	ErrOutOfOrder = errors.New("out of order")
	// ErrFull means that the log can hold no more records.
	ErrFull = errors.New("the log is full")
)

// Log is the revocations in the order of the hub's sequence; the newest per key
// counts. One writer appends and publishes; readers take snapshots at any time
// and wait on Snapshot.Next. Tokens and rules are kept apart, each in the order
// of the one sequence, so that who wants rules never meets a million tokens.
type Log struct {
	grace time.Duration
	head  atomic.Pointer[Snapshot] // any reader, any time

	mu      sync.Mutex // held by the writer, and by Find
	last    uint64     // newest version appended
	series  [seriesCount]series
	slots   []*segment // by slot
	free    []uint32   // slots not in use
	index   index
	counts  Counts
	tenants tenants
}

// series is the records of one Series.
type series struct {
	order []*segment // by version; copied when it changes, snapshots share it
	last  uint64     // newest version appended
}

// NewLog returns an empty log at version 0 whose records count until their
// expiry and grace have passed.
func NewLog(grace time.Duration) *Log {
	l := &Log{grace: grace}
	l.index = newIndex(l.at)
	l.tenants.ids = map[string]uint16{"": 0}
	l.tenants.names = []string{""}
	l.head.Store(&Snapshot{grace: grace.Milliseconds(), next: make(chan struct{})})
	return l
}

// Snapshot returns the newest published state.
func (l *Log) Snapshot() *Snapshot { return l.head.Load() }

// Reserve makes room in the index for n keys that are about to be appended. It
// changes nothing that a reader sees; without it the index grows on the way.
func (l *Log) Reserve(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index.reserve(n)
}

// Append records what became of r's key at version, which must be greater than
// every version appended or published before. Readers see it after Publish.
func (l *Log) Append(version uint64, r Revocation) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if head := max(l.last, l.Snapshot().head); version <= head {
		return fmt.Errorf("append %d after %d: %w", version, head, ErrOutOfOrder)
	}
	into := &l.series[r.Domain.Series()]
	tail, err := l.tail(into)
	if err != nil {
		return fmt.Errorf("append %d: %w", version, err)
	}
	rec := recordOf(r)
	rec.version, rec.tenant = version, l.tenants.id(r.Tenant)
	k := identityOf(&rec)
	offset := tail.add(&rec, textOf(&rec, r))
	if old, known := l.index.swap(k, positionOf(tail.slot, offset)); known {
		l.bury(old, version)
	}
	l.counts.add(&rec, 1)
	l.last, into.last = version, version
	return nil
}

// Keys is how many keys were appended and not purged, published or not.
func (l *Log) Keys() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.index.used
}

// Publish makes everything up to version visible: all of it has been appended,
// or is gone from the hub for good. A version that is not newer does nothing.
func (l *Log) Publish(version uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if version = max(version, l.last); version > l.Snapshot().head {
		l.publish(version)
	}
}

func (l *Log) publish(version uint64) {
	s := &Snapshot{
		head: version, counts: l.counts, tenants: l.tenants.names,
		grace: l.grace.Milliseconds(), next: make(chan struct{}),
	}
	for i, of := range l.series {
		s.series[i] = view{segs: of.order, changed: of.last}
		if n := len(of.order); n > 0 {
			s.series[i].tail = of.order[n-1].n
		}
	}
	close(l.head.Swap(s).next)
}

// Find returns the newest appended version and state of a key, published or not.
// Key is empty and digest set where the domain is secret.
func (l *Log) Find(d Domain, key string, digest Digest) (version uint64, state State, found bool) {
	rec := recordOf(Revocation{Domain: d, Key: key, Digest: digest})
	l.mu.Lock()
	defer l.mu.Unlock()
	p, found := l.index.find(identityOf(&rec))
	if !found {
		return 0, 0, false
	}
	r := l.at(p)
	return r.version, r.state, true
}

// Lookup returns what became last of the token that is called name outside,
// published or not.
func (l *Log) Lookup(name string) (c Change, found bool) {
	r := Revocation{Domain: DomainToken, Key: name}
	if text, ok := strings.CutPrefix(name, NamePrefix); ok {
		d, err := ParseDigest(text)
		if err != nil {
			return Change{}, false
		}
		r = Revocation{Domain: DomainOpaque, Digest: d}
	} else {
		r.Digest = DigestOf(DomainToken, name)
	}
	return l.lookup(r)
}

// LookupRule returns what became last of the rule with a key, published or not.
func (l *Log) LookupRule(key string) (c Change, found bool) {
	return l.lookup(Revocation{Domain: DomainRule, Key: key, Digest: DigestOf(DomainRule, key)})
}

func (l *Log) lookup(r Revocation) (c Change, found bool) {
	rec := recordOf(r)
	l.mu.Lock()
	defer l.mu.Unlock()
	p, found := l.index.find(identityOf(&rec))
	if !found {
		return Change{}, false
	}
	return changeOf(l.slots[p.slot()], l.at(p), l.tenants.names), true
}

// Purge forgets what has expired by now, grace included, and returns how many
// records that were. It changes no version: gateways expire by themselves.
func (l *Log) Purge(now time.Time) int {
	purged := 0
	for _, s := range l.segments() {
		purged += l.purge(s, now.UnixMilli())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.series {
		l.compact(&l.series[i])
	}
	if head := l.Snapshot().head; l.last <= head {
		l.publish(head)
	}
	return purged
}

func (l *Log) segments() (all []*segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, of := range l.series {
		all = append(all, of.order...)
	}
	return all
}

// purge holds the lock for one segment at a time, so that appending goes on.
func (l *Log) purge(s *segment, now int64) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.slots[s.slot] != s {
		return 0 // compacted meanwhile; the next purge sees its survivors
	}
	purged := 0
	for i := range s.n {
		r := &s.recs[i]
		if !r.newest() || !expired(r.expiry, now, l.grace.Milliseconds()) {
			continue
		}
		l.index.remove(identityOf(r))
		r.bury()
		s.dead++
		l.counts.add(r, -1)
		purged++
	}
	return purged
}

// bury marks the record at p as replaced at version.
func (l *Log) bury(p position, version uint64) {
	old := l.at(p)
	old.supersede(version)
	l.slots[p.slot()].dead++
	l.counts.add(old, -1)
}

func (l *Log) at(p position) *record { return &l.slots[p.slot()].recs[p.offset()] }

// tail returns the segment that takes the next record of a series.
func (l *Log) tail(of *series) (*segment, error) {
	if n := len(of.order); n > 0 && of.order[n-1].n < segmentSize {
		return of.order[n-1], nil
	}
	if len(of.order) > 0 && len(of.order)&(compactEvery-1) == 0 {
		l.compact(of)
	}
	s, err := l.open(segmentSize)
	if err != nil {
		return nil, err
	}
	of.order = append(of.order[:len(of.order):len(of.order)], s)
	return s, nil
}

func (l *Log) open(size int) (*segment, error) {
	if n := len(l.free); n > 0 {
		s := newSegment(size, l.free[n-1])
		l.free = l.free[:n-1]
		l.slots[s.slot] = s
		return s, nil
	}
	if len(l.slots) == maxSlots {
		return nil, ErrFull
	}
	s := newSegment(size, uint32(len(l.slots)))
	l.slots = append(l.slots, s)
	return s, nil
}

// recordOf packs r. A canonical UUID of domain token is kept as 16 bytes, any
// other key beside its digest.
func recordOf(r Revocation) record {
	rec := record{
		expiry: r.Expiry, id: r.Digest, state: r.State, life: r.Lifetime,
		form: formVerbatim, domain: r.Domain,
	}
	if r.Domain.Secret() {
		rec.form = formDigest
	} else if id, ok := packUUID(r.Key); ok && r.Domain == DomainToken {
		rec.id, rec.form = id, formUUID
	}
	return rec
}

// textOf is what is kept beside rec: a verbatim key, and of a rule its watermark
// after it.
func textOf(rec *record, r Revocation) []byte {
	if rec.form != formVerbatim {
		return nil
	}
	text := make([]byte, 0, len(r.Key)+beforeLen)
	text = append(text, r.Key...)
	if rec.domain == DomainRule {
		text = binary.LittleEndian.AppendUint64(text, uint64(r.Before)) // two's complement
	}
	return text
}
