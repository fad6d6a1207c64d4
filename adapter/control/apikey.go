package control

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"revocation-adapter/adapter/clients"
	"revocation-adapter/adapter/issuers"
	"revocation-adapter/adapter/tokens"
	"revocation-adapter/config"
	"revocation-adapter/config/jwks"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// pathAPIKey is where API-M's developer portal has it.
const pathAPIKey = "/api/am/devportal/v3/applications/{applicationId}/api-keys/{keyType}/revoke"

// revokeAPIKey is what the audit and the metrics call it.
const revokeAPIKey = "revoke_api_key"

// serveAPIKey lets a bearer of a token in, in place of a client.
func (a *api) serveAPIKey(w http.ResponseWriter, r *http.Request) {
	c := a.newCall(w, r, endpoint{action: revokeAPIKey, writes: true})
	err := c.bearer() //nolint:contextcheck // the call holds its request
	if err == nil {
		err = c.revokeAPIKey() //nolint:contextcheck // as above
	}
	if err != nil {
		c.refuse(err, false) //nolint:contextcheck // as above
	}
}

func bearerFault(status int, code, detail string) error {
	return &fault{status: status, code: code, detail: detail}
}

// bearer finds out who calls: a token of a configured issuer that is in force, not
// revoked, and has the scope; or one of a client with the role of that name.
func (c *call) bearer() error {
	scheme, raw, _ := strings.Cut(c.r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || raw == "" {
		c.w.Header().Set("WWW-Authenticate", `Bearer realm="revocation-adapter"`)
		return bearerFault(http.StatusUnauthorized, "invalid_token", "a Bearer token with the scope "+config.RoleAPIKey+" is needed")
	}
	if c.core = c.cfg.Core(); c.core == nil {
		return unavailable("the hub is not open yet")
	}
	t, err := c.genuine(strings.TrimSpace(raw))
	if err != nil {
		return err
	}
	bearer := c.cfg.Clients.Bearer(clients.Entry{ID: bearerOf(t)})
	if c.client = c.cfg.Clients.Find(t.Client); c.client == nil {
		c.client = bearer
	}
	c.entry.Actor = c.client.ID
	if !bearer.Allow() { // of the client itself nothing is used up: its users have tokens, too
		return tooMany(1, "this client asks more often than it may")
	}
	if !t.Claims.HasScope(config.RoleAPIKey) && !c.client.Has(config.RoleAPIKey) {
		c.w.Header().Set("WWW-Authenticate", `Bearer realm="revocation-adapter", error="insufficient_scope", scope="`+config.RoleAPIKey+`"`)
		return bearerFault(http.StatusForbidden, "insufficient_scope", "the token has not the scope "+config.RoleAPIKey)
	}
	return nil
}

// bearerOf is what the bearer of a token is called: by its client, or by its subject,
// which may have the name of a client.
func bearerOf(t tokens.Token) string {
	if t.Client == "" && t.Subject != "" {
		return printable("sub=" + t.Subject)
	}
	return printable(t.Client)
}

// genuine is the token of the caller, which must be good now.
func (c *call) genuine(raw string) (tokens.Token, error) {
	refused := func(detail string) (tokens.Token, error) {
		c.w.Header().Set("WWW-Authenticate", `Bearer realm="revocation-adapter", error="invalid_token"`)
		return tokens.Token{}, bearerFault(http.StatusUnauthorized, "invalid_token", detail)
	}
	claims, err := c.cfg.Issuers.Read(c.r.Context(), raw)
	if errors.Is(err, issuers.ErrUndecided) && !errors.Is(err, jwks.ErrTooSoon) { // which whoever forges a token could cause
		return tokens.Token{}, errors.Join(unavailable("the keys of the token's issuer are out of reach: try again"), err)
	}
	if err != nil {
		return refused("the Bearer token is not one of a configured issuer")
	}
	t, err := tokens.OfClaims(claims)
	now := c.cfg.Now()
	switch {
	case err != nil:
		return refused("the Bearer token has no jti or no readable exp")
	case t.Expiry <= now.UnixMilli():
		return refused("the Bearer token has expired")
	case claims.NotBefore != nil && claims.NotBefore.After(now):
		return refused("the Bearer token is not in force yet")
	case t.Kind == revocation.KindAPIKey:
		return refused("an API key is no Bearer token")
	}
	s, err := c.standing(c.r.Context(), t)
	if err != nil {
		return tokens.Token{}, readFault(err)
	}
	if s.why() != "" {
		return refused("the Bearer token is revoked")
	}
	return t, nil
}

// revokeAPIKey revokes a key of the application and type that the path names.
func (c *call) revokeAPIKey() error {
	raw, err := c.apiKey()
	if err != nil {
		return err
	}
	claims, err := c.cfg.Issuers.Read(c.r.Context(), raw)
	switch {
	case errors.Is(err, issuers.ErrUndecided):
		return errors.Join(unavailable("the keys of the API key's issuer are out of reach: try again"), err)
	case err != nil:
		return invalid("apikey is not a key of a configured issuer")
	case claims.Application.UUID == "" || claims.Application.UUID != c.r.PathValue("applicationId"):
		return invalid("apikey is a key of another application")
	case !strings.EqualFold(claims.KeyType, c.r.PathValue("keyType")):
		return invalid("apikey is a key of another type")
	}
	t, err := tokens.OfClaims(claims)
	if err != nil {
		return invalid("apikey has no jti, by which gateways could look it up, or no readable exp")
	}
	t.Kind = revocation.KindAPIKey
	c.entry.Target = t.Name()
	if t.Expired(c.cfg.Now(), c.cfg.Grace) {
		return c.tell(nothing(expired))
	}
	e, err := c.put([]messaging.GrantToken{t.GrantToken}, "", c.says(revocation.Revoked, ""))
	if err != nil {
		return err
	}
	return c.tell(e)
}

// apiKey is the key in the body.
func (c *call) apiKey() (string, error) {
	if err := c.isJSON(); err != nil {
		return "", err
	}
	text, err := c.body(maxForm)
	if err != nil {
		return "", err
	}
	var body struct {
		APIKey string `json:"apikey"`
	}
	if json.Unmarshal(text, &body) != nil || body.APIKey == "" {
		return "", invalid(`the body must be {"apikey":"…"}`)
	}
	return body.APIKey, nil
}
