package xds

import (
	"strconv"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"revocation-adapter/revocation"
)

// A response holds at most this many tokens and bytes: deployed enforcers break
// their stream at 4,194,304 bytes.
const (
	maxTokens = 16_000
	maxBytes  = 1_900_000
)

// Field numbers of RevokedToken.
const (
	fieldJTI    = 1
	fieldExpiry = 2
)

// chunk is what changed between two positions, encoded. It is shared by every
// stream at the same position, and never changes.
type chunk struct {
	to      uint64 // position after it
	text    string // to, in decimal
	at      time.Time
	any     []*anypb.Any          // state of the world: the revoked
	delta   []*discovery.Resource // delta: the revoked
	removed []string              // delta: the re-approved
	bytes   int                   // of the response that carries it, roughly
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

// encoder collects tokens into a chunk. Values share large blocks of memory.
type encoder struct {
	chunk *chunk
	form  protocol
	grace time.Duration
	now   time.Time
	block []byte
	anys  []anypb.Any
}

// perToken is what an entry costs beside the name, in bytes on the wire.
const perToken = 90

// full says whether no further token of this name fits.
func (e *encoder) full(name int) bool {
	return len(e.chunk.any)+len(e.chunk.delta)+len(e.chunk.removed) >= maxTokens ||
		e.chunk.bytes+perToken+2*name > maxBytes
}

// add puts one change into the chunk.
func (e *encoder) add(c revocation.Change, name []byte) {
	switch {
	case e.form == sotw && c.State == revocation.Revoked:
		any := e.any(name, c.Expiry)
		e.chunk.any = append(e.chunk.any, any)
		e.chunk.bytes += len(any.GetValue()) + len(TypeURL) + 8
	case e.form == delta && c.State == revocation.Revoked:
		e.chunk.delta = append(e.chunk.delta, e.resource(c, name))
		e.chunk.bytes += perToken + 2*len(name)
	case e.form == delta:
		e.remove(string(name))
	}
}

// remove names a key that is no longer revoked.
func (e *encoder) remove(name string) {
	e.chunk.removed = append(e.chunk.removed, name)
	e.chunk.bytes += len(name) + 4
}

// any encodes a RevokedToken. Written by hand: it is the hot path of a full
// set, and the message has two fields.
func (e *encoder) any(name []byte, expiry int64) *anypb.Any {
	if len(e.anys) == 0 {
		e.anys = make([]anypb.Any, 64)
	}
	any := &e.anys[0]
	e.anys = e.anys[1:]
	any.TypeUrl = TypeURL
	any.Value = e.token(name, expiry)
	return any
}

func (e *encoder) token(name []byte, expiry int64) []byte {
	size := len(name) + 24
	if cap(e.block)-len(e.block) < size {
		e.block = make([]byte, 0, max(size, 4096))
	}
	start := len(e.block)
	b := protowire.AppendTag(e.block, fieldJTI, protowire.BytesType)
	b = protowire.AppendBytes(b, name)
	b = protowire.AppendTag(b, fieldExpiry, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(expiry)) //nolint:gosec // two's complement is the wire form
	e.block = b
	return b[start:len(b):len(b)]
}

// resource encodes a token for delta clients, with the time it has left: they
// forget it by themselves.
func (e *encoder) resource(c revocation.Change, name []byte) *discovery.Resource {
	r := &discovery.Resource{
		Name:     string(name),
		Version:  strconv.FormatUint(c.Version, 10),
		Resource: e.any(name, c.Expiry),
	}
	if c.Lifetime != revocation.Forever {
		left := time.UnixMilli(c.Expiry).Add(e.grace).Sub(e.now)
		r.Ttl = durationpb.New(max(left, time.Second))
	}
	return r
}

// memoSize is how many chunks are remembered: the newest change, and where
// gateways that load the whole set at the same time are.
const memoSize = 8

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
	return c.memo.get(memoKey{from, s.Version(), form}, func() *chunk {
		e := c.encoder(form, now)
		e.collect(s, from, nil)
		return e.chunk
	})
}

func (c *Cache) encoder(form protocol, now time.Time) *encoder {
	return &encoder{chunk: &chunk{at: now}, form: form, grace: c.grace, now: now}
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

func (e *encoder) finish(position uint64) {
	e.chunk.to = position
	e.chunk.text = strconv.FormatUint(position, 10)
}

// served says whether gateways are told of a domain's keys as tokens.
func served(d revocation.Domain) bool {
	return d == revocation.DomainToken || d == revocation.DomainOpaque
}
