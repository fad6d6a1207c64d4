package control

import (
	"errors"
	"fmt"
	"net/http"

	"revocation-adapter/adapter/issuers"
	"revocation-adapter/adapter/tokens"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// grantBody is the body of POST /grants.
type grantBody struct {
	AccessToken      string  `json:"access_token"`
	RefreshToken     string  `json:"refresh_token"`
	ClientID         string  `json:"client_id"`
	Subject          string  `json:"subject"`
	Tenant           string  `json:"tenant"`
	ExpiresAt        instant `json:"expires_at"`
	RefreshExpiresAt instant `json:"refresh_expires_at"`
}

// addGrant registers tokens that were issued together. Of them digests are kept,
// and the jti of a JWT.
func (c *call) addGrant() error {
	var b grantBody
	if err := c.readJSON(&b, maxForm); err != nil {
		return err
	}
	g, err := c.grant(b)
	if err != nil {
		return err
	}
	c.entry.Target = g.Access.Name()
	switch err := c.core.Grants.Put(c.r.Context(), g); {
	case errors.Is(err, messaging.ErrGrant), errors.Is(err, messaging.ErrGrantExpired):
		return invalid(err.Error())
	case errors.Is(err, messaging.ErrGrantsMany):
		return &fault{status: http.StatusConflict, code: "invalid_request", detail: err.Error()}
	case errors.Is(err, messaging.ErrGrantsFull):
		return &fault{
			status: http.StatusServiceUnavailable, code: "temporarily_unavailable", wait: 60,
			detail: "the registry of grants is full: nothing new is stored until some expire or grants.max is raised",
		}
	case err != nil:
		return storeFault(err)
	}
	c.audit("registered", http.StatusCreated)
	c.w.WriteHeader(http.StatusCreated)
	return nil
}

func (c *call) grant(b grantBody) (messaging.Grant, error) {
	g := messaging.Grant{Client: b.ClientID, Subject: b.Subject, Tenant: b.Tenant}
	if b.AccessToken == "" || b.ClientID == "" {
		return g, invalid("access_token and client_id are needed")
	}
	t, err := c.accessToken(b.AccessToken)
	if err != nil {
		return g, err
	}
	g.Access = t
	access, err := b.ExpiresAt.at("expires_at")
	if err != nil {
		return g, invalid(err.Error())
	}
	g.Access.Expiry = max(g.Access.Expiry, access)
	refresh, err := b.RefreshExpiresAt.at("refresh_expires_at")
	if err != nil {
		return g, invalid(err.Error())
	}
	if b.RefreshToken != "" {
		g.Refresh = messaging.RefreshToken(b.RefreshToken, refresh)
	}
	return g, nil
}

// accessToken names an access token that was issued. Whoever registers it has
// issued it: nothing of it is verified.
func (c *call) accessToken(raw string) (messaging.GrantToken, error) {
	claims, err := issuers.Parse(raw)
	if errors.Is(err, issuers.ErrNotJWT) {
		return messaging.GrantToken{
			Domain: revocation.DomainOpaque, Digest: revocation.DigestOf(revocation.DomainOpaque, raw),
		}, nil
	}
	if err != nil {
		return messaging.GrantToken{}, invalid("access_token looks like a JWT, and cannot be read as one")
	}
	t, err := tokens.OfClaims(claims)
	if err != nil {
		return messaging.GrantToken{}, invalid(fmt.Sprint("access_token: ", err))
	}
	return t.GrantToken, nil
}
