// Package revocation orders revocations and remembers which still count.
//
// A Revocation is what is known of one key; Merge joins two of them. A Log
// holds the newest revocation of every key in the order of the hub's sequence:
// it has one writer and any number of readers, and every version names a
// position in it. The package does no I/O, reads no clock and starts nothing.
package revocation

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// Domain says which kind of thing a key names. It is part of the identity.
type Domain uint8

// The domains. Refresh tokens and rules are never served as tokens.
const (
	DomainToken   Domain = 1 + iota // the jti of a JWT or of an API key
	DomainOpaque                    // an opaque access token, known by its digest alone
	DomainRefresh                   // a refresh token, known by its digest alone
	DomainRule                      // a claim and a value
)

func (d Domain) String() string {
	switch d {
	case DomainToken:
		return "token"
	case DomainOpaque:
		return "opaque"
	case DomainRefresh:
		return "refresh"
	case DomainRule:
		return "rule"
	}
	return fmt.Sprintf("domain %d", uint8(d))
}

// Secret says whether keys of the domain are secrets, of which only the digest
// may be kept.
func (d Domain) Secret() bool { return d == DomainOpaque || d == DomainRefresh }

// Kind is what sort of token the publisher said it is. It is not identity: a
// full sync knows no kind.
type Kind uint8

// The kinds of DomainToken. Everything else has KindNone.
const (
	KindNone Kind = iota
	KindJWT
	KindAPIKey
)

// State is whether the key is refused. The order matters: of two events at the
// same time the greater state wins.
type State uint8

// The states.
const (
	Approved State = 1 + iota
	Revoked
)

func (s State) String() string {
	switch s {
	case Approved:
		return "approved"
	case Revoked:
		return "revoked"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Lifetime is how well the expiry is known. The order matters: the greatest
// ever seen is kept.
type Lifetime uint8

// The lifetimes.
const (
	Dated   Lifetime = 1 + iota // Expiry is the token's own
	Unknown                     // the publisher did not know; Expiry is when we stop counting it
	Forever                     // the token never expires; Expiry is Never
)

func (l Lifetime) String() string {
	switch l {
	case Dated:
		return "dated"
	case Unknown:
		return "unknown"
	case Forever:
		return "never"
	}
	return fmt.Sprintf("lifetime %d", uint8(l))
}

// Never is the expiry, in milliseconds since the epoch, of what never expires.
const Never int64 = math.MaxInt64

// MaxKey is the longest key in bytes. The signature part of a JWT, which older
// publishers send in place of a jti, has at most 683.
const MaxKey = 2048

// NamePrefix begins the served name of a key of which only the digest is kept.
// No jti may begin with it.
const NamePrefix = "sha256:"

// Digest is the first 16 bytes of SHA-256(domain ‖ 0 ‖ key): the key's identity
// in the hub's subject and at the gateway.
type Digest [16]byte

// DigestOf returns the digest of key in domain d. It allocates nothing for a
// jti, nor for the signature of a JWT.
func DigestOf(d Domain, key string) Digest { return digestOf(d, key, "", "") }

// shortKey and longKey are how long keys are of which the digest is made without
// an allocation, in bytes: a jti, and the signature of a JWT.
const (
	shortKey = 120
	longKey  = 696
)

// digestOf returns the digest of a key in three pieces.
func digestOf(d Domain, a, b, c string) Digest {
	if len(a)+len(b)+len(c) > shortKey {
		return shortened(append(append(append(append(append(make([]byte, 0, longKey+8), d.String()...), 0), a...), b...), c...))
	}
	var buf [shortKey + 16]byte
	n := copy(buf[:], d.String()) + 1 // ten letters at most, and 0 after them
	n += copy(buf[n:], a)
	n += copy(buf[n:], b)
	n += copy(buf[n:], c)
	return shortened(buf[:n])
}

func shortened(buf []byte) Digest {
	sum := sha256.Sum256(buf)
	return Digest(sum[:16])
}

// String returns the digest in unpadded base64url, 22 characters.
func (d Digest) String() string { return base64.RawURLEncoding.EncodeToString(d[:]) }

// Revocation is the normalised record of one key.
type Revocation struct {
	Domain   Domain
	Key      string // byte for byte as it came; empty where Domain.Secret
	Digest   Digest
	State    State
	Kind     Kind
	Expiry   int64    // milliseconds since the epoch, without grace; Never
	Lifetime Lifetime // how Expiry is known
	Time     int64    // of the deciding event, microseconds since the epoch; 0: it had none
	Before   int64    // of DomainRule: tokens issued before are revoked, milliseconds since the epoch; else 0
	Tenant   string
	Source   string
	Reason   string
	Events   []Event // the newest first: the last four that had an id, and of all others the last; nil: one without
}

// Event is one event that went into a Revocation. Source, Actor and Reason are
// kept of those that have an id.
type Event struct {
	ID     string // empty: of those that have none, or are no longer listed
	Time   int64  // microseconds since the epoch
	State  State
	Source string // the way in
	Actor  string // who decided it, as its source knows them
	Reason string // why, in a person's words
}

// The faults of Check.
var (
	ErrKeyEmpty    = errors.New("the key is empty")
	ErrKeyLong     = fmt.Errorf("the key is longer than %d bytes", MaxKey)
	ErrKeyReserved = fmt.Errorf("the key begins with %q, which names digests", NamePrefix)
)

// CheckKey reports why key cannot be the key of a revocation, or nil.
func CheckKey(key string) error {
	switch {
	case key == "":
		return ErrKeyEmpty
	case len(key) > MaxKey:
		return ErrKeyLong
	case strings.HasPrefix(key, NamePrefix):
		return ErrKeyReserved
	}
	return nil
}

// Name is what the key is called outside: the jti itself, or the digest with
// NamePrefix where nothing else is kept.
func (r Revocation) Name() string {
	if r.Domain.Secret() {
		return NamePrefix + r.Digest.String()
	}
	return r.Key
}

// Expired says whether the revocation has ceased to count at now: its expiry
// and grace have passed.
func (r Revocation) Expired(now time.Time, grace time.Duration) bool {
	return expired(r.Expiry, now.UnixMilli(), grace.Milliseconds())
}

func expired(expiry, now, grace int64) bool {
	return expiry < Never-grace && expiry+grace <= now
}

// TTL is how long the hub must keep the revocation, in whole seconds rounded
// up, at least one; 0 means for ever.
func (r Revocation) TTL(now time.Time, grace time.Duration) int64 {
	if r.Expiry >= Never-grace.Milliseconds() {
		return 0
	}
	left := r.Expiry + grace.Milliseconds() - now.UnixMilli()
	return max(1, (left+999)/1000)
}

// ParseDigest reads what Digest.String wrote.
func ParseDigest(text string) (Digest, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != len(Digest{}) {
		return Digest{}, fmt.Errorf("not a digest: want %d characters of base64url", base64.RawURLEncoding.EncodedLen(len(Digest{})))
	}
	return Digest(raw), nil
}
