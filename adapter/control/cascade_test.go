package control_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"revocation-adapter/adapter/control"
	"revocation-adapter/revocation"
)

const approve = "/oauth2/approve"

// pair is an access token and a refresh token that were issued together.
type pair struct {
	access, refresh string
	domain          revocation.Domain // of the access token
	key             string
}

func (p *plane) pair(t *testing.T, name string) pair {
	t.Helper()
	of := pair{p.token("jti-"+name, nil), "opaque-secret-refresh-" + name, revocation.DomainToken, "jti-" + name}
	p.grant(of.access, of.refresh)
	return of
}

func (p *plane) opaquePair(t *testing.T, name string) pair {
	t.Helper()
	access := "opaque-secret-access-" + name
	of := pair{access, "opaque-secret-refresh-" + name, revocation.DomainOpaque, access}
	p.grant(of.access, of.refresh)
	return of
}

// stands fails unless both tokens of a pair stand as wanted.
func (p *plane) stands(t *testing.T, of pair, access, refresh string) {
	t.Helper()
	if got := p.state(of.domain, of.key); got != access {
		t.Errorf("the access token is %s, want %s", got, access)
	}
	if got := p.state(revocation.DomainRefresh, of.refresh); got != refresh {
		t.Errorf("the refresh token is %s, want %s", got, refresh)
	}
}

// tells fails unless an answer names these tokens.
func tells(t *testing.T, a answer, access, refresh string) {
	t.Helper()
	if got := a.header.Get("RevokedAccessToken"); got != access {
		t.Errorf("RevokedAccessToken is %q, want %q", got, access)
	}
	if got := a.header.Get("RevokedRefreshToken"); got != refresh {
		t.Errorf("RevokedRefreshToken is %q, want %q", got, refresh)
	}
	if want := "alice"; access+refresh != "" && a.header.Get("AuthorizedUser") != want {
		t.Errorf("AuthorizedUser is %q", a.header.Get("AuthorizedUser"))
	}
}

func TestCascade(t *testing.T) {
	p := start(t, plan{})
	kinds := map[string]func(*testing.T, string) pair{"JWT": p.pair, "opaque": p.opaquePair}
	for kind, issue := range kinds {
		t.Run(kind+"/RefreshTokenCascadesByDefault", func(t *testing.T) {
			of := issue(t, kind+"-1")
			a := p.form(owner, revoke, "token", of.refresh, "token_type_hint", "refresh_token")
			tells(t, a, digestName(of.domain, of.key), of.refresh)
			p.stands(t, of, "revoked", "revoked")
			again := p.form(owner, revoke, "token", of.refresh, "token_type_hint", "refresh_token")
			tells(t, again, "", "")
			if again.effect() != `none; reason="already_revoked"` {
				t.Errorf("again: %s", again.effect())
			}
		})
		t.Run(kind+"/RefreshTokenCascadeTrue", func(t *testing.T) {
			of := issue(t, kind+"-2")
			tells(t, p.form(owner, revoke, "token", of.refresh, "token_type_hint", "refresh_token", "cascade", "true"),
				digestName(of.domain, of.key), of.refresh)
			p.stands(t, of, "revoked", "revoked")
		})
		t.Run(kind+"/RefreshTokenCascadeFalse", func(t *testing.T) {
			of := issue(t, kind+"-3")
			tells(t, p.form(owner, revoke, "token", of.refresh, "token_type_hint", "refresh_token", "cascade", "false"), "", of.refresh)
			p.stands(t, of, "none", "revoked")
			later := p.form(owner, revoke, "token", of.refresh, "token_type_hint", "refresh_token")
			tells(t, later, digestName(of.domain, of.key), "")
			p.stands(t, of, "revoked", "revoked")
		})
		for _, cascade := range []string{"", "true", "false"} {
			t.Run(kind+"/AccessTokenCascade"+cascade, func(t *testing.T) {
				of := issue(t, kind+"-4-"+cascade)
				pairs := []string{"token", of.access, "token_type_hint", "access_token", "cascade", cascade}
				if cascade == "" {
					pairs = pairs[:4]
				}
				a := p.form(owner, revoke, pairs...)
				tells(t, a, of.access, digestName(revocation.DomainRefresh, of.refresh))
				p.stands(t, of, "revoked", "revoked")
			})
		}
		t.Run(kind+"/UnknownRefreshTokenIsTriedAsAnAccessToken", func(t *testing.T) {
			of := issue(t, kind+"-5")
			a := p.form(owner, revoke, "token", of.access, "token_type_hint", "refresh_token")
			tells(t, a, of.access, digestName(revocation.DomainRefresh, of.refresh))
			p.stands(t, of, "revoked", "revoked")
		})
		t.Run(kind+"/RefreshTokenIsFoundWithoutAHint", func(t *testing.T) {
			for i, hint := range []string{"", "access_token"} {
				of := issue(t, kind+"-6"+string(rune('a'+i)))
				tells(t, p.form(owner, revoke, "token", of.refresh, "token_type_hint", hint), digestName(of.domain, of.key), of.refresh)
				p.stands(t, of, "revoked", "revoked")
			}
		})
		t.Run(kind+"/AnotherClient", func(t *testing.T) {
			of := issue(t, kind+"-7")
			for _, token := range []string{of.access, of.refresh} {
				if a := p.form(other, revoke, "token", token); a.status != 400 || a.json(t)["error"] != "unauthorized_client" {
					t.Errorf("%d %s", a.status, a.body)
				}
			}
			p.stands(t, of, "none", "none")
		})
	}
}

