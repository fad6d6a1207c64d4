package bulk

import (
	"errors"
	"fmt"
	"strings"

	"revocation-adapter/adapter/tokens"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// Token is what is announced of a token: a jti, or the digest of an opaque token,
// and never the token itself.
type Token struct {
	Name   string
	Expiry int64 // milliseconds since the epoch; 0: not known
}

// ErrType means that a type of tokens is none that can be announced.
var ErrType = errors.New("must be JWT, API_KEY or Default")

// ReadToken reads a token of a type of messaging. Of a JWT the jti and exp are
// kept, of an opaque token the digest.
func ReadToken(text, typ string) (Token, error) {
	switch typ {
	case messaging.TypeDefault:
		if err := tokens.CheckOpaque(text); err != nil {
			return Token{}, fmt.Errorf("the token: %w", err)
		}
		return Token{Name: revocation.NamePrefix + messaging.OpaqueDigest(text).String()}, nil
	case messaging.TypeJWT, messaging.TypeAPIKey:
	default:
		return Token{}, fmt.Errorf("--type %w, is %q", ErrType, typ)
	}
	t := Token{Name: text}
	claims, err := revocation.ReadJWT(text)
	switch {
	case err == nil:
		t = Token{Name: claims.ID, Expiry: claims.Expiry}
	case !errors.Is(err, revocation.ErrNotJWT) || strings.Count(text, ".") >= 2:
		return Token{}, fmt.Errorf("the token: %w", err)
	}
	if err := revocation.CheckKey(t.Name); err != nil {
		return Token{}, fmt.Errorf("the token: %w", err)
	}
	return t, nil
}
