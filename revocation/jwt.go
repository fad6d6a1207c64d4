package revocation

import (
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
	expiry, life, err := readExp(payload["exp"])
	if err != nil {
		return Claims{}, err
	}
	return Claims{ID: id, Expiry: expiry, Lifetime: life}, nil
}

// readExp reads a NumericDate: seconds since the epoch, possibly with a
// fraction.
func readExp(exp json.RawMessage) (int64, Lifetime, error) {
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