// What falls once does not fall again, though its expiry was not known.
func TestCascadeIsDoneOnce(t *testing.T) {
	p := start(t, plan{})
	raw := p.token("once", nil)
	body := fmt.Sprintf(`{"access_token":%q,"refresh_token":"opaque-secret-once","client_id":%q}`, raw, owner)
	if a := p.post(keeper, "/grants", body); a.status != 201 {
		t.Fatal(a.status, a.body)
	}
	if a := p.form(owner, revoke, "token", "opaque-secret-once", "token_type_hint", "refresh_token"); a.effect() != "revoked" {
		t.Fatal(a.effect())
	}
	for range 2 {
		a := p.form(owner, revoke, "token", raw)
		tells(t, a, "", "")
		if a.effect() != `none; reason="already_revoked"` {
			t.Error(a.effect())
		}
	}
}

// Every access token that was issued with a refresh token falls with it.
func TestCascadeToAllAccessTokens(t *testing.T) {
	p := start(t, plan{})
	first, second := p.token("rotated-1", nil), p.token("rotated-2", nil)
	p.grant(first, "opaque-secret-refresh")
	p.grant(second, "opaque-secret-refresh")
	a := p.form(owner, revoke, "token", "opaque-secret-refresh", "token_type_hint", "refresh_token")
	if n := len(a.header.Values("RevokedAccessToken")); n != 2 {
		t.Errorf("%d access tokens: %v", n, a.header)
	}
	for _, jti := range []string{"rotated-1", "rotated-2"} {
		if s := p.state(revocation.DomainToken, jti); s != "revoked" {
			t.Errorf("%s is %s", jti, s)
		}
	}
}

// A grant that comes as an event counts as one that comes by HTTP.
func TestCascadeFromEvents(t *testing.T) {
	p := start(t, plan{})
	raw := p.token("by-event", nil)
	p.publish("tokenIssued", map[string]any{
		"eventId": "issued-1", "accessToken": raw, "refreshToken": "opaque-secret-by-event", "consumerKey": owner, "user": "alice",
		"expiryTime": time.Now().Add(time.Hour).UnixMilli(), "type": "JWT",
	})
	digest := revocation.DigestOf(revocation.DomainRefresh, "opaque-secret-by-event")
	p.eventually("the grant is known", func() bool {
		_, err := p.grants.Refresh(t.Context(), digest)
		return err == nil
	})
	tells(t, p.form(owner, revoke, "token", "opaque-secret-by-event"), digestName(revocation.DomainToken, "by-event"), "opaque-secret-by-event")
}

