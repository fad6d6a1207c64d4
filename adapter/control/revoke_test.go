package control_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"revocation-adapter/adapter/clients"
	"revocation-adapter/revocation"
)

const revoke = "/oauth2/revoke"

// securityHeaders are on every answer (the gateway documentation's).
func securityHeaders(t *testing.T, h http.Header) {
	t.Helper()
	for name, want := range map[string]string{
		"Cache-Control": "no-store", "Pragma": "no-cache", "X-Frame-Options": "DENY",
		"X-Content-Type-Options": "nosniff", "X-Xss-Protection": "1; mode=block",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestRevokeOwnToken(t *testing.T) {
	p := start(t, plan{})
	raw := p.token("jti-1", nil)
	a := p.form(owner, revoke, "token", raw)
	if a.status != 200 || a.body != "" || a.effect() != "revoked" || a.header.Get("RevokedAccessToken") != raw ||
		a.header.Get("AuthorizedUser") != "alice" || a.header.Get("RevokedRefreshToken") != "" {
		t.Errorf("%d %q %v", a.status, a.body, a.header)
	}
	securityHeaders(t, a.header)
	if p.state(revocation.DomainToken, "jti-1") != "revoked" {
		t.Error("it is not in the log")
	}
	again := p.form(owner, revoke, "token", raw, "token_type_hint", "access_token")
	if again.status != 200 || again.body != "" || again.header.Get("RevokedAccessToken") != "" || again.effect() != `none; reason="already_revoked"` {
		t.Errorf("again: %d %q %v", again.status, again.body, again.header)
	}
	securityHeaders(t, again.header)
	record, err := p.hub.Record(t.Context(), revocation.DomainToken, revocation.DigestOf(revocation.DomainToken, "jti-1"))
	if err != nil || record.Source != "http" || len(record.Events) != 1 || record.Events[0].Actor != owner {
		t.Errorf("%+v, %v", record, err)
	}
}

// The example of RFC 7009, 2.1, letter by letter, and a token that nobody knows.
func TestRevokeRFC7009Examples(t *testing.T) {
	p := start(t, plan{clients: known(client("s6BhdRkqt3", "revoke"))})
	grant := `{"access_token":"opaque-secret-1","refresh_token":"45ghiukldjahdnhzdauz","client_id":"s6BhdRkqt3"}`
	if a := p.post(keeper, "/grants", grant); a.status != http.StatusCreated {
		t.Fatal(a.status, a.body)
	}
	exactly := func(r *http.Request) {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("s6BhdRkqt3", secret)
	}
	a := p.do(http.MethodPost, revoke, "token=45ghiukldjahdnhzdauz&token_type_hint=refresh_token", exactly)
	if a.status != 200 || a.body != "" || a.header.Get("RevokedRefreshToken") != "45ghiukldjahdnhzdauz" {
		t.Errorf("%d %q %v", a.status, a.body, a.header)
	}
	a = p.do(http.MethodPost, revoke, "token=nobodyknows&token_type_hint=refresh_token", exactly)
	if a.status != 200 || a.body != "" || a.effect() != `none; reason="unknown"` {
		t.Errorf("unknown: %d %q %v", a.status, a.body, a.header)
	}
	securityHeaders(t, a.header)
	if a = p.do(http.MethodPost, revoke, "token=x&token_type_hint=a_hint_of_the_future", exactly); a.status != 200 {
		t.Errorf("a hint that is not known: %d %s", a.status, a.body)
	}
}

// Who may not, does not: and is told what RFC 7009 and RFC 6749 say.
func TestRevokeWithoutRights(t *testing.T) {
	p := start(t, plan{})
	raw := p.token("mine", nil)
	form := "token=" + raw
	posts := header("Content-Type", "application/x-www-form-urlencoded")
	cases := map[string]struct {
		a      answer
		status int
		code   string
	}{
		"nobody":                 {p.do("POST", revoke, form, posts), 401, "invalid_client"},
		"a wrong secret":         {p.do("POST", revoke, form, posts, func(r *http.Request) { r.SetBasicAuth(owner, "wrong") }), 401, "invalid_client"},
		"an unknown client":      {p.do("POST", revoke, form, posts, func(r *http.Request) { r.SetBasicAuth("who", secret) }), 401, "invalid_client"},
		"without the role":       {p.form(approver, revoke, "token", raw), 403, "unauthorized_client"},
		"another client":         {p.form(other, revoke, "token", raw), 400, "unauthorized_client"},
		"no token":               {p.form(owner, revoke), 400, "invalid_request"},
		"two tokens":             {p.form(owner, revoke, "token", "a", "token", "b"), 400, "invalid_request"},
		"cascade that is none":   {p.form(owner, revoke, "token", raw, "cascade", "perhaps"), 400, "invalid_request"},
		"no form":                {p.post(owner, revoke, `{"token":"a"}`), 400, "invalid_request"},
		"a token in the query":   {p.do("POST", revoke+"?token=abc", form, posts, as(owner)), 400, "invalid_request"},
		"credentials in query":   {p.do("POST", revoke+"?client_id=a&client_secret=b", form, posts), 400, "invalid_request"},
		"credentials twice":      {p.do("POST", revoke, form+"&client_id="+owner+"&client_secret="+secret, posts, as(owner)), 400, "invalid_request"},
		"a body that is too big": {p.form(owner, revoke, "token", strings.Repeat("a", 70_000)), 413, "invalid_request"},
	}
	for name, tc := range cases {
		if body := tc.a.json(t); tc.a.status != tc.status || body["error"] != tc.code {
			t.Errorf("%s: %d %s", name, tc.a.status, tc.a.body)
		}
		if tc.a.status == 401 && !strings.HasPrefix(tc.a.header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("%s: no challenge", name)
		}
		securityHeaders(t, tc.a.header)
	}
	if s := p.state(revocation.DomainToken, "mine"); s != "none" {
		t.Error("the token is", s)
	}
}

// What is no genuine token of an issuer has no effect, and is told so.
func TestRevokeTokensThatAreNotGenuine(t *testing.T) {
	p := start(t, plan{})
	stranger := newIssuer(t, "key-1")
	past := time.Now().Add(-2 * time.Hour).Unix()
	good := p.token("good", nil)
	parts := strings.Split(good, ".")
	forged, err := stranger.AccessToken("wrongly-signed", nil)
	fatal(t, err)
	cases := map[string]struct{ raw, why string }{
		"expired":             {p.token("expired", map[string]any{"exp": past}), "expired"},
		"unsigned":            {unsigned(t, p.issuer.Name, "unsigned"), "invalid"},
		"signature taken off": {parts[0] + "." + parts[1] + ".", "invalid"},
		"another's signature": {parts[0] + "." + parts[1] + "." + strings.Split(forged, ".")[2], "invalid"},
		"wrongly signed":      {forged, "invalid"},
		"wrong issuer":        {p.token("wrong-issuer", map[string]any{"iss": "https://elsewhere"}), "unknown"},
		"opaque":              {"opaque-secret-nobody-knows", "unknown"},
		"not quite a JWT":     {"a.b.c", "unknown"},
	}
	for name, tc := range cases {
		a := p.form(owner, revoke, "token", tc.raw)
		if a.status != 200 || a.effect() != `none; reason="`+tc.why+`"` || a.header.Get("RevokedAccessToken") != "" {
			t.Errorf("%s: %d %s %v", name, a.status, a.body, a.header)
		}
	}
	for _, jti := range []string{"expired", "unsigned", "wrongly-signed", "wrong-issuer", "good"} {
		if s := p.state(revocation.DomainToken, jti); s != "none" {
			t.Errorf("%s is %s", jti, s)
		}
	}
	if a := p.form(owner, revoke, "token", p.token("", nil)); a.status != 400 || a.json(t)["error"] != "unsupported_token_type" {
		t.Errorf("without a jti: %d %s", a.status, a.body)
	}
	future := p.token("not-yet", map[string]any{"nbf": time.Now().Add(time.Hour).Unix()})
	if a := p.form(owner, revoke, "token", future); a.effect() != "revoked" {
		t.Errorf("not yet in force: %d %v", a.status, a.header)
	}
	late := p.token("in-grace", map[string]any{"exp": time.Now().Add(-time.Minute).Unix()})
	if a := p.form(owner, revoke, "token", late); a.effect() != "revoked" {
		t.Errorf("a gateway whose clock is behind accepts it: %d %v", a.status, a.header)
	}
}

// Who may revoke any token needs neither its issuer nor its grant.
func TestRevokeAnyToken(t *testing.T) {
	p := start(t, plan{})
	elsewhere := p.token("elsewhere", map[string]any{"iss": "https://elsewhere"})
	if a := p.form(everybody, revoke, "token", elsewhere); a.effect() != "revoked" || p.state(revocation.DomainToken, "elsewhere") != "revoked" {
		t.Errorf("%d %v", a.status, a.header)
	}
	a := p.form(everybody, revoke, "token", "opaque-secret-2")
	if a.effect() != "revoked" || a.header.Get("RevokedAccessToken") != "opaque-secret-2" || p.state(revocation.DomainOpaque, "opaque-secret-2") != "revoked" {
		t.Errorf("%d %v", a.status, a.header)
	}
	if a := p.form(everybody, revoke, "token", p.token("of-alice", nil)); a.effect() != "revoked" {
		t.Errorf("%d %v", a.status, a.header)
	}
	if a := p.form(everybody, revoke, "token", unsigned(t, "https://elsewhere", "none")); a.effect() != `none; reason="invalid"` {
		t.Errorf("unsigned: %d %v", a.status, a.header)
	}
}

// A digest that was cut short is none, and is not said to be revoked.
func TestRevokeACutDigest(t *testing.T) {
	p := start(t, plan{})
	if a := p.form(everybody, revoke, "token", "sha256:QSdnLLFOFQk8"); a.effect() != `none; reason="invalid"` {
		t.Errorf("%d %s", a.status, a.effect())
	}
	whole := digestName(revocation.DomainOpaque, "opaque-secret-d")
	if a := p.form(everybody, revoke, "token", whole); a.effect() != "revoked" || p.state(revocation.DomainOpaque, "opaque-secret-d") != "revoked" {
		t.Errorf("%d %s", a.status, a.effect())
	}
}

// While an issuer's keys are out of reach nobody is told that it went well.
func TestRevokeWithoutKeys(t *testing.T) {
	p := start(t, plan{issuers: keysAt("http://127.0.0.1:1/jwks")})
	raw := p.token("a", nil)
	if a := p.form(owner, revoke, "token", raw); a.status != 503 || a.header.Get("Retry-After") == "" || a.json(t)["error"] != "temporarily_unavailable" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if lines := p.lines.String(); !strings.Contains(lines, `"target":"a","outcome":"failed","status":503`) {
		t.Errorf("the audit says %s", lines)
	}
	if a := p.form(everybody, revoke, "token", raw); a.effect() != "revoked" {
		t.Errorf("who may revoke any: %d %s", a.status, a.body)
	}
}

// A secret counts as it is, and encoded as RFC 6749, 2.3.1, has it.
func TestRevokeSecretsThatEncodingChanges(t *testing.T) {
	const odd = "a+b%41/c=d e"
	p := start(t, plan{clients: func(c *clients.Config) {
		hash, err := bcrypt.GenerateFromPassword([]byte(odd), bcrypt.MinCost)
		fatal(t, err)
		c.Clients = append(c.Clients, clients.Entry{ID: "odd", SecretHash: string(hash), Roles: []string{"revoke_any"}})
	}})
	for round := range 2 {
		for way, shown := range map[string]string{"as it is": odd, "encoded": url.QueryEscape(odd)} {
			a := p.do("POST", revoke, "token=x", header("Content-Type", "application/x-www-form-urlencoded"), func(r *http.Request) {
				r.SetBasicAuth("odd", shown)
			})
			if a.status != 200 {
				t.Errorf("%s, time %d: %d %s", way, round, a.status, a.body)
			}
		}
	}
}

func TestRevokeCredentialsInForm(t *testing.T) {
	p := start(t, plan{})
	posts := header("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8")
	a := p.do("POST", revoke, "token="+p.token("a", nil)+"&client_id="+owner+"&client_secret="+secret, posts)
	if a.effect() != "revoked" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestRevokeCredentialsInQueryWhereAllowed(t *testing.T) {
	p := start(t, plan{api: allowQuery})
	posts := header("Content-Type", "application/x-www-form-urlencoded")
	a := p.do("POST", revoke+"?client_id="+owner+"&client_secret="+secret, "token="+p.token("a", nil), posts)
	if a.effect() != "revoked" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// A client that asks too often waits; so does who guesses, and nobody else.
func TestRevokeIsLimited(t *testing.T) {
	p := start(t, plan{clients: known(client("slow", "revoke_any", 1))})
	limited := 0
	for range 6 {
		if a := p.form("slow", revoke, "token", "opaque-secret-1"); a.status == 429 && a.header.Get("Retry-After") != "" {
			limited++
		}
	}
	if limited < 3 {
		t.Errorf("%d of 6 were limited", limited)
	}
	posts := header("Content-Type", "application/x-www-form-urlencoded")
	guessed := 0
	for range 8 {
		if a := p.do("POST", revoke, "token=a", posts, func(r *http.Request) { r.SetBasicAuth(owner, "guess") }); a.status == 429 {
			guessed++
		}
	}
	if guessed < 2 {
		t.Errorf("%d of 8 guesses were refused unseen", guessed)
	}
	if a := p.form(other, revoke, "token", "x"); a.status != 200 {
		t.Errorf("another client: %d %s", a.status, a.body)
	}
}

// Gateways look up the exact jti of a genuine token, whatever else it says.
func TestRevokeWhateverElseTheTokenSays(t *testing.T) {
	p := start(t, plan{})
	for i, odd := range []map[string]any{
		{"application": "shop"},
		{"username": 7},
		{"token_type": []string{"Bearer"}},
		{"client_id": 5},
		{"keytype": true},
		{"aud": 1},
		{"sub": 17},
		{"iat": "yesterday"},
		{"JTI": "another"},
		{"Jti": 9},
		{"AZP": other},
		{"ISS": "https://elsewhere.example"},
	} {
		id := fmt.Sprintf("odd-%d", i)
		a := p.form(owner, revoke, "token", p.token(id, odd))
		if a.status != 200 || a.effect() != "revoked" || p.state(revocation.DomainToken, id) != "revoked" {
			t.Errorf("%v: %d, effect %q %s", odd, a.status, a.effect(), a.body)
		}
	}
	if state := p.state(revocation.DomainToken, "another"); state != "none" {
		t.Errorf("another token is %s", state)
	}
}

// A page of another site cannot use the Basic credentials that a browser remembers.
func TestApproveFromAnotherSite(t *testing.T) {
	p := start(t, plan{})
	raw := p.token("cross", nil)
	p.form(owner, revoke, "token", raw)
	for name, value := range map[string]string{
		"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "origin": "null", "sec-fetch-site": "same-site",
	} {
		a := p.formWith(approver, approve, []string{"token", raw}, header(name, value))
		if a.status != http.StatusForbidden || p.state(revocation.DomainToken, "cross") != "revoked" {
			t.Errorf("%s %s: %d %s", name, value, a.status, a.effect())
		}
	}
	a := p.formWith(approver, approve, []string{"token", raw}, header("Origin", p.url), header("Sec-Fetch-Site", "same-origin"))
	if a.effect() != "approved" {
		t.Errorf("from here: %d %s", a.status, a.body)
	}
}

// A key that nobody knows, named twice in ten seconds: what it has signed may be
// genuine, so who revokes it tries again; and nothing else is refused for longer.
func TestRevokeTokenOfAKeyThatMayHaveCome(t *testing.T) {
	var keys atomic.Pointer[string]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path := keys.Load(); path != nil {
			http.ServeFile(w, r, *path)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(server.Close)
	p := start(t, plan{issuers: keysAt(server.URL)})
	keys.Store(&p.keys)
	p.eventually("the keys are read", func() bool { return p.form(owner, introspect, "token", p.token("probe", nil)).status == 200 })
	next := newIssuer(t, "key-2")
	raw, err := next.AccessToken("next", map[string]any{"scope": "apim:api_key"})
	fatal(t, err)
	if a := p.form(owner, revoke, "token", raw); a.status != 200 || a.effect() != `none; reason="invalid"` {
		t.Errorf("the keys were asked for: %d %s", a.status, a.effect())
	}
	for _, client := range []string{owner, everybody} {
		if a := p.form(client, revoke, "token", raw); a.status != 503 || a.header.Get("Retry-After") == "" || p.state(revocation.DomainToken, "next") != "none" {
			t.Errorf("%s, just after: %d %s", client, a.status, a.effect())
		}
	}
	if a := p.form(everybody, introspect, "token", raw); a.status != 200 || a.json(t)["active"] != false {
		t.Errorf("introspection: %d %s", a.status, a.body)
	}
	if a := p.do(http.MethodPost, keyPath, "{}", header("Content-Type", "application/json"), bearer(raw)); a.status != 401 {
		t.Errorf("as a Bearer token: %d %s", a.status, a.body)
	}
	if a := p.form(owner, revoke, "token", p.token("known", nil)); a.effect() != "revoked" {
		t.Errorf("of a key that is known: %d %s", a.status, a.effect())
	}
}

// A token whose exp is null never expires, as one without: gateways accept it.
func TestRevokeTokenWithoutExpiry(t *testing.T) {
	p := start(t, plan{})
	if a := p.form(owner, revoke, "token", p.token("null", map[string]any{"exp": nil, "nbf": nil})); a.effect() != "revoked" {
		t.Errorf("%d %s %s", a.status, a.effect(), a.body)
	}
}

// A reason or an actor that cannot be kept is refused, and is not to be tried again.
func TestRevokeForWhatCannotBeKept(t *testing.T) {
	long := strings.Repeat("x", 128)
	p := start(t, plan{clients: func(c *clients.Config) {
		hash, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
		fatal(t, err)
		c.Clients = append(c.Clients, clients.Entry{ID: long, SecretHash: string(hash), Roles: []string{"revoke_any"}})
	}})
	const pasted = "eyJhbGciOiJIUzI1NiJ9.eyJqdGkiOiJ4In0.c2ln"
	if a := p.form(owner, revoke, "token", p.token("pasted", nil), "reason", "leaked: "+pasted); a.status != 400 {
		t.Errorf("%d %s", a.status, a.body)
	}
	for name, body := range map[string]string{
		"a token in the reason": `{"tokens":[{"jti":"x"}],"reason":"` + pasted + `"}`,
		"a token for an actor":  `{"tokens":[{"jti":"x"}],"actor":"` + pasted + `"}`,
		"a long actor":          `{"tokens":[{"jti":"x"}],"actor":"` + long + `"}`,
	} {
		if a := p.post(long, lists, body); a.status != 400 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}
