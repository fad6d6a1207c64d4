package revocation

import (
	"encoding/base64"
	"encoding/binary"
	"sort"
	"sync/atomic"
)

// segmentSize is how many records a segment holds at most.
const segmentSize = 1 << segmentBits

const segmentBits = 12

// gone in record.superseded means that the record was purged.
const gone = ^uint32(0)

// form is how a record keeps its key.
type form uint8

const (
	formUUID     form = iota // id is the UUID that the key is
	formVerbatim             // id is the digest, the key is in the segment's bytes
	formDigest               // id is the digest, and nothing else is kept
)

// record is one key's state at one version: 48 bytes without a pointer. All of
// it but superseded is immutable once published.
type record struct {
	version    uint64
	expiry     int64
	id         [16]byte
	superseded uint32 // versions from this to the one that replaced it; 0: the newest; atomic
	keyAt      uint32
	keyLen     uint16
	state      State
	life       Lifetime
	form       form
	domain     Domain
	tenant     uint16 // in tenants
}

// supersededBy says whether a newer record of the same key exists at head.
func (r *record) supersededBy(head uint64) bool {
	d := atomic.LoadUint32(&r.superseded)
	return d == gone || d != 0 && r.version+uint64(d) <= head
}

func (r *record) supersede(version uint64) {
	atomic.StoreUint32(&r.superseded, uint32(min(version-r.version, uint64(gone-1))))
}

func (r *record) bury() { atomic.StoreUint32(&r.superseded, gone) }

func (r *record) newest() bool { return atomic.LoadUint32(&r.superseded) == 0 }

// segment is a run of records in the order of their versions. The writer
// appends to it; what readers may see is bounded by their snapshot.
type segment struct {
	recs []record               // never re-sliced; readers see a prefix of it
	keys atomic.Pointer[[]byte] // verbatim keys, replaced when it grows

	// The rest is the writer's.
	n    int    // records in use
	used int    // bytes of keys in use
	dead int    // records superseded or purged
	slot uint32 // where the index finds the segment
}

func newSegment(size int, slot uint32) *segment {
	s := &segment{recs: make([]record, size), slot: slot}
	s.keys.Store(new([]byte))
	return s
}

// beforeLen is what the watermark of a rule takes after its key, in bytes.
const beforeLen = 8

// extra is what r keeps after its verbatim key, in bytes.
func (r *record) extra() int {
	if r.domain == DomainRule {
		return beforeLen
	}
	return 0
}

// add appends a copy of r, whose verbatim key and what follows it is text, and
// returns its offset.
func (s *segment) add(r *record, text []byte) uint32 {
	at := s.n
	s.n++
	n := &s.recs[at]
	*n = *r
	if r.form == formVerbatim {
		n.keyAt, n.keyLen = s.addText(text), uint16(len(text)-r.extra())
	}
	return uint32(at)
}

func (s *segment) addText(text []byte) uint32 {
	at := s.used
	keys := *s.keys.Load()
	if at+len(text) > len(keys) {
		grown := make([]byte, max(2*len(keys), at+len(text), 1024))
		copy(grown, keys[:at])
		s.keys.Store(&grown)
		keys = grown
	}
	copy(keys[at:], text)
	s.used += len(text)
	return uint32(at)
}

// key returns the verbatim key of r. The caller must not change it.
func (s *segment) key(r *record) []byte {
	return (*s.keys.Load())[r.keyAt : r.keyAt+uint32(r.keyLen)]
}

// text returns what add was given for r.
func (s *segment) text(r *record) []byte {
	if r.form != formVerbatim {
		return nil
	}
	return (*s.keys.Load())[r.keyAt : r.keyAt+uint32(int(r.keyLen)+r.extra())]
}

// before returns the watermark of the rule r.
func (s *segment) before(r *record) int64 {
	if r.extra() == 0 {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(s.text(r)[r.keyLen:])) // two's complement
}

// appendName appends what r's key is called outside.
func (s *segment) appendName(dst []byte, r *record) []byte {
	switch r.form {
	case formUUID:
		return appendUUID(dst, r.id)
	case formVerbatim:
		return append(dst, s.key(r)...)
	default:
		return base64.RawURLEncoding.AppendEncode(append(dst, NamePrefix...), r.id[:])
	}
}

// after returns the offset of the first of the first n records whose version is
// greater than version.
func (s *segment) after(version uint64, n int) int {
	return sort.Search(n, func(i int) bool { return s.recs[i].version > version })
}
