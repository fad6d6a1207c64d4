package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"revocation-adapter/adapter/issuers"
	"revocation-adapter/adapter/tokens"
	"revocation-adapter/config"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// Bounds of POST /revocations.
const (
	maxItems = 10_000
	maxShown = 20 // faults of one body
	maxKey   = 255
	maxActor = 128
)

// list is the body of POST /revocations.
type list struct {
	Tokens bounded[listedToken] `json:"tokens"`
	Rules  bounded[listedRule]  `json:"rules"`
	State  string               `json:"state"` // revoked, the default, or approved
	Reason string               `json:"reason"`
	Actor  string               `json:"actor"` // for whom the client does it
	DryRun bool                 `json:"dry_run"`

	Cascade *bool `json:"cascade"` // as in POST /oauth2/revoke; true where it is left out
}

func (l *list) cascades() bool { return l.Cascade == nil || *l.Cascade }

type listedToken struct {
	Token     string  `json:"token"`  // as it is
	JTI       string  `json:"jti"`    // or its id
	SHA256    string  `json:"sha256"` // or the digest of an opaque one
	Type      string  `json:"type"`
	ExpiresAt instant `json:"expires_at"`
	Tenant    string  `json:"tenant"`
}

// secret is the token as it is, or its name.
func (t listedToken) secret() string {
	if t.SHA256 != "" {
		return revocation.NamePrefix + strings.TrimPrefix(t.SHA256, revocation.NamePrefix)
	}
	return t.Token
}

type listedRule struct {
	Claim        string  `json:"claim"`
	Value        string  `json:"value"`
	IssuedBefore instant `json:"issued_before"`
	Tenant       string  `json:"tenant"`
}

// records checks a list and returns what it says. All that is wrong is said at
// once, by the place.
func (c *call) records(l *list) ([]revocation.Revocation, error) {
	says, err := c.listSays(l)
	if err != nil {
		return nil, err
	}
	n := len(l.Tokens) + len(l.Rules)
	switch {
	case n == 0:
		return nil, invalid("the list holds no token and no rule")
	case n > maxItems:
		return nil, tooManyItems()
	}
	c.entry.Count, c.entry.Reason = n, l.Reason
	var wrong []string
	records := make([]revocation.Revocation, 0, n)
	note := func(place string, i int, r revocation.Revocation, err error) {
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s[%d]: %v", place, i, err))
		}
		records = append(records, r)
	}
	for i, t := range l.Tokens {
		r, err := c.listedToken(t, says)
		note("tokens", i, r, err)
	}
	for i, rule := range l.Rules {
		r, err := c.listedRule(rule, says)
		note("rules", i, r, err)
	}
	if len(wrong) > 0 {
		return nil, &fault{
			status: http.StatusBadRequest, code: "invalid_request", more: wrong[:min(len(wrong), maxShown)],
			detail: fmt.Sprintf("%d of %d tokens and rules are wrong; nothing was stored", len(wrong), n),
		}
	}
	if n > 1 {
		return c.withGrants(l, records, says)
	}
	c.entry.Target = records[0].Name() // of what fails, too
	if records, err = c.withGrants(l, records, says); err == nil {
		c.entry.Target = records[0].Name() // a refresh token has another
	}
	return records, err
}