func TestApprove(t *testing.T) {
	p := start(t, plan{})
	t.Run("Cascades", func(t *testing.T) {
		for i, by := range []func(pair) string{func(of pair) string { return of.access }, func(of pair) string { return of.refresh }} {
			of := p.pair(t, "approve-1"+string(rune('a'+i)))
			p.form(owner, revoke, "token", of.access)
			p.stands(t, of, "revoked", "revoked")
			if a := p.form(approver, approve, "token", by(of)); a.status != 200 || a.effect() != "approved" || a.body != "" {
				t.Errorf("%d %s %s", a.status, a.body, a.effect())
			}
			p.stands(t, of, "approved", "approved")
			if a := p.form(owner, revoke, "token", of.access); a.effect() != "revoked" {
				t.Errorf("and revoked again: %s", a.effect())
			}
			p.stands(t, of, "revoked", "revoked")
		}
	})
	t.Run("CascadeFalse", func(t *testing.T) {
		of := p.pair(t, "approve-2")
		p.form(owner, revoke, "token", of.access)
		p.form(approver, approve, "token", of.refresh, "cascade", "false")
		p.stands(t, of, "revoked", "approved")
		p.form(approver, approve, "token", of.access, "cascade", "false")
		p.stands(t, of, "approved", "approved")
	})
	t.Run("WithoutEffect", func(t *testing.T) {
		of := p.pair(t, "approve-3")
		for name, tc := range map[string]struct{ token, effect string }{
			"never revoked":   {of.access, "not_revoked"},
			"its refresh":     {of.refresh, "not_revoked"},
			"unknown":         {"opaque-secret-unknown", "not_revoked"},
			"not genuine":     {unsigned(t, p.issuer.Name, "x"), "not_revoked"},
			"a jti of nobody": {"no-such-jti", "not_revoked"},
		} {
			a := p.form(approver, approve, "token", tc.token)
			if a.status != 200 || a.effect() != `none; reason="`+tc.effect+`"` {
				t.Errorf("%s: %d %s", name, a.status, a.effect())
			}
		}
		p.stands(t, of, "none", "none")
	})
	t.Run("Expired", func(t *testing.T) {
		raw := p.token("approve-4", map[string]any{"exp": time.Now().Add(-grace + 4*time.Second).Unix()})
		if a := p.form(owner, revoke, "token", raw); a.effect() != "revoked" {
			t.Fatal(a.effect())
		}
		p.eventually("it has expired", func() bool {
			return p.form(approver, approve, "token", raw, "cascade", "false").effect() != "approved" &&
				p.form(owner, revoke, "token", raw).effect() == `none; reason="expired"`
		})
	})
	t.Run("ByJTI", func(t *testing.T) {
		p.form(owner, revoke, "token", p.token("approve-5", nil))
		if a := p.form(approver, approve, "token", "approve-5"); a.effect() != "approved" || p.state(revocation.DomainToken, "approve-5") != "approved" {
			t.Errorf("%d %s", a.status, a.effect())
		}
	})
	t.Run("WithoutRights", func(t *testing.T) {
		raw := p.token("approve-6", nil)
		p.form(owner, revoke, "token", raw)
		for _, who := range []string{owner, everybody, keeper} {
			if a := p.form(who, approve, "token", raw); a.status != 403 || a.json(t)["error"] != "unauthorized_client" {
				t.Errorf("%s: %d %s", who, a.status, a.body)
			}
		}
		if s := p.state(revocation.DomainToken, "approve-6"); s != "revoked" {
			t.Error("it is", s)
		}
	})
	t.Run("Rule", func(t *testing.T) {
		if a := p.post(everybody, "/revocations", `{"rules":[{"claim":"sub","value":"bob"}]}`); a.status != 200 {
			t.Fatal(a.status, a.body)
		}
		if a := p.form(approver, approve, "claim", "sub", "value", "bob"); a.effect() != "approved" || p.state(revocation.DomainRule, "sub=bob") != "approved" {
			t.Errorf("%d %s %s", a.status, a.body, a.effect())
		}
		if a := p.form(approver, approve, "claim", "sub", "value", "carol"); a.effect() != `none; reason="not_revoked"` {
			t.Errorf("never a rule: %s", a.effect())
		}
		if a := p.form(approver, approve, "claim", "sub", "value", "bob", "token", "x"); a.status != 400 {
			t.Errorf("both: %d", a.status)
		}
	})
}

