package control_test

import (
	"net/http"
	"testing"
	"time"

	"revocation-adapter/adapter/control"
	"revocation-adapter/revocation"
)

const introspect = "/oauth2/introspect"

// The example of RFC 7662, 2.1: the members of its answer are there for an active
// token, and nothing but active for another.
func TestIntrospectRFC7662Examples(t *testing.T) {
	p := start(t, plan{})
	raw := p.token("active-1", map[string]any{"scope": "read write dolphin", "username": "jdoe", "aud": []string{"https://protected.example.net/resource"}})
	exactly := func(r *http.Request) {
		r.Header.Set("Accept", "application/json")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(reader, secret)
	}
	a := p.do(http.MethodPost, introspect, "token="+raw+"&token_type_hint=access_token", exactly)
	body := a.json(t)
	for name, want := range map[string]any{
		"active": true, "client_id": owner, "username": "jdoe", "scope": "read write dolphin", "sub": "alice",
		"iss": p.issuer.Name, "jti": "active-1", "token_type": "Bearer",
	} {
		if body[name] != want {
			t.Errorf("%s is %v, want %v", name, body[name], want)
		}
	}
	for _, name := range []string{"exp", "iat", "aud"} {
		if body[name] == nil {
			t.Errorf("%s is missing in %s", name, a.body)
		}
	}
	a = p.do(http.MethodPost, introspect, "token=mF_9.B5f-4.1JqM&token_type_hint=access_token", exactly)
	if a.status != 200 || a.body != "{\"active\":false}\n" {
		t.Errorf("%d %q", a.status, a.body)
	}
	securityHeaders(t, a.header)
	if a := p.do(http.MethodPost, introspect, "token="+raw, header("Content-Type", "application/x-www-form-urlencoded")); a.status != 401 {
		t.Errorf("without credentials: %d %s", a.status, a.body)
	}
}

// Who may know is told why a token is not active; others are told nothing more.
func TestIntrospectSaysWhy(t *testing.T) {
	p := start(t, plan{})
	of := p.opaquePair(t, "why")
	ruled := p.token("ruled", map[string]any{"sub": "mallory", "iat": time.Now().Add(-time.Minute).Unix()})
	revoked := p.token("revoked", nil)
	p.form(owner, revoke, "token", revoked)
	if a := p.post(everybody, "/revocations", `{"rules":[{"claim":"sub","value":"mallory"}]}`); a.status != 200 {
		t.Fatal(a.body)
	}
	p.eventually("the rule is known", func() bool {
		c, found := p.log.LookupRule("sub=mallory")
		return found && c.State == revocation.Revoked
	})
	for name, tc := range map[string]struct{ token, why string }{
		"revoked":       {revoked, "revoked"},
		"by a rule":     {ruled, "revoked"},
		"expired":       {p.token("old", map[string]any{"exp": time.Now().Add(-time.Second).Unix()}), "expired"},
		"not genuine":   {unsigned(t, p.issuer.Name, "x"), "invalid"},
		"wrong issuer":  {p.token("y", map[string]any{"iss": "https://elsewhere"}), "invalid"},
		"opaque":        {"opaque-secret-nobody-knows", "unknown"},
		"not in force":  {p.token("z", map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}), "not_yet"},
		"opaque, known": {of.access, ""},
		"refresh":       {of.refresh, ""},
	} {
		body := p.form(operator, introspect, "token", tc.token).json(t)
		if got, _ := body["reason"].(string); got != tc.why || body["active"] != (tc.why == "") {
			t.Errorf("%s: %v", name, body)
		}
		if body := p.form(reader, introspect, "token", tc.token).json(t); body["reason"] != nil {
			t.Errorf("%s: a reader is told %v", name, body)
		}
	}
	if body := p.form(owner, introspect, "token", revoked).json(t); body["reason"] != "revoked" {
		t.Errorf("its own client is told %v", body)
	}
	p.form(owner, revoke, "token", of.refresh)
	for _, token := range []string{of.access, of.refresh} {
		if body := p.form(operator, introspect, "token", token).json(t); body["active"] != false || body["reason"] != "revoked" {
			t.Errorf("%v", body)
		}
	}
}

// What another replica stored counts before this one has heard of it.
func TestIntrospectAsksTheHub(t *testing.T) {
	p := start(t, plan{api: func(a *control.API) { a.Revocations = revocation.NewLog(grace) }})
	ruled, revoked := p.token("by-rule", map[string]any{"sub": "mallory"}), p.token("by-itself", nil)
	p.post(everybody, lists, `{"tokens":[{"jti":"by-itself"}],"rules":[{"claim":"sub","value":"mallory","issued_before":"`+
		time.Now().Add(time.Minute).UTC().Format(time.RFC3339)+`"}]}`)
	for _, raw := range []string{ruled, revoked} {
		if body := p.form(reader, introspect, "token", raw).json(t); body["active"] != false {
			t.Errorf("%v", body)
		}
	}
}

// A one-time token that was used up is not active, and says so.
func TestIntrospectUsed(t *testing.T) {
	p := start(t, plan{})
	raw := p.token("once", nil)
	p.use("once")
	if body := p.form(operator, introspect, "token", raw).json(t); body["active"] != false || body["reason"] != "used" {
		t.Errorf("%v", body)
	}
}

func TestIntrospectWithoutKeys(t *testing.T) {
	p := start(t, plan{issuers: keysAt("http://127.0.0.1:1/jwks")})
	if a := p.form(reader, introspect, "token", p.token("a", nil)); a.status != 503 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// The digest of a token is in the audit, in headers and in the hub: whoever shows it
// in place of the token has no access.
func TestIntrospectTakesNoName(t *testing.T) {
	p := start(t, plan{})
	of := p.opaquePair(t, "named")
	for _, client := range []string{owner, everybody, reader} {
		for _, name := range []string{
			digestName(revocation.DomainOpaque, of.access), digestName(revocation.DomainRefresh, of.refresh),
		} {
			if a := p.form(client, introspect, "token", name); a.status != 200 || a.json(t)["active"] != false {
				t.Errorf("%s is told of a digest: %d %s", client, a.status, a.body)
			}
		}
	}
	if a := p.form(reader, introspect, "token", of.access); a.json(t)["active"] != true {
		t.Errorf("the token itself: %s", a.body)
	}
}
