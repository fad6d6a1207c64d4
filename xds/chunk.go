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
	kind    kind
	to      uint64 // position after it
	text    string // to, in decimal, and what it proves
	at      time.Time
	wire    []byte // resources and removed resources, as fields of the response
	entries int    // how many those are
	full    bool   // of a batch: more follows
	fresh   freshness
}

// protocol says which of a chunk's forms is wanted.
type protocol uint8

const (
	sotw protocol = iota
	delta

	protocols = 2
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
	to    *audience

	cache   *Cache
	scratch *[]byte
}

// perToken bounds what an entry takes on the wire beside its name, which a delta
// resource has twice.
const perToken = 140

// full says whether no further token of this name fits.
func (e *encoder) full(name int) bool {
	return e.chunk.entries >= maxTokens || len(e.wire)+e.chunk.kind.perEntry()+2*name > maxBytes
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
		e.wire = e.chunk.kind.appendAny(e.wire, fieldResources, c, name)
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

// How many chunks are remembered. Of a kind that is the newest change, and where
// gateways that load the whole set at the same time are. Those that ask for some
// tenants share more, since each audience has its own.
const (
	memoSize     = 4
	memoAudience = 16
)

// memo remembers the chunks made last, so that streams at one position share
// one.
type memo struct {
	mu      sync.Mutex
	entries []*memoEntry
	next    int
}

// memoFor is where the chunks for an audience are remembered. Those of gateways
// that ask for some tenants do not drive out what all others share.
func (c *Cache) memoFor(k kind, to *audience) *memo {
	if to != nil {
		return &c.memos[kinds]
	}
	return &c.memos[k]
}

type memoKey struct {
	kind       kind
	from, head uint64
	form       protocol
	proof      string // of the audience
	second     int64  // since the epoch: what has expired and what is left to live change with it; not of batches
	fresh      freshness
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
		m.next = (m.next + 1) % len(m.entries)
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
func (st *topic) chunk(s *revocation.Snapshot, from uint64, now time.Time) *chunk {
	return st.cache.chunk(s, from, memoKey{kind: st.kind, form: st.form}, st.audience, now)
}

// chunk returns what changed after from, of the kind and in the form that like
// says.
func (c *Cache) chunk(s *revocation.Snapshot, from uint64, like memoKey, to *audience, now time.Time) *chunk {
	like.from, like.head, like.proof, like.second = from, s.Version(), to.suffix(), now.Unix()
	return c.memoFor(like.kind, to).get(like, func() *chunk {
		e := c.encoder(like.kind, like.form, to, now)
		e.collect(s, from, func(c revocation.Change, _ []byte) bool { return !to.hears(c.Tenant) })
		return e.chunk
	})
}

// encoder makes a chunk for this stream alone.
func (st *topic) encoder(now time.Time) *encoder {
	return st.cache.encoder(st.kind, st.form, st.audience, now)
}

func (c *Cache) encoder(k kind, form protocol, to *audience, now time.Time) *encoder {
	e := &encoder{chunk: &chunk{kind: k, at: now}, form: form, to: to, grace: c.grace, now: now, cache: c}
	if b, ok := c.scratch.Get().(*[]byte); ok {
		e.scratch = b
	} else {
		e.scratch = new([]byte)
	}
	e.wire = (*e.scratch)[:0]
	return e
}

// collect fills the chunk with what changed after from, but for what skip says
// is of no concern.
func (e *encoder) collect(s *revocation.Snapshot, from uint64, skip func(revocation.Change, []byte) bool) {
	var name []byte
	position := max(from, s.Version())
	previous := from
	for c := range s.SinceOf(revocation.Series(e.chunk.kind), from, e.now) {
		if !e.chunk.kind.served(c.Domain) {
			continue
		}
		name = c.AppendName(name[:0])
		if e.full(len(name)) {
			position = previous
			break
		}
		previous = c.Version
		if !skip(c, name) {
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
	e.chunk.text = strconv.FormatUint(position, 10) + e.to.suffix()
}