// An access token that outlives its refresh token falls with it.
func TestCascadeFromRefreshTokenThatHasExpired(t *testing.T) {
	p := start(t, plan{})
	body := fmt.Sprintf(`{"access_token":"opaque-secret-long","refresh_token":"opaque-secret-short","client_id":%q,"subject":"alice","expires_at":%d,"refresh_expires_at":%d}`,
		owner, time.Now().Add(time.Hour).UnixMilli(), time.Now().Add(-time.Hour).UnixMilli())
	if a := p.post(keeper, "/grants", body); a.status != 201 {
		t.Fatal(a.status, a.body)
	}
	if a := p.form(owner, revoke, "token", "opaque-secret-short", "cascade", "false"); a.effect() != `none; reason="expired"` {
		t.Errorf("it alone: %s", a.effect())
	}
	if a := p.form(other, revoke, "token", "opaque-secret-short"); a.status != 400 {
		t.Errorf("another client: %d %s", a.status, a.effect())
	}
	a := p.form(owner, revoke, "token", "opaque-secret-short", "token_type_hint", "refresh_token")
	tells(t, a, digestName(revocation.DomainOpaque, "opaque-secret-long"), "")
	if s := p.state(revocation.DomainOpaque, "opaque-secret-long"); s != "revoked" {
		t.Errorf("the access token is %s: %s", s, a.effect())
	}
}

// A JWT that gateways accept is revoked under its jti, though somebody has registered
// it as a refresh token: as one of the same client, or of another.
func TestRevokeJWTThatIsRegisteredAsRefreshToken(t *testing.T) {
	p := start(t, plan{})
	same, others := p.token("same", nil), p.token("others", nil)
	p.grant("opaque-secret-a", same)
	body := fmt.Sprintf(`{"access_token":"opaque-secret-b","refresh_token":%q,"client_id":%q}`, others, other)
	if a := p.post(keeper, "/grants", body); a.status != 201 {
		t.Fatal(a.status, a.body)
	}
	for jti, raw := range map[string]string{"same": same, "others": others} {
		a := p.form(owner, revoke, "token", raw, "cascade", "false")
		if a.effect() != "revoked" || p.state(revocation.DomainToken, jti) != "revoked" {
			t.Errorf("%s: %d %s, and it is %s", jti, a.status, a.effect(), p.state(revocation.DomainToken, jti))
		}
		p.form(approver, approve, "token", raw, "cascade", "false")
		p.post(everybody, lists, fmt.Sprintf(`{"tokens":[{"jti":%q}]}`, jti))
		if a := p.form(everybody, introspect, "token", raw); a.json(t)["reason"] != "revoked" {
			t.Errorf("%s, revoked by its jti: %s", jti, a.body)
		}
		a = p.form(approver, approve, "token", raw, "cascade", "false")
		if a.effect() != "approved" || p.state(revocation.DomainToken, jti) != "approved" {
			t.Errorf("%s, again: %d %s", jti, a.status, a.effect())
		}
	}
	hinted := p.token("hinted", nil)
	p.grant("opaque-secret-c", hinted)
	p.form(owner, revoke, "token", hinted, "token_type_hint", "refresh_token", "cascade", "false")
	if s := p.state(revocation.DomainToken, "hinted"); s != "revoked" || p.state(revocation.DomainRefresh, hinted) != "revoked" {
		t.Errorf("with the hint that it is a refresh token, the JWT is %s", s)
	}
	if s := p.state(revocation.DomainOpaque, "opaque-secret-b"); s != "none" {
		t.Errorf("what was issued to another client is %s", s)
	}
}

