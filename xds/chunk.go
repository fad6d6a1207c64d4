package xds

import (
	"bytes"
	"strconv"
	"sync"
	"time"

	"revocation-adapter/revocation"
)

// A response holds at most this many tokens and bytes: deployed enforcers break
// their stream at 4,194,304 bytes.
const (
	maxTokens = 16_000
	maxBytes  = 1_900_000
)

// chunk is what changed between two positions, encoded. It is shared by every
// stream at the same position, and never changes.
type chunk struct {
	to      uint64 // position after it
	text    string // to, in decimal
	at      time.Time
	wire    []byte // resources and removed resources, as fields of the response
	entries int    // how many those are
}

// protocol says which of a chunk's forms is wanted.
type protocol uint8

const (
	sotw protocol = iota
	delta
)

func (p protocol) String() string {
	if p == delta {
		return "delta"
	}
	return "sotw"
}

// encoder collects tokens into a chunk, right in the form that goes out: the
// full set of a million tokens is the hot path, and a million small messages
// for the garbage collector would cost more than all the rest.
type encoder struct {
	chunk *chunk
	form  protocol
	grace time.Duration
	now   time.Time
	wire  []byte // of the chunk, in memory that is used again

	cache   *Cache
	scratch *[]byte
}

// perToken bounds what an entry takes on the wire beside its name, which a delta
// resource has twice.
const perToken = 140

// full says whether no further token of this name fits.
func (e *encoder) full(name int) bool {
	return e.chunk.entries >= maxTokens || len(e.wire)+perToken+2*name > maxBytes
}

// add puts one change into the chunk.
func (e *encoder) add(c revocation.Change, name []byte) {
	switch {
	case c.State != revocation.Revoked:
		if e.form == delta {
			e.remove(name)
		}
		return
	case e.form == sotw:
		e.wire = appendAny(e.wire, fieldResources, name, c.Expiry)
	default:
		e.wire = e.appendResource(e.wire, c, name)
	}
	e.chunk.entries++
}

// remove names a key that is no longer revoked.
func (e *encoder) remove(name []byte) {
	e.wire = appendBytes(e.wire, fieldRemoved, name)
	e.chunk.entries++
}

// memoSize is how many chunks are remembered: the newest change, and where
// gateways that load the whole set at the same time are.
const memoSize = 4

// memo remembers the chunks made last, so that streams at one position share
// one.
type memo struct {
	mu      sync.Mutex
	entries [memoSize]*memoEntry
	next    int
}

type memoKey struct {
	from, head uint64
	form       protocol
	second     int64 // since the epoch: what has expired and what is left to live change with it
}

type memoEntry struct {
	key   memoKey
	once  sync.Once
	chunk *chunk
}

// get returns the chunk of a key, made by build unless it is remembered. Of
// those who ask at the same time one builds.
func (m *memo) get(key memoKey, build func() *chunk) *chunk {
	m.mu.Lock()
	entry := m.find(key)
	if entry == nil {
		entry = &memoEntry{key: key}
		m.entries[m.next] = entry
		m.next = (m.next + 1) % memoSize
	}
	m.mu.Unlock()
	entry.once.Do(func() { entry.chunk = build() })
	return entry.chunk
}

func (m *memo) find(key memoKey) *memoEntry {
	for _, e := range m.entries {
		if e != nil && e.key == key {
			return e
		}
	}
	return nil
}

// chunk returns what changed after from, as far as one response holds.
func (c *Cache) chunk(s *revocation.Snapshot, from uint64, form protocol, now time.Time) *chunk {
	return c.memo.get(memoKey{from, s.Version(), form, now.Unix()}, func() *chunk {
		e := c.encoder(form, now)
		e.collect(s, from, nil)
		return e.chunk
	})
}

func (c *Cache) encoder(form protocol, now time.Time) *encoder {
	e := &encoder{chunk: &chunk{at: now}, form: form, grace: c.grace, now: now, cache: c}
	if b, ok := c.scratch.Get().(*[]byte); ok {
		e.scratch = b
	} else {
		e.scratch = new([]byte)
	}
	e.wire = (*e.scratch)[:0]
	return e
}

// collect fills the chunk with what changed after from, but for what skip says
// is known already.
func (e *encoder) collect(s *revocation.Snapshot, from uint64, skip func(revocation.Change, []byte) bool) {
	var name []byte
	position := max(from, s.Version())
	previous := from
	for c := range s.Since(from, e.now) {
		if !served(c.Domain) {
			continue
		}
		name = c.AppendName(name[:0])
		if e.full(len(name)) {
			position = previous
			break
		}
		previous = c.Version
		if skip == nil || !skip(c, name) {
			e.add(c, name)
		}
	}
	e.finish(position)
}

// finish completes the chunk, which holds until position. The encoder must not
// be used again.
func (e *encoder) finish(position uint64) {
	e.chunk.wire = bytes.Clone(e.wire)
	*e.scratch = e.wire
	e.cache.scratch.Put(e.scratch)
	e.chunk.to = position
	e.chunk.text = strconv.FormatUint(position, 10)
}

// served says whether gateways are told of a domain's keys as tokens.
func served(d revocation.Domain) bool {
	return d == revocation.DomainToken || d == revocation.DomainOpaque
}
