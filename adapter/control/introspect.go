package control

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"revocation-adapter/adapter/issuers"
	"revocation-adapter/adapter/tokens"
	"revocation-adapter/config"
	"revocation-adapter/config/jwks"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// used is why a one-time token is refused.
const used = "used"

// introspection is RFC 7662's answer. Reason is ours.
type introspection struct {
	Active    bool             `json:"active"`
	Reason    string           `json:"reason,omitempty"`
	Scope     string           `json:"scope,omitempty"`
	ClientID  string           `json:"client_id,omitempty"`
	Username  string           `json:"username,omitempty"`
	TokenType string           `json:"token_type,omitempty"`
	Expiry    int64            `json:"exp,omitempty"` // seconds since the epoch
	IssuedAt  json.RawMessage  `json:"iat,omitempty"`
	NotBefore *jwt.NumericDate `json:"nbf,omitempty"`
	Subject   string           `json:"sub,omitempty"`
	Audience  jwt.ClaimStrings `json:"aud,omitempty"`
	Issuer    string           `json:"iss,omitempty"`
	ID        string           `json:"jti,omitempty"`
}

// introspectToken is RFC 7662.
func (c *call) introspectToken() error {
	n, err := c.named()
	if err != nil {
		return err
	}
	if isName(n.Raw) { // names are no secrets: whoever shows one has not shown the token
		return c.inactive(tokens.Token{}, unknown)
	}
	t, err := c.reader().Read(c.r.Context(), n)
	switch {
	case errors.Is(err, tokens.ErrInvalid), errors.Is(err, tokens.ErrUnsupported), errors.Is(err, issuers.ErrUnknownIssuer),
		errors.Is(err, jwks.ErrTooSoon): // else whoever shows tokens could make this fail
		return c.inactive(t, notValid)
	case errors.Is(err, tokens.ErrUndecided):
		return errors.Join(unavailable("the keys of the token's issuer are out of reach: try again"), err)
	case err != nil:
		return readFault(err)
	}
	s, err := c.standing(c.r.Context(), t)
	switch {
	case err != nil:
		return readFault(err)
	case s.why() != "":
		return c.inactive(t, s.why())
	case t.Expiry > 0 && !t.Unknown && t.Expiry <= c.cfg.Now().UnixMilli():
		return c.inactive(t, expired)
	case t.Proof == tokens.Unproven:
		return c.inactive(t, unknown)
	case t.Claims != nil && t.Claims.NotBefore != nil && t.Claims.NotBefore.After(c.cfg.Now()):
		return c.inactive(t, "not_yet")
	}
	return c.json(active(t))
}

// isName says whether text is the name of a token, by its digest.
func isName(text string) bool {
	digest, named := strings.CutPrefix(text, revocation.NamePrefix)
	_, err := revocation.ParseDigest(digest)
	return named && err == nil
}

// inactive tells why to who may know: operators, who may revoke everything, and
// the client of the token.
func (c *call) inactive(t tokens.Token, why string) error {
	answer := introspection{}
	if c.operator() || c.client.Has(config.RoleRevokeAny) || t.Client != "" && t.Client == c.client.ID {
		answer.Reason = why
	}
	return c.json(answer)
}

func active(t tokens.Token) introspection {
	answer := introspection{Active: true, ClientID: t.Client, Subject: t.Subject, TokenType: "Bearer"}
	if t.Domain == revocation.DomainRefresh {
		answer.TokenType = ""
	}
	if t.Expiry > 0 && !t.Unknown && t.Expiry < revocation.Never {
		answer.Expiry = t.Expiry / 1000
	}
	if claims := t.Claims; claims != nil {
		for _, word := range claims.Scopes() {
			answer.Scope += " " + word
		}
		answer.Scope = answer.Scope[min(1, len(answer.Scope)):]
		answer.Username, answer.Issuer, answer.ID = claims.Username, claims.Issuer, claims.ID
		answer.IssuedAt, answer.NotBefore, answer.Audience = claims.IssuedAt, claims.NotBefore, claims.Audience
	}
	return answer
}

// standing is what the log says of a token.
type standing struct {
	record *messaging.Record // nil: nothing
	rules  []string          // keys of those that revoke it
}

// why a token is refused; "" if it is not.
func (s standing) why() string {
	switch {
	case s.record != nil && s.record.Used():
		return used
	case s.record != nil && s.record.State == revocation.Revoked, len(s.rules) > 0:
		return "revoked"
	}
	return ""
}

// standing asks the hub's leader: a token that was revoked just now, by itself or by
// a rule, is revoked.
func (c *call) standing(ctx context.Context, t tokens.Token) (s standing, err error) {
	keys := []messaging.GrantToken{t.GrantToken}
	if t.Access != (messaging.GrantToken{}) {
		keys = append(keys, t.Access)
	}
	for _, key := range keys {
		record, err := c.core.Hub.Record(ctx, key.Domain, key.Digest)
		switch {
		case errors.Is(err, messaging.ErrNoRecord):
		case err != nil:
			return s, err
		case !record.Expired(c.cfg.Now(), c.cfg.Grace) && (s.record == nil || record.State == revocation.Revoked):
			s.record = &record
		}
	}
	s.rules, err = c.explainer().RulesOn(ctx, t.Claims)
	return s, err
}
