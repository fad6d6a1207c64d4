package control

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"revocation-adapter/adapter/issuers"
	"revocation-adapter/adapter/tokens"
	"revocation-adapter/config"
	"revocation-adapter/config/jwks"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// The headers that name what was revoked (the gateway documentation's).
const (
	headerAccess  = "RevokedAccessToken"
	headerRefresh = "RevokedRefreshToken"
	headerUser    = "AuthorizedUser"
)

// named reads which token a form names.
func (c *call) named() (tokens.Named, error) {
	n := tokens.Named{Raw: c.form.Get("token"), Hint: c.form.Get("token_type_hint")}
	if n.Raw == "" {
		return n, invalid("the parameter token is missing")
	}
	return n, nil
}

// cascades reads whether what was issued together falls together.
func (c *call) cascades() (bool, error) {
	text := c.form.Get("cascade")
	if text == "" {
		return true, nil
	}
	cascade, err := strconv.ParseBool(text)
	if err != nil {
		return false, invalid("cascade must be true or false")
	}
	return cascade, nil
}

// revokeToken is RFC 7009.
func (c *call) revokeToken() error {
	n, err := c.named()
	if err != nil {
		return err
	}
	cascade, err := c.cascades()
	if err != nil {
		return err
	}
	reason, err := reasonOf(c.form.Get("reason"))
	if err != nil {
		return err
	}
	c.entry.Reason = reason
	t, why, err := c.mine(n)
	if t.Digest != (revocation.Digest{}) {
		c.entry.Target = t.Name() // of what was refused, too
	}
	if err != nil {
		return err
	}
	all := c.fallWith(t, cascade)
	if why == expired { // what was issued with it may not have
		if all = c.living(all); len(all) > 0 {
			why = ""
		}
	}
	if why != "" {
		return c.tell(nothing(why))
	}
	e, err := c.put(all, t.Tenant, c.says(revocation.Revoked, reason))
	if err != nil {
		return err
	}
	c.tellTokens(n, t, e)
	return c.tell(e)
}

// mine finds out what a token is, and whether the client may revoke it. Why is not
// empty where there is nothing to revoke.
func (c *call) mine(n tokens.Named) (t tokens.Token, why string, err error) {
	anyToken := c.client.Has(config.RoleRevokeAny)
	t, err = c.reader().Read(c.r.Context(), n)
	switch {
	case errors.Is(err, tokens.ErrInvalid):
		return tokens.Token{}, notValid, nil
	case errors.Is(err, tokens.ErrUnsupported):
		return t, "", &fault{
			status: http.StatusBadRequest, code: "unsupported_token_type",
			detail: "the token has no jti, by which gateways could look it up",
		}
	case errors.Is(err, issuers.ErrUnknownIssuer) && !anyToken:
		return t, unknown, nil
	case errors.Is(err, jwks.ErrTooSoon): // else whoever forges a token could have it revoked in another's name
		return t, "", errors.Join(unavailable("the key of the token is not known yet, so it is not known to be revoked: try again"), err)
	case errors.Is(err, issuers.ErrUnknownIssuer), errors.Is(err, tokens.ErrUndecided) && anyToken:
	case errors.Is(err, tokens.ErrUndecided):
		return t, "", errors.Join(unavailable("the keys of the token's issuer are out of reach, so it is not known to be revoked: try again"), err)
	case err != nil:
		return t, "", readFault(err)
	case t.Proof == tokens.Unproven && !anyToken:
		return t, unknown, nil
	case t.Client != c.client.ID && !anyToken:
		return t, "", &fault{
			status: http.StatusBadRequest, code: "unauthorized_client",
			detail: "the token was issued to another client, and this one has no role " + config.RoleRevokeAny,
		}
	}
	if t.Proof == tokens.Unproven {
		jwt, err := c.jwtOf(c.r.Context(), n.Raw)
		if err != nil {
			return t, "", readFault(err)
		}
		if jwt.Domain == revocation.DomainToken {
			t.GrantToken = jwt
		}
	}
	if t.Expired(c.cfg.Now(), c.cfg.Grace) {
		return t, expired, nil
	}
	return t, "", nil
}

func (c *call) reader() tokens.Reader {
	return tokens.Reader{Issuers: c.cfg.Issuers, Grants: c.core.Grants}
}

// fallWith is what falls when a token is revoked: with an access token its refresh
// token always, with a refresh token its access tokens if the caller cascades.
func (c *call) fallWith(t tokens.Token, cascade bool) []messaging.GrantToken {
	all := []messaging.GrantToken{t.GrantToken}
	if t.Access != (messaging.GrantToken{}) {
		all = append(all, t.Access)
	}
	if t.Domain == revocation.DomainRefresh && !cascade {
		return all
	}
	return append(all, c.living(t.Family)...)
}

// living leaves out what has expired.
func (c *call) living(family []messaging.GrantToken) (alive []messaging.GrantToken) {
	for _, t := range family {
		if !(tokens.Token{GrantToken: t}).Expired(c.cfg.Now(), c.cfg.Grace) {
			alive = append(alive, t)
		}
	}
	return alive
}

// tellTokens names what was revoked: the token that the caller sent as it is, any
// other by its digest.
func (c *call) tellTokens(n tokens.Named, t tokens.Token, e effect) {
	if e.reason != "" {
		return
	}
	for _, changed := range e.changed {
		name := revocation.NamePrefix + changed.Digest.String()
		if changed.Digest == t.Digest && changed.Domain == t.Domain && visible(n.Raw) {
			name = n.Raw
		}
		header := headerAccess
		if changed.Domain == revocation.DomainRefresh {
			header = headerRefresh
		}
		c.w.Header().Add(header, name)
	}
	if t.Subject != "" && visible(t.Subject) {
		c.w.Header().Set(headerUser, t.Subject)
	}
}

// visible says whether text can stand in a header.
func visible(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}
