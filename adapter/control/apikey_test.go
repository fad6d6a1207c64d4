package control_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"revocation-adapter/adapter/clients"
	"revocation-adapter/revocation"
)

const (
	application = "b7a1c6a3-6e5c-4b6d-9d0f-2f2a4c9f1e10"
	keyPath     = "/api/am/devportal/v3/applications/" + application + "/api-keys/PRODUCTION/revoke"
)

func bearer(raw string) func(*http.Request) { return header("Authorization", "Bearer "+raw) }

// The call of the gateway documentation, with a key as API-M makes it: padded, and
// without an expiry.
func TestRevokeAPIKey(t *testing.T) {
	p := start(t, plan{})
	key, err := p.issuer.APIKey("key-1")
	fatal(t, err)
	if !strings.Contains(key, "=") {
		t.Fatal("the key has no padding, as real ones have")
	}
	scoped := p.token("caller", map[string]any{"scope": "openid apim:api_key", "azp": "devportal"})
	a := p.do(http.MethodPost, keyPath, `{"apikey":"`+key+`"}`, header("Content-Type", "application/json"), bearer(scoped))
	if a.status != 200 || a.body != "" || a.effect() != "revoked" {
		t.Errorf("%d %q %s", a.status, a.body, a.effect())
	}
	record, err := p.hub.Record(t.Context(), revocation.DomainToken, revocation.DigestOf(revocation.DomainToken, "key-1"))
	if err != nil || record.Kind != revocation.KindAPIKey || record.Lifetime != revocation.Forever || record.Events[0].Actor != "devportal" {
		t.Errorf("%+v, %v", record, err)
	}
	a = p.do(http.MethodPost, keyPath, `{"apikey":"`+key+`"}`, header("Content-Type", "application/json"), bearer(scoped), header("Prefer", "wait=1"))
	if a.status != 200 || a.effect() != `none; reason="already_revoked"` || a.json(t)["version"] == 0.0 {
		t.Errorf("%d %q %s", a.status, a.body, a.effect())
	}
}

func TestRevokeAPIKeyWithoutRights(t *testing.T) {
	p := start(t, plan{clients: known(client("portal", "apim:api_key"))})
	key, err := p.issuer.APIKey("key-2")
	fatal(t, err)
	stranger := newIssuer(t, "key-1")
	forgedKey, err := stranger.APIKey("key-2")
	fatal(t, err)
	scope := map[string]any{"scope": "apim:api_key"}
	good := p.token("good", scope)
	revoked := p.token("revoked", scope)
	p.form(owner, revoke, "token", revoked)
	forged, err := stranger.AccessToken("forged", scope)
	fatal(t, err)
	old := p.token("old", map[string]any{"scope": "apim:api_key", "exp": time.Now().Add(-time.Second).Unix()})
	call := func(path, key string, change ...func(*http.Request)) answer {
		return p.do(http.MethodPost, path, `{"apikey":"`+key+`"}`, append(change, header("Content-Type", "application/json"))...)
	}
	cases := map[string]struct {
		a      answer
		status int
	}{
		"no token":                {call(keyPath, key), 401},
		"a client's secret":       {call(keyPath, key, as(everybody)), 401},
		"without the scope":       {call(keyPath, key, bearer(p.token("plain", nil))), 403},
		"an expired token":        {call(keyPath, key, bearer(old)), 401},
		"an unsigned token":       {call(keyPath, key, bearer(unsigned(t, p.issuer.Name, "u"))), 401},
		"a wrongly signed token":  {call(keyPath, key, bearer(forged)), 401},
		"another issuer":          {call(keyPath, key, bearer(p.token("e", map[string]any{"scope": "apim:api_key", "iss": "https://e"}))), 401},
		"a revoked token":         {call(keyPath, key, bearer(revoked)), 401},
		"an API key as the token": {call(keyPath, key, bearer(key)), 401},
		"another application":     {call(strings.Replace(keyPath, application, "another", 1), key, bearer(good)), 400},
		"another type":            {call(strings.Replace(keyPath, "PRODUCTION", "SANDBOX", 1), key, bearer(good)), 400},
		"a forged key":            {call(keyPath, forgedKey, bearer(good)), 400},
		"no key":                  {call(keyPath, "", bearer(good)), 400},
		"garbage":                 {call(keyPath, "garbage", bearer(good)), 400},
	}
	for name, tc := range cases {
		if tc.a.status != tc.status || tc.a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", name, tc.a.status, tc.a.body)
		}
		if tc.status == 401 && !strings.HasPrefix(tc.a.header.Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("%s: %v", name, tc.a.header)
		}
	}
	if s := p.state(revocation.DomainToken, "key-2"); s != "none" {
		t.Error("the key is", s)
	}
	byRole := p.token("of-portal", map[string]any{"azp": "portal"})
	if a := call(keyPath, key, bearer(byRole)); a.status != 200 || a.effect() != "revoked" {
		t.Errorf("a client's token with the role: %d %s", a.status, a.body)
	}
}