// So it is with a wrong hint, in a list, and while nobody can tell whether it is
// genuine: who has registered it for this client has issued it.
func TestRevokeJWTThatIsRegisteredAsRefreshTokenInOtherWays(t *testing.T) {
	p := start(t, plan{})
	hinted, listed := p.token("hinted", nil), p.token("listed", nil)
	p.grant("opaque-secret-a", hinted)
	p.grant("opaque-secret-b", listed)
	a := p.form(owner, revoke, "token", hinted, "token_type_hint", "refresh_token", "cascade", "false")
	if a.effect() != "revoked" || p.state(revocation.DomainToken, "hinted") != "revoked" || p.state(revocation.DomainRefresh, hinted) != "revoked" {
		t.Errorf("hinted: %d %s, and its jti is %s", a.status, a.effect(), p.state(revocation.DomainToken, "hinted"))
	}
	a = p.post(everybody, lists, fmt.Sprintf(`{"tokens":[{"token":%q}]}`, listed))
	if a.json(t)["new"] != 3.0 || p.state(revocation.DomainToken, "listed") != "revoked" || p.state(revocation.DomainRefresh, listed) != "revoked" {
		t.Errorf("listed: %d %s, and its jti is %s", a.status, a.body, p.state(revocation.DomainToken, "listed"))
	}
	q := start(t, plan{issuers: keysAt("http://127.0.0.1:1/jwks")})
	for i, hint := range []string{"", "refresh_token"} {
		id := fmt.Sprint("undecided-", i)
		raw := q.token(id, nil)
		q.grant("opaque-secret-c", raw)
		a := q.form(owner, revoke, "token", raw, "token_type_hint", hint)
		if a.effect() != "revoked" || q.state(revocation.DomainToken, id) != "revoked" {
			t.Errorf("keys out of reach, hint %q: %d %s, and its jti is %s", hint, a.status, a.effect(), q.state(revocation.DomainToken, id))
		}
	}
}

// What was registered without an expiry is kept for as long as what nobody registered,
// from when it is revoked: not from when it was issued.
func TestRevokeGrantsWithoutExpiry(t *testing.T) {
	const life = 90 * 24 * time.Hour
	var later atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	p := start(t, plan{api: func(a *control.API) { a.Now = now }})
	for _, name := range []string{"soon", "late"} {
		body := fmt.Sprintf(`{"access_token":"opaque-secret-access-%[1]s","refresh_token":"opaque-secret-refresh-%[1]s","client_id":%[2]q,"subject":"alice"}`, name, owner)
		if a := p.post(keeper, "/grants", body); a.status != 201 {
			t.Fatal(a.status, a.body)
		}
	}
	if got := p.form(owner, introspect, "token", "opaque-secret-access-soon").json(t); got["active"] != true || got["exp"] != nil {
		t.Errorf("introspection: %v", got)
	}
	for name, after := range map[string]time.Duration{"soon": life - time.Hour, "late": life + time.Hour} {
		later.Store(int64(after))
		a := p.form(owner, revoke, "token", "opaque-secret-access-"+name)
		if a.effect() != "revoked" || p.state(revocation.DomainRefresh, "opaque-secret-refresh-"+name) != "revoked" {
			t.Errorf("%s: %d %s", name, a.status, a.effect())
		}
		record, err := p.hub.Record(t.Context(), revocation.DomainOpaque, revocation.DigestOf(revocation.DomainOpaque, "opaque-secret-access-"+name))
		if until := now().Add(life - time.Minute).UnixMilli(); err != nil || record.Expiry < until || record.Lifetime != revocation.Unknown {
			t.Errorf("%s: %+v %v", name, record, err)
		}
	}
}

