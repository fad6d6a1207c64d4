package jwks

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// key is one public key.
type key struct {
	id        string
	algorithm string // that it is for; "": any of its type
	public    any
}

// keySet is all keys of all sources, and the tokens that they have verified.
type keySet struct {
	keys     []key // never changed
	verified verified
}

// errNoKeys means that a source holds nothing to verify with.
var errNoKeys = errors.New("there is no public key for signatures in it")

// minRSA is the shortest RSA key that is accepted, in bits (RFC 7518, 3.3).
const minRSA = 2048

// parseKeys reads a JSON Web Key Set. Keys that are not for signatures, secret or
// of a kind not known are passed over.
func parseKeys(text []byte) ([]key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, errors.New("it is no JSON Web Key Set")
	}
	var keys []key
	for _, raw := range set.Keys {
		if one, ok := parseKey(raw); ok {
			keys = append(keys, one)
		}
	}
	if len(keys) == 0 {
		return nil, errNoKeys
	}
	return keys, nil
}

func parseKey(raw json.RawMessage) (key, bool) {
	parsed, err := jwkset.NewJWKFromRawJSON(raw, jwkset.JWKMarshalOptions{},
		jwkset.JWKValidateOptions{SkipUse: true, SkipKeyOps: true})
	if err != nil {
		return key{}, false
	}
	if m := parsed.Marshal(); m.USE == "" || m.USE == jwkset.UseSig {
		return key{m.KID, m.ALG.String(), parsed.Key()}, isPublic(parsed.Key())
	}
	return key{}, false
}

func isPublic(public any) bool {
	switch public := public.(type) {
	case *rsa.PublicKey:
		return public.N.BitLen() >= minRSA
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

// keysFor is what jwt.Parser asks: the keys that may have signed a token, by its
// kid, or all that fit where it has none.
func (s *keySet) keysFor(token *jwt.Token) (any, error) {
	if _, ok := token.Header["crit"]; ok {
		return nil, errCritical
	}
	id, named := token.Header["kid"].(string)
	var found jwt.VerificationKeySet
	for _, k := range s.keys {
		if (!named || k.id == id) && k.fits(token.Method.Alg()) {
			found.Keys = append(found.Keys, k.public)
		}
	}
	if len(found.Keys) == 0 {
		return nil, fmt.Errorf("%w", errUnknownKey)
	}
	return found, nil
}

// fits says whether signatures of an algorithm may be made with the key.
func (k key) fits(algorithm string) bool {
	if k.algorithm != "" && k.algorithm != algorithm {
		return false
	}
	switch public := k.public.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(algorithm, "RS") || strings.HasPrefix(algorithm, "PS")
	case *ecdsa.PublicKey:
		return algorithm == map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[public.Curve.Params().BitSize]
	case ed25519.PublicKey:
		return algorithm == "EdDSA"
	}
	return false
}
