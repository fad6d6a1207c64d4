package gate

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"revocation-adapter/enforcer"
)

// useUp claims the tokens that the call's route uses up, one after another, in
// the order in which they were found. Each is claimed once, however often the
// call carries it. The first that is not granted ends it; what was granted before
// stays used.
func (g *Gate) useUp(ctx context.Context, r Request, credentials []credential) Verdict {
	tokens, verdict := g.oneTime(r, credentials)
	if verdict != Passed || len(tokens) == 0 {
		return verdict
	}
	ctx, cancel := context.WithTimeout(ctx, g.cfg.ClaimTimeout)
	defer cancel()
	for _, token := range tokens {
		one := g.claim(ctx, token)
		if !one.Pass() {
			return one
		}
		if one == Unclaimed {
			verdict = one
		}
	}
	return verdict
}

// oneTime are the tokens to be claimed, or why that cannot be.
func (g *Gate) oneTime(r Request, credentials []credential) ([]enforcer.Token, Verdict) {
	routes := g.matching(r)
	var tokens []enforcer.Token
	for _, c := range credentials {
		switch {
		case !c.usedUpBy(routes):
		case c.token.ID == "":
			return nil, Unusable
		case slices.ContainsFunc(tokens, func(t enforcer.Token) bool { return t.ID == c.token.ID }):
		default:
			tokens = append(tokens, c.token)
		}
	}
	return tokens, Passed
}

// usedUpBy says whether one of the routes uses up the token. The scope of an
// opaque token is not known to us: it has none. A JWT whose scopes cannot be read
// has all.
func (c credential) usedUpBy(routes []route) bool {
	return slices.ContainsFunc(routes, func(r route) bool {
		if r.scope == "" || c.token.Opaque != "" {
			return r.scope == ""
		}
		scopes, err := scopesOf(c.raw)
		return err != nil || slices.Contains(scopes, r.scope)
	})
}

func (g *Gate) claim(ctx context.Context, token enforcer.Token) Verdict {
	decision, err := g.cfg.Enforcer.Claim(ctx, token)
	switch {
	case err == nil && decision.Verdict == enforcer.Revoked:
		return Used
	case err == nil:
		return verdictOf(decision.Verdict)
	case errors.Is(err, enforcer.ErrUnclaimed) && g.cfg.Unreachable == Admit:
		return Unclaimed
	}
	return NoClaim
}

// scopesOf are the scopes of a JWT: a list, or one string with spaces.
func scopesOf(raw string) ([]string, error) {
	_, rest, _ := strings.Cut(raw, ".")
	payload, _, _ := strings.Cut(rest, ".")
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(payload, "="))
	if err != nil {
		return nil, err
	}
	var claims map[string]json.RawMessage
	if err := json.Unmarshal(text, &claims); err != nil {
		return nil, err
	}
	return append(words(claims["scope"]), words(claims["scp"])...), nil
}

// words are those of a string, or of each string of a list.
func words(value json.RawMessage) []string {
	var one string
	if json.Unmarshal(value, &one) == nil {
		return strings.Fields(one)
	}
	var list []any
	if json.Unmarshal(value, &list) != nil {
		return nil // it is there in a form that nobody grants a scope by, or not at all
	}
	var all []string
	for _, element := range list {
		if text, ok := element.(string); ok {
			all = append(all, strings.Fields(text)...)
		}
	}
	return all
}
