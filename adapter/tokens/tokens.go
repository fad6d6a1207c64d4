// Package tokens finds out what a token is that somebody names: under which key it
// is revoked, whose it is, and what was issued together with it.
//
// It keeps nothing and changes nothing. Nothing of a token is in its errors.
package tokens

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"revocation-adapter/adapter/issuers"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// The values of token_type_hint (RFC 7009, 2.1).
const (
	HintAccess  = "access_token"
	HintRefresh = "refresh_token"
)

// Token is what is known of a token.
type Token struct {
	messaging.GrantToken // under which it is revoked; its expiry is 0 where that is not known

	Proof   Proof
	Client  string // whom it was issued to, "" if that is not known
	Subject string
	Tenant  string
	Claims  *issuers.Claims        // of a JWT, nil of others
	Family  []messaging.GrantToken // issued together with it: its refresh token, or its access tokens

	// Access names what is registered as a refresh token, and is a JWT as well: gateways
	// look it up by its jti, whatever the registry says. Else the zero value.
	Access messaging.GrantToken
}

// Proof is how what is known of a token is known.
type Proof uint8

// The proofs.
const (
	Unproven   Proof = iota // by the token's own word, or not at all
	Genuine                 // its issuer has signed it
	Registered              // it was registered when it was issued
)

// The reasons for which a token is not named.
var (
	// ErrInvalid means that it is not one that any gateway should accept.
	ErrInvalid = errors.New("the token is not valid")
	// ErrUnsupported means that it cannot be revoked by what it says: it has no jti.
	ErrUnsupported = errors.New("the token has no jti that could be revoked")
	// ErrUndecided means that nobody can tell now whether it is genuine.
	ErrUndecided = issuers.ErrUndecided
)

// Registry is where grants are found: *messaging.Grants.
type Registry interface {
	Access(ctx context.Context, d revocation.Domain, digest revocation.Digest) (messaging.Grant, error)
	Refresh(ctx context.Context, digest revocation.Digest) (messaging.RefreshGrant, error)
}

// Reader reads tokens. Any number of goroutines may use it.
type Reader struct {
	Issuers *issuers.Set
	Grants  Registry
}

// Named is a token as somebody names it.
type Named struct {
	Raw  string
	Hint string // HintAccess, HintRefresh, or anything else, which is none
}

// Read finds out what a token is. The hint says where to look first. A JWT whose
// issuer is not configured, or whose keys are out of reach, is returned together
// with the error, as it says itself what it is.
func (r Reader) Read(ctx context.Context, n Named) (Token, error) {
	if n.Hint == HintRefresh {
		refresh, err := r.refresh(ctx, n.Raw)
		switch {
		case errors.Is(err, messaging.ErrNoGrant):
			return r.access(ctx, n.Raw)
		case err != nil || strings.Count(n.Raw, ".") != 2: // which a JWT has
			return refresh, err
		}
		t, err := r.access(ctx, n.Raw)
		return registered(refresh, t, err)
	}
	t, err := r.access(ctx, n.Raw)
	if t.Proof == Registered || err != nil && t.Proof != Unproven || n.Hint == HintAccess && t.Proof == Genuine {
		return t, err
	}
	refresh, other := r.refresh(ctx, n.Raw)
	switch {
	case errors.Is(other, messaging.ErrNoGrant):
		return t, err
	case other != nil:
		return refresh, other
	}
	return registered(refresh, t, err)
}

// registered is what is registered as a refresh token, and as an access token is t, or
// was not read because of err.
func registered(refresh, t Token, err error) (Token, error) {
	switch {
	case err == nil && t.Proof == Genuine && t.Client != refresh.Client:
		return t, nil // its issuer knows better whose it is
	case err == nil && t.Proof == Genuine:
		refresh.Access = t.GrantToken
	case errors.Is(err, ErrUndecided) && (t.Client == refresh.Client || t.Client == ""):
		refresh.Access = t.GrantToken // who has registered it has issued it
	case err == nil, errors.Is(err, ErrUndecided), errors.Is(err, issuers.ErrUnknownIssuer),
		errors.Is(err, ErrInvalid), errors.Is(err, ErrUnsupported):
	default:
		return Token{}, err // nobody knows what falls with it
	}
	return refresh, nil
}

