package revocation

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
)

// Claims is what is read of a JWT, and all that is kept of it.
type Claims struct {
	ID       string   // jti
	Expiry   int64    // milliseconds since the epoch; Never without exp
	Lifetime Lifetime // Dated, or Forever without exp
}

// The faults of ReadJWT. They quote nothing of the token.
var (
	ErrNotJWT = errors.New("not a JWT: it has no three base64url segments with a JSON object in the first two")
	ErrNoID   = errors.New("the JWT has no jti, so gateways cannot look it up")
	errExp    = errors.New("the exp of the JWT is not a time")
)

// maxJWT bounds what is decoded, in bytes.
const maxJWT = 64 << 10

// ReadJWT reads the id and the expiry of a compact JWT (RFC 7519). It verifies
// nothing. Padded base64url, as API-M's API keys have it, is accepted.
func ReadJWT(token string) (Claims, error) {
	parts := strings.Split(token, ".")
	if len(token) > maxJWT || len(parts) != 3 {
		return Claims{}, ErrNotJWT
	}
	header, payload := decodeSegment(parts[0]), decodeSegment(parts[1])
	if payload == nil || header["alg"] == nil {
		return Claims{}, ErrNotJWT
	}
	var id string
	if json.Unmarshal(payload["jti"], &id) != nil || id == "" {
		return Claims{}, ErrNoID
	}
	if err := CheckKey(id); err != nil {
		return Claims{}, fmt.Errorf("the jti of the JWT: %w", err)
	}
	expiry, life, err := ReadExpiry(payload["exp"])
	if err != nil {
		return Claims{}, err
	}
	return Claims{ID: id, Expiry: expiry, Lifetime: life}, nil
}

// ReadExpiry reads the JSON text of exp, a NumericDate: seconds since the epoch,
// possibly with a fraction. What it returns is in milliseconds; Never without
// one. Its error quotes nothing of the token.
func ReadExpiry(exp json.RawMessage) (int64, Lifetime, error) {
	if exp == nil || string(exp) == "null" {
		return Never, Forever, nil
	}
	var seconds float64
	if json.Unmarshal(exp, &seconds) != nil || seconds <= 0 {
		return 0, 0, errExp
	}
	if seconds >= float64(Never/1000) {
		return Never, Forever, nil
	}
	return int64(math.Ceil(seconds * 1000)), Dated, nil
}

// decodeSegment returns the members of the JSON object in a base64url segment,
// by their exact names, or nil.
func decodeSegment(segment string) map[string]json.RawMessage {
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(segment, "="))
	if err != nil {
		return nil
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		return nil
	}
	return members
}

// SignatureDigests returns the digests by which a JWT may be revoked where only
// its signature was known: of its third segment without padding, and with. Where
// it wants none, they are equal. It allocates nothing.
func SignatureDigests(signature string) (bare, padded Digest) {
	buf := append(make([]byte, 0, longKey+8), DomainToken.String()...)
	buf = append(append(buf, 0), signature...)
	h := sha256.New()
	_, _ = h.Write(buf) // a hash never fails
	var sum [sha256.Size]byte
	bare = Digest(h.Sum(sum[:0]))
	_, _ = h.Write(append(buf[:0], padding(signature)...))
	return bare, Digest(h.Sum(sum[:0]))
}

func padding(segment string) string { return "==="[:-len(segment)&3] }