// A token without a client is its subject's: who is called as a client is not written
// down as that one. A client of any name may call.
func TestAuditOfBearers(t *testing.T) {
	p := start(t, plan{})
	for sub, want := range map[string]string{operator: "sub=" + operator, "of two words": "-"} {
		key, err := p.issuer.APIKey("key-of-" + want)
		fatal(t, err)
		raw := p.token("bearer-of-"+want, map[string]any{"scope": "apim:api_key", "azp": nil, "sub": sub})
		a := p.do(http.MethodPost, keyPath, `{"apikey":"`+key+`"}`, header("Content-Type", "application/json"), bearer(raw))
		if lines := p.lines.String(); a.effect() != "revoked" || !strings.Contains(lines, `"actor":"`+want+`"`) || strings.Contains(lines, `"actor":"`+operator+`"`) {
			t.Errorf("%s: %d %s, %s", sub, a.status, a.body, lines)
		}
	}
	key, err := p.issuer.APIKey("key-of-a-long-name")
	fatal(t, err)
	raw := p.token("bearer-of-a-long-name", map[string]any{"scope": "apim:api_key", "azp": strings.Repeat("x", 300)})
	if a := p.do(http.MethodPost, keyPath, `{"apikey":"`+key+`"}`, header("Content-Type", "application/json"), bearer(raw)); a.effect() != "revoked" {
		t.Errorf("a long name: %d %s", a.status, a.body)
	}
}

// Whoever has a token of a client cannot use up what the client may ask for.
func TestRevokeAPIKeyDoesNotHoldUpTheClient(t *testing.T) {
	p := start(t, plan{clients: func(c *clients.Config) { c.RequestsPerSecond = 1 }})
	raw := p.token("of-a-user", nil)
	refused := map[int]int{}
	for range 30 {
		refused[p.do(http.MethodPost, keyPath, `{"apikey":"x"}`, header("Content-Type", "application/json"), bearer(raw)).status]++
	}
	if refused[http.StatusTooManyRequests] == 0 {
		t.Errorf("by status: %v", refused)
	}
	if a := p.form(owner, revoke, "token", raw); a.effect() != "revoked" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// Who is not known cannot fill the log while the keys of an issuer are out of reach.
func TestRevokeAPIKeyWithoutKeysIsLoggedOnce(t *testing.T) {
	p := start(t, plan{issuers: keysAt("http://127.0.0.1:1/jwks")})
	raw := p.token("undecided", nil)
	for range 30 {
		if a := p.do(http.MethodPost, keyPath, `{"apikey":"x"}`, header("Content-Type", "application/json"), bearer(raw)); a.status != 503 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if n := strings.Count(p.logged.String(), "is not served"); n == 0 || n > 3 {
		t.Errorf("it is logged %d times", n)
	}
}