// withGrants adds what was issued together with the tokens of a list, as a single
// revocation or approval does. A refresh token that is given as it is, or by its
// digest, stands in place of the opaque access token that it would otherwise be taken
// for. A JWT falls under its jti all the same: gateways look it up by that, whatever
// the registry says.
func (c *call) withGrants(l *list, records []revocation.Revocation, says statement) ([]revocation.Revocation, error) {
	found := make([]issued, len(l.Tokens))
	err := c.lookUp(len(l.Tokens), func(ctx context.Context, i int) (err error) {
		found[i], err = c.issuedWith(ctx, l.Tokens[i], records[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	for i, f := range found {
		at := l.Tokens[i].ExpiresAt.millis
		if f.jwt.Domain == revocation.DomainToken {
			f.jwt.Expiry = max(f.jwt.Expiry, at)
			records[i] = c.record(f.jwt, l.Tokens[i].Tenant, says)
		}
		if f.refresh.Domain != revocation.DomainRefresh {
			continue
		}
		if at > 0 {
			f.refresh.Expiry, f.refresh.Unknown = max(f.refresh.Expiry, at), false
		}
		refresh := c.record(f.refresh, cmp.Or(l.Tokens[i].Tenant, f.tenant), says)
		if records[i].Domain == revocation.DomainToken {
			records = append(records, refresh)
		} else {
			records[i] = refresh
		}
	}
	return c.together(l, found, records, says), nil
}

// together adds each token that falls, or is approved, with those of a list, once.
func (c *call) together(l *list, found []issued, records []revocation.Revocation, says statement) []revocation.Revocation {
	there := map[place]bool{}
	for _, r := range records {
		there[place{r.Domain, r.Digest}] = true
	}
	for i, f := range found {
		for _, t := range c.living(f.falls(says.state, l.cascades())) {
			if at := (place{t.Domain, t.Digest}); !there[at] {
				there[at] = true
				records = append(records, c.record(t, cmp.Or(l.Tokens[i].Tenant, f.tenant), says))
			}
		}
	}
	return records
}

// place is where a record is kept.
type place struct {
	domain revocation.Domain
	digest revocation.Digest
}

// issued is what a token of a list may be, beside what it looks like, and what was
// issued together with it.
type issued struct {
	refresh messaging.GrantToken // a refresh token that is registered
	jwt     messaging.GrantToken // that the log knows by this name
	others  []messaging.GrantToken
	tenant  string
}

// falls is what is revoked or approved with it: with an access token that is
// revoked its refresh token always, everything else by cascade.
func (f issued) falls(state revocation.State, cascade bool) []messaging.GrantToken {
	isAccess := f.refresh.Domain != revocation.DomainRefresh
	if cascade || isAccess && state == revocation.Revoked {
		return f.others
	}
	return nil
}

// issuedWith looks a listed token up among the grants: as a refresh token unless it is
// named by its jti, then as an access token.
func (c *call) issuedWith(ctx context.Context, t listedToken, r revocation.Revocation) (f issued, err error) {
	at := place{r.Domain, r.Digest}
	if t.JTI == "" {
		g, err := c.core.Grants.Refresh(ctx, messaging.RefreshDigest(t.secret()))
		switch {
		case err == nil && g.Refresh.Domain == revocation.DomainRefresh:
			return issued{refresh: g.Refresh, others: g.Access, tenant: g.Tenant}, nil
		case err != nil && !errors.Is(err, messaging.ErrNoGrant):
			return f, err
		}
		if f.jwt, err = c.jwtOf(ctx, t.secret()); err != nil {
			return f, err
		}
		if f.jwt.Domain == revocation.DomainToken {
			at = place{f.jwt.Domain, f.jwt.Digest}
		}
	}
	g, err := c.core.Grants.Access(ctx, at.domain, at.digest)
	switch {
	case errors.Is(err, messaging.ErrNoGrant):
		return f, nil
	case err == nil && g.Refresh.Domain == revocation.DomainRefresh:
		f.others, f.tenant = []messaging.GrantToken{g.Refresh}, g.Tenant
	}
	return f, err
}

// jwtOf is the JWT that the log knows by a name; the zero value: none, or text is no
// name. So answers call a JWT that fell with its refresh token.
func (c *call) jwtOf(ctx context.Context, text string) (messaging.GrantToken, error) {
	if !isName(text) {
		return messaging.GrantToken{}, nil
	}
	r, err := c.core.Hub.Record(ctx, revocation.DomainToken, messaging.OpaqueDigest(text))
	if errors.Is(err, messaging.ErrNoRecord) {
		return messaging.GrantToken{}, nil
	}
	return messaging.GrantToken{
		Domain: r.Domain, Key: r.Key, Digest: r.Digest, Kind: r.Kind, Expiry: r.Expiry, Unknown: r.Lifetime == revocation.Unknown,
	}, err
}

// listSays is what the list says of everything in it.
func (c *call) listSays(l *list) (statement, error) {
	state, role := revocation.Revoked, config.RoleRevokeAny
	switch l.State {
	case "", revocation.Revoked.String():
	case revocation.Approved.String():
		state, role = revocation.Approved, config.RoleApprove
	default:
		return statement{}, invalid("state must be revoked or approved")
	}
	if !c.client.Has(role) {
		return statement{}, forbidden("this needs the role " + role)
	}
	reason, err := reasonOf(l.Reason)
	if err != nil {
		return statement{}, err
	}
	if len(l.Actor) > maxActor || !visible(l.Actor) {
		return statement{}, invalid("actor must be at most 128 printable ASCII characters")
	}
	says := c.says(state, reason)
	if l.Actor != "" {
		says.actor += messaging.ActingFor + l.Actor
		if err := (revocation.Event{Actor: says.actor}).Check(); err != nil {
			return statement{}, invalid("actor is too long beside the name of the client, or holds a token")
		}
		c.entry.Actor = says.actor
	}
	return says, nil
}

func (c *call) listedToken(t listedToken, says statement) (revocation.Revocation, error) {
	named, err := c.nameListed(t)
	if err != nil {
		return revocation.Revocation{}, err
	}
	if err := checkTenant(t.Tenant); err != nil {
		return revocation.Revocation{}, err
	}
	expiry, err := t.ExpiresAt.at("expires_at")
	if err != nil {
		return revocation.Revocation{}, err
	}
	named.Expiry = max(named.Expiry, expiry)
	return c.record(named, t.Tenant, says), nil
}

// nameListed finds out which key an entry names. Nothing is verified: who may
// revoke any token may name any.
func (c *call) nameListed(t listedToken) (messaging.GrantToken, error) {
	given := 0
	for _, text := range []string{t.Token, t.JTI, t.SHA256} {
		if text != "" {
			given++
		}
	}
	if given != 1 {
		return messaging.GrantToken{}, errors.New("give one of token, jti and sha256")
	}
	switch strings.ToUpper(t.Type) {
	case "", messaging.TypeJWT, messaging.TypeAPIKey, strings.ToUpper(messaging.TypeDefault):
	default:
		return messaging.GrantToken{}, errors.New("type must be JWT, API_KEY or Default")
	}
	switch {
	case t.SHA256 != "":
		digest, err := revocation.ParseDigest(strings.TrimPrefix(t.SHA256, revocation.NamePrefix))
		return messaging.GrantToken{Domain: revocation.DomainOpaque, Digest: digest}, err
	case t.JTI != "":
		return jti(t.JTI, t.Type)
	case strings.EqualFold(t.Type, messaging.TypeDefault):
		return tokens.Opaque(t.Token), tokens.CheckOpaque(t.Token)
	}
	claims, err := issuers.Parse(t.Token)
	if errors.Is(err, issuers.ErrNotJWT) && t.Type == "" {
		return tokens.Opaque(t.Token), tokens.CheckOpaque(t.Token)
	}
	if err != nil {
		return messaging.GrantToken{}, fmt.Errorf("token: %w", err)
	}
	of, err := tokens.OfClaims(claims)
	if strings.EqualFold(t.Type, messaging.TypeAPIKey) {
		of.Kind = revocation.KindAPIKey
	}
	return of.GrantToken, err
}

// checkTenant reports why text is no tenant that could be kept, or nil.
func checkTenant(text string) error {
	if len(text) > messaging.MaxTenant || revocation.HoldsJWT(text) {
		return fmt.Errorf("tenant is longer than %d bytes, or holds a token", messaging.MaxTenant)
	}
	return nil
}

func jti(id, typ string) (messaging.GrantToken, error) {
	t := tokens.JTI(id)
	if _, err := issuers.Parse(id); !errors.Is(err, issuers.ErrNotJWT) || revocation.HoldsJWT(id) {
		return t, errors.New("jti is a whole token: give it as token")
	}
	switch {
	case strings.EqualFold(typ, messaging.TypeAPIKey):
		t.Kind = revocation.KindAPIKey
	case strings.EqualFold(typ, messaging.TypeDefault):
		return t, errors.New("an opaque token has no jti")
	}
	return t, revocation.CheckKey(id)
}

func (c *call) listedRule(l listedRule, says statement) (revocation.Revocation, error) {
	rule := revocation.Rule{Claim: l.Claim, Value: l.Value}
	if err := rule.Check(); err != nil {
		return revocation.Revocation{}, err
	}
	if revocation.HoldsJWT(l.Value) {
		return revocation.Revocation{}, errors.New("value holds a token, and would be told to every gateway")
	}
	if !slices.Contains(c.cfg.ruleClaims(), l.Claim) {
		return revocation.Revocation{}, errors.New("claim is none of rules.claims")
	}
	if err := checkTenant(l.Tenant); err != nil {
		return revocation.Revocation{}, err
	}
	before, err := l.IssuedBefore.at("issued_before")
	switch {
	case err != nil:
		return revocation.Revocation{}, err
	case says.state == revocation.Approved:
		before = 0
	case before == 0:
		before = c.cfg.Now().UnixMilli()
	case before < minMillis:
		return revocation.Revocation{}, errors.New("issued_before is not in milliseconds since the epoch")
	}
	e := messaging.Event{
		ID: says.event, Type: messaging.TypeClaimRule, Domain: revocation.DomainRule, Key: rule.Key(), Digest: rule.Digest(),
		Lifetime: revocation.Unknown, Tenant: l.Tenant, Before: before,
	}
	if err := e.Check(c.cfg.Now()); err != nil {
		return revocation.Revocation{}, err
	}
	return c.dated(e, says), nil
}
