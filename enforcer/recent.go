package enforcer

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"

	"revocation-adapter/revocation"
)

// reading is what Parse and ParseToken know of a token beside what they return.
type reading struct {
	raw  string
	all  bool     // every claim is kept
	kept []string // else those that rules named then: a later one is read when it is asked for

	id, signature, opaque string // that the digests are of
	digests               []revocation.Digest
}

// newReading computes the digests under which a token may be revoked. What it is,
// its publisher and we may see differently: the whole text is looked up as an
// opaque token and as a jti, and the signature, too. Whoever has a JWT can write its
// signature with padding, or without: the whole text is looked up in both ways.
func newReading(raw string, kept []string, t Token) *reading {
	r := &reading{raw: raw, kept: kept, id: t.ID, signature: t.Signature, opaque: t.Opaque}
	add := func(d revocation.Digest) {
		if !slices.Contains(r.digests, d) {
			r.digests = append(r.digests, d)
		}
	}
	add(revocation.DigestOf(revocation.DomainOpaque, raw))
	if t.Opaque != "" {
		add(revocation.DigestOf(revocation.DomainToken, t.Opaque))
		return r
	}
	signed := raw[:strings.LastIndexByte(raw, '.')+1] + t.Signature
	for _, form := range []string{signed, signed + "==="[:-len(t.Signature)&3]} {
		if form != raw { // to hash a whole token takes long
			add(revocation.DigestOf(revocation.DomainOpaque, form))
		}
	}
	if t.ID != "" {
		add(revocation.DigestOf(revocation.DomainToken, t.ID))
	}
	if t.Signature != "" {
		bare, padded := revocation.SignatureDigests(t.Signature)
		add(bare)
		add(padded)
		add(revocation.DigestOf(revocation.DomainOpaque, t.Signature))
	}
	return r
}

// knows says whether the digests are those of t, which may have been changed
// since.
func (r *reading) knows(t *Token) bool {
	return r != nil && r.id == t.ID && r.signature == t.Signature && r.opaque == t.Opaque
}

// recent remembers the tokens that were read last: a client sends its token again
// and again, and to read one takes longer than to look it up. Each token has two
// places, and drives out what is in one of them.
type recent struct {
	seed   maphash.Seed
	places [recentPlaces]atomic.Pointer[Token]
}

// recentPlaces is a power of two: a few megabytes of tokens as they are issued.
// Longer ones are not worth it.
const (
	recentPlaces = 4096
	recentLength = 4 << 10
)

func newRecent() *recent { return &recent{seed: maphash.MakeSeed()} }

// both are the places of a token.
func (r *recent) both(raw string) (one, other *atomic.Pointer[Token]) {
	h := maphash.String(r.seed, raw)
	return &r.places[h%recentPlaces], &r.places[h>>32%recentPlaces]
}

// find returns a token that was read with the same claims kept.
func (r *recent) find(raw string, kept []string) (Token, bool) {
	one, other := r.both(raw)
	for _, place := range [...]*atomic.Pointer[Token]{one, other} {
		if t := place.Load(); t != nil && t.read.raw == raw && slices.Equal(t.read.kept, kept) {
			return *t, true
		}
	}
	return Token{}, false
}

func (r *recent) keep(t Token) {
	if len(t.read.raw) > recentLength {
		return
	}
	one, other := r.both(t.read.raw)
	place := one
	if there := one.Load(); there != nil && there.read.raw != t.read.raw && other.Load() == nil {
		place = other
	}
	place.Store(&t)
}
