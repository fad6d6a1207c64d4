package messaging

import (
	"fmt"
	"unicode/utf8"

	"revocation-adapter/revocation"
)

// GrantToken names a token that was issued. It holds no secret.
type GrantToken struct {
	Domain revocation.Domain
	Key    string // the jti of a JWT or API key; else empty
	Digest revocation.Digest
	Expiry int64 // milliseconds since the epoch, without grace; revocation.Never; 0: not known
	Kind   revocation.Kind

	// Unknown means that nobody has said when the token expires: Expiry is until when the
	// registry holds it.
	Unknown bool
}

// Grant says with which refresh token an access token was issued, and to whom.
type Grant struct {
	Access  GrantToken
	Refresh GrantToken // the zero value: there is none
	Client  string
	Subject string
	Tenant  string
}

// RefreshGrant is what was issued with a refresh token.
type RefreshGrant struct {
	Refresh GrantToken
	Access  []GrantToken // those that live, the newest last
	Client  string
	Subject string
	Tenant  string
}

// Granted names an access token. What can be read as a JWT is known by its jti,
// whatever its type says: by nothing else could a gateway look it up.
func (t Token) Granted() (GrantToken, error) {
	if _, err := revocation.ReadJWT(t.Token); err == nil {
		t.Type = ""
	}
	e, err := t.Event()
	if err != nil {
		return GrantToken{}, err
	}
	return GrantToken{Domain: e.Domain, Key: e.Key, Digest: e.Digest, Expiry: e.Expiry, Kind: e.Kind}, nil
}

// RefreshToken names a refresh token, of which only the digest is kept. It may also
// be given by its name, NamePrefix and the digest. Expiry is as in GrantToken.
func RefreshToken(token string, expiry int64) GrantToken {
	return GrantToken{Domain: revocation.DomainRefresh, Digest: RefreshDigest(token), Expiry: expiry}
}

// Name is what the token is called outside: its jti, or its digest with NamePrefix.
func (t GrantToken) Name() string {
	return revocation.Revocation{Domain: t.Domain, Key: t.Key, Digest: t.Digest}.Name()
}

// RefreshDigest is the digest of a refresh token, which may also be given by its
// name.
func RefreshDigest(token string) revocation.Digest {
	return secretDigest(revocation.DomainRefresh, token)
}

// The bound of a text of a grant, in bytes.
const maxGrantText = 256

// check reports why a grant cannot be kept, or nil. It quotes nothing of it.
func (g Grant) check() error {
	switch a := g.Access; {
	case a.Domain != revocation.DomainToken && a.Domain != revocation.DomainOpaque:
		return fmt.Errorf("%w: there is no access token", ErrGrant)
	case g.Refresh != GrantToken{} && g.Refresh.Domain != revocation.DomainRefresh:
		return fmt.Errorf("%w: the refresh token is none", ErrGrant)
	}
	for _, t := range []GrantToken{g.Access, g.Refresh} {
		if err := t.check(); err != nil {
			return err
		}
	}
	for _, text := range []string{g.Client, g.Subject, g.Tenant} {
		if len(text) > maxGrantText || !utf8.ValidString(text) || revocation.HoldsJWT(text) {
			return fmt.Errorf("%w: client, subject and tenant must be UTF-8 of at most %d bytes, and no tokens", ErrGrant, maxGrantText)
		}
	}
	return nil
}

func (t GrantToken) check() error {
	switch {
	case t == GrantToken{}:
		return nil
	case t.Expiry < 0:
		return fmt.Errorf("%w: an expiry is negative", ErrGrant)
	case t.Kind > revocation.KindAPIKey:
		return fmt.Errorf("%w: kind %d", ErrGrant, t.Kind)
	case t.Domain.Secret() && t.Key != "":
		return fmt.Errorf("%w: it holds a secret", ErrGrant)
	case t.Domain.Secret():
		return nil
	}
	if err := revocation.CheckKey(t.Key); err != nil {
		return fmt.Errorf("%w: the jti: %w", ErrGrant, err)
	}
	if wholeJWT(t.Key) || revocation.DigestOf(t.Domain, t.Key) != t.Digest {
		return fmt.Errorf("%w: the digest is not that of the jti", ErrGrant)
	}
	return nil
}