// refresh looks for a refresh token that is registered.
func (r Reader) refresh(ctx context.Context, raw string) (Token, error) {
	g, err := r.Grants.Refresh(ctx, messaging.RefreshDigest(raw))
	if err != nil {
		return Token{}, fmt.Errorf("look for the grant: %w", err)
	}
	return Token{
		GrantToken: g.Refresh, Proof: Registered, Client: g.Client, Subject: g.Subject, Tenant: g.Tenant, Family: g.Access,
	}, nil
}

// access reads an access token or an API key.
func (r Reader) access(ctx context.Context, raw string) (Token, error) {
	claims, err := r.Issuers.Read(ctx, raw)
	switch {
	case errors.Is(err, issuers.ErrNotJWT):
		return r.opaque(ctx, raw)
	case errors.Is(err, issuers.ErrNotGenuine):
		return Token{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	t, fault := OfClaims(claims)
	if fault != nil {
		return Token{}, fault
	}
	if err == nil {
		t.Proof = Genuine
	}
	t, other := r.withFamily(ctx, t)
	return t, cmp.Or(other, err)
}

// OfClaims is the token that says these claims.
func OfClaims(claims *issuers.Claims) (Token, error) {
	t := Token{Client: claims.Client(), Subject: claims.Subject, Claims: claims}
	t.Domain, t.Kind, t.Key = revocation.DomainToken, revocation.KindJWT, claims.ID
	if claims.TokenType == "apiKey" {
		t.Kind = revocation.KindAPIKey
	}
	if err := revocation.CheckKey(t.Key); err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	t.Digest = revocation.DigestOf(t.Domain, t.Key)
	expiry, _, err := claims.Expiry()
	if err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	t.Expiry = expiry
	return t, nil
}

func (r Reader) opaque(ctx context.Context, raw string) (Token, error) {
	if err := CheckOpaque(raw); err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return r.withFamily(ctx, Token{GrantToken: Opaque(raw)})
}

// CheckOpaque reports that raw is meant to be a digest and is none, or nil: of a
// digest that was cut short nobody wants to hear that it is revoked.
func CheckOpaque(raw string) error {
	digest, named := strings.CutPrefix(raw, revocation.NamePrefix)
	if !named {
		return nil
	}
	_, err := revocation.ParseDigest(digest)
	return err
}

// Opaque names an opaque token, given as it is or by its digest.
func Opaque(raw string) messaging.GrantToken {
	return messaging.GrantToken{Domain: revocation.DomainOpaque, Digest: messaging.OpaqueDigest(raw)}
}

// JTI names a JWT by its id.
func JTI(id string) messaging.GrantToken {
	return messaging.GrantToken{
		Domain: revocation.DomainToken, Kind: revocation.KindJWT, Key: id, Digest: revocation.DigestOf(revocation.DomainToken, id),
	}
}

// withFamily adds what is registered of an access token.
func (r Reader) withFamily(ctx context.Context, t Token) (Token, error) {
	g, err := r.Grants.Access(ctx, t.Domain, t.Digest)
	switch {
	case errors.Is(err, messaging.ErrNoGrant):
		return t, nil
	case err != nil:
		return Token{}, fmt.Errorf("look for the grant: %w", err)
	}
	if t.Domain == revocation.DomainOpaque {
		t.Client, t.Subject, t.Proof = g.Client, g.Subject, Registered
		t.Expiry, t.Unknown = g.Access.Expiry, g.Access.Unknown
	}
	t.Tenant = g.Tenant
	if g.Refresh.Domain != 0 {
		t.Family = []messaging.GrantToken{g.Refresh}
	}
	return t, nil
}

// Expired says whether a token has ceased to count at now, grace included. One
// whose expiry is not known has not.
func (t Token) Expired(now time.Time, grace time.Duration) bool {
	return t.Expiry > 0 && !t.Unknown && (revocation.Revocation{Expiry: t.Expiry}).Expired(now, grace)
}