// What is registered of a JWT counts though nobody can tell whether it is genuine, for
// who may revoke it all the same.
func TestCascadeFromJWTThatIsNotVerified(t *testing.T) {
	p, q := start(t, plan{}), start(t, plan{issuers: keysAt("http://127.0.0.1:1/jwks")})
	for name, tc := range map[string]struct {
		p   *plane
		raw string
	}{
		"elsewhere":    {p, p.token("elsewhere", map[string]any{"iss": "https://elsewhere"})},
		"out-of-reach": {q, q.token("out-of-reach", nil)},
	} {
		of := pair{tc.raw, "opaque-secret-" + name, revocation.DomainToken, name}
		tc.p.grant(of.access, of.refresh)
		tells(t, tc.p.form(everybody, revoke, "token", of.access), of.access, digestName(revocation.DomainRefresh, of.refresh))
		tc.p.stands(t, of, "revoked", "revoked")
		tc.p.form(approver, approve, "token", of.access)
		tc.p.stands(t, of, "approved", "approved")
	}
}

// The name that a header tells of a JWT that fell with its refresh token is understood.
func TestApproveByTheNameInAHeader(t *testing.T) {
	p := start(t, plan{})
	of := p.pair(t, "named")
	name := p.form(owner, revoke, "token", of.refresh).header.Get("RevokedAccessToken")
	if got := p.get(operator, lists+"/"+name).json(t); got["key"] != of.key || got["state"] != "revoked" {
		t.Errorf("explain %s: %v", name, got)
	}
	if a := p.form(approver, approve, "token", name); a.effect() != "approved" {
		t.Errorf("%d %s", a.status, a.effect())
	}
	p.stands(t, of, "approved", "revoked")
	if a := p.form(everybody, revoke, "token", name); a.effect() != "revoked" {
		t.Errorf("%d %s", a.status, a.effect())
	}
	p.stands(t, of, "revoked", "revoked")
	for _, want := range []string{"approved", "revoked"} {
		if a := p.post(operator, lists, `{"tokens":[{"sha256":"`+name+`"}],"state":"`+want+`"}`); a.json(t)["new"] != 2.0 {
			t.Errorf("listed: %s", a.body)
		}
		p.stands(t, of, want, want)
	}
}

// What is registered late falls with the refresh token that is revoked by then, by the
// same event; what was registered before is left as it was chosen.
func TestCascadeToWhatIsRegisteredLate(t *testing.T) {
	p := start(t, plan{})
	p.grant("opaque-secret-early", "opaque-secret-of-all")
	revoked := p.form(owner, revoke, "token", "opaque-secret-of-all", "token_type_hint", "refresh_token", "cascade", "false")
	if revoked.effect() != "revoked" {
		t.Fatal(revoked.effect())
	}
	p.grant("opaque-secret-late", "opaque-secret-of-all")
	p.grant("opaque-secret-early", "opaque-secret-of-all")
	p.grant("opaque-secret-other", "opaque-secret-of-another")
	for access, want := range map[string]string{"early": "none", "late": "revoked", "other": "none"} {
		if s := p.state(revocation.DomainOpaque, "opaque-secret-"+access); s != want {
			t.Errorf("%s is %s, want %s", access, s, want)
		}
	}
	byEvent := func(domain revocation.Domain, token string) any {
		return p.get(operator, lists+"/"+digestName(domain, token)).json(t)["event_id"]
	}
	if late, of := byEvent(revocation.DomainOpaque, "opaque-secret-late"), byEvent(revocation.DomainRefresh, "opaque-secret-of-all"); late != of || late == nil {
		t.Errorf("revoked by %v, want %v", late, of)
	}
	if a := p.form(approver, approve, "token", "opaque-secret-of-all"); a.effect() != "approved" {
		t.Errorf("%s", a.effect())
	}
	if s := p.state(revocation.DomainOpaque, "opaque-secret-late"); s != "approved" {
		t.Errorf("approved with its refresh token it is %s", s)
	}
	p.grant("opaque-secret-later", "opaque-secret-of-all")
	if s := p.state(revocation.DomainOpaque, "opaque-secret-later"); s != "none" {
		t.Errorf("of a refresh token that counts again it is %s", s)
	}
}
