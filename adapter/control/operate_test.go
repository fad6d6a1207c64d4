package control_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"revocation-adapter/adapter/clients"
	"revocation-adapter/revocation"
)

func TestExplain(t *testing.T) {
	p := start(t, plan{})
	raw := p.token("explained", nil)
	p.formWith(owner, revoke, []string{"token", raw, "reason", "stolen laptop"})
	p.post(everybody, lists, `{"tokens":[{"token":"opaque-secret-e"}],"rules":[{"claim":"sub","value":"bob"}]}`)
	for name, want := range map[string]map[string]any{
		"explained":       {"key": "explained", "domain": "token", "state": "revoked", "source": "http", "actor": owner, "reason": "stolen laptop"},
		"opaque-secret-e": {"key": digestName(revocation.DomainOpaque, "opaque-secret-e"), "domain": "opaque", "state": "revoked", "actor": everybody},
		digestName(revocation.DomainOpaque, "opaque-secret-e"): {"domain": "opaque", "state": "revoked"},
		"sub=bob":     {"key": "sub=bob", "domain": "rule", "state": "revoked"},
		"no-such-key": {"key": "no-such-key", "state": "none"},
	} {
		body := p.get(operator, lists+"/"+url.PathEscape(name)).json(t)
		for member, value := range want {
			if body[member] != value {
				t.Errorf("%s: %s is %v, want %v", name, member, body[member], value)
			}
		}
		if want["state"] == "revoked" && (body["version"] == nil || body["event_id"] == nil || body["active_until"] == nil || body["gateways"] == nil) {
			t.Errorf("%s: %v", name, body)
		}
	}
	posted := p.post(operator, lists+"/explain", `{"token":"`+raw+`"}`).json(t)
	if posted["key"] != "explained" || posted["state"] != "revoked" {
		t.Errorf("%v", posted)
	}
	ruled := p.token("ruled", map[string]any{"sub": "bob", "iat": time.Now().Add(-time.Minute).Unix()})
	body := p.post(operator, lists+"/explain", `{"token":"`+ruled+`"}`).json(t)
	if rules, _ := body["rules"].([]any); body["state"] != "revoked" || len(rules) != 1 || rules[0] != "sub=bob" || body["version"] != nil || body["gateways"] == nil {
		t.Errorf("a token that a rule revokes: %v", body)
	}
	p.form(everybody, revoke, "token", ruled)
	p.form(approver, approve, "token", ruled)
	body = p.post(operator, lists+"/explain", `{"token":"`+ruled+`"}`).json(t)
	if body["state"] != "revoked" || body["actor"] != nil || body["version"] != nil || body["event_id"] != nil || body["events"] == nil {
		t.Errorf("a token that was approved, and a rule revokes: %v", body)
	}
	if a := p.get(operator, lists+"/sha256:cut-short"); a.status != 400 || !strings.Contains(a.body, "digest") {
		t.Errorf("no digest: %d %s", a.status, a.body)
	}
	if a := p.post(operator, lists+"/explain", `{}`); a.status != 400 {
		t.Errorf("nothing: %d", a.status)
	}
	if a := p.form(approver, approve, "token", raw); a.effect() != "approved" {
		t.Fatal(a.effect())
	}
	body = p.get(operator, lists+"/explained").json(t)
	if events, _ := body["events"].([]any); body["state"] != "approved" || body["actor"] != approver || len(events) != 2 {
		t.Errorf("%v", body)
	}
	for _, who := range []string{owner, everybody, approver, reader} {
		if a := p.get(who, lists+"/explained"); a.status != 403 {
			t.Errorf("%s: %d", who, a.status)
		}
	}
}

// A refresh token may be a JWT: it is revoked as what it was registered for.
func TestExplainARefreshTokenThatIsAJWT(t *testing.T) {
	p := start(t, plan{})
	raw := p.token("of-a-refresh-token", nil)
	raw = raw[:strings.LastIndexByte(raw, '.')] + ".c2lnbmVkIG90aGVyd2lzZQ" // by a key of its issuer alone
	p.grant("opaque-secret-g", raw)
	p.form(owner, revoke, "token", raw)
	body := p.post(operator, lists+"/explain", `{"token":"`+raw+`"}`).json(t)
	if body["state"] != "revoked" || body["domain"] != "refresh" || body["gateways"] != nil {
		t.Errorf("%v", body)
	}
}

func TestAuditTellsWhoDidWhat(t *testing.T) {
	p := start(t, plan{})
	raw := p.token("audited", nil)
	p.formWith(owner, revoke, []string{"token", raw, "reason", "lost"})
	p.form(owner, revoke, "token", raw)
	p.form(other, revoke, "token", raw)
	p.form(approver, revoke, "token", raw)
	p.form(approver, approve, "token", raw)
	p.post(everybody, lists, `{"actor":"carol","tokens":[{"jti":"x"},{"jti":"y"}]}`)
	p.do(http.MethodPost, revoke, "token=a", header("Content-Type", "application/x-www-form-urlencoded"), func(r *http.Request) {
		r.SetBasicAuth("intruder", "guess")
	})
	p.post(keeper, "/grants", `{"access_token":"opaque-secret-a","refresh_token":"opaque-secret-b","client_id":"client-1"}`)
	want := [][3]string{ // the newest first
		{keeper, "grant", "registered"},
		{"-", "revoke", "refused"},
		{everybody + " for carol", "revoke_list", "stored"},
		{approver, "approve", "approved"},
		{approver, "revoke", "refused"},
		{other, "revoke", "refused"},
		{owner, "revoke", "already_revoked"},
		{owner, "revoke", "revoked"},
	}
	body := p.get(operator, "/audit").json(t)
	entries, _ := body["entries"].([]any)
	if len(entries) != len(want) {
		t.Fatalf("%d entries: %v", len(entries), body)
	}
	for i, w := range want {
		e, _ := entries[i].(map[string]any)
		if e["actor"] != w[0] || e["action"] != w[1] || e["outcome"] != w[2] || e["from"] != "127.0.0.1" || e["replica"] != "replica-1" || e["time"] == nil {
			t.Errorf("%d: %v, want %v", i, e, w)
		}
	}
	if refused, _ := entries[5].(map[string]any); refused["target"] != "audited" {
		t.Errorf("what another client wanted to revoke is not said: %v", refused)
	}
	last, _ := entries[len(entries)-1].(map[string]any)
	if last["target"] != "audited" || last["reason"] != "lost" || last["version"] == nil || last["event_id"] == nil {
		t.Errorf("%v", last)
	}
	if some, _ := p.get(operator, "/audit?limit=2&actor="+owner).json(t)["entries"].([]any); len(some) != 2 {
		t.Errorf("of one actor: %v", some)
	}
	if some, _ := p.get(operator, "/audit?actor="+everybody).json(t)["entries"].([]any); len(some) != 1 {
		t.Errorf("of who acted for somebody: %v", some)
	}
	if n := strings.Count(p.lines.String(), "\n"); n != len(want) {
		t.Errorf("%d lines", n)
	}
	for path, status := range map[string]int{"/audit?limit=0": 400, "/audit?since=yesterday": 400, "/audit?since=2026-01-01T00:00:00Z": 200} {
		if a := p.get(operator, path); a.status != status {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	p.post(everybody, lists, `{"rules":[{"claim":"azp","value":"blocked"}]}`)
	if some, _ := p.get(operator, "/audit?target=azp%3Dblocked").json(t)["entries"].([]any); len(some) != 1 {
		t.Errorf("an application that was blocked: %v", some)
	}
	if a := p.get(everybody, "/audit"); a.status != 403 {
		t.Errorf("who is no operator: %d", a.status)
	}
}

func TestDeadLettersOverHTTP(t *testing.T) {
	p := start(t, plan{})
	p.publish("tokenRevocation", map[string]any{"eventId": "1", "type": "no-such-type", "revokedToken": "opaque-secret-dead"})
	p.eventually("it is there", func() bool {
		all, _ := p.get(operator, "/deadletters").json(t)["dead_letters"].([]any)
		return len(all) == 1
	})
	one := p.get(operator, "/deadletters/1").json(t)
	event, _ := one["event"].(string)
	text, err := base64.StdEncoding.DecodeString(event)
	if err != nil || one["reason"] == nil || len(text) == 0 || bytes.Contains(text, []byte("opaque-secret")) {
		t.Errorf("%v", one)
	}
	if a := p.post(operator, "/deadletters/1/replay", ""); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	p.eventually("it is buried again", func() bool { return p.get(operator, "/deadletters/2").status == 200 })
	if a := p.do(http.MethodDelete, "/deadletters/2", "", as(operator)); a.status != http.StatusNoContent {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, path := range []string{"/deadletters/2", "/deadletters/99", "/deadletters/x"} {
		if a := p.get(operator, path); a.status != 404 || a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := p.get(everybody, "/deadletters"); a.status != 403 {
		t.Errorf("who is no operator: %d", a.status)
	}
}

func TestGrantsAreChecked(t *testing.T) {
	p := start(t, plan{})
	for name, body := range map[string]string{
		"no access token": `{"refresh_token":"r","client_id":"c"}`,
		"no client":       `{"access_token":"a"}`,
		"a bad time":      `{"access_token":"a","client_id":"c","expires_at":"tomorrow"}`,
		"seconds":         `{"access_token":"a","client_id":"c","refresh_token":"r","refresh_expires_at":1999999999}`,
		"a broken JWT":    `{"access_token":"eyJhbGciOiJSUzI1NiJ9.e30.c2ln","client_id":"c"}`,
		"unknown member":  `{"access_token":"a","client_id":"c","x":1}`,
	} {
		if a := p.post(keeper, "/grants", body); a.status != 400 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if a := p.post(owner, "/grants", `{"access_token":"a","client_id":"c"}`); a.status != 403 {
		t.Errorf("without the role: %d", a.status)
	}
}

// A session stands in for credentials, and for nothing more than its client may.
func TestSessionsAreClients(t *testing.T) {
	p := start(t, plan{api: sessionOf(reader)})
	if a := p.do(http.MethodGet, "/gateways", ""); a.status != 403 {
		t.Errorf("%d %s", a.status, a.body)
	}
	q := start(t, plan{api: sessionOf(operator)})
	if a := q.do(http.MethodGet, "/gateways", ""); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	r := start(t, plan{api: sessionOf("nobody")})
	if a := r.do(http.MethodGet, "/gateways", ""); a.status != 401 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// Who has no rights cannot push the entries of others out of the audit.
func TestAuditIsNotFloodedByStrangers(t *testing.T) {
	p := start(t, plan{})
	const many = 400
	for range many / 2 {
		if a := p.do(http.MethodPost, "/api/am/devportal/v3/applications/a/api-keys/PRODUCTION/revoke", "{}", header("Authorization", "Bearer x")); a.status != 401 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if a := p.do(http.MethodPost, lists, "{}", header("Content-Type", "application/json")); a.status != 401 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if n := strings.Count(p.lines.String(), "\n"); n < 100 || n > many*3/4 {
		t.Errorf("%d of %d refusals are in the audit", n, many)
	}
	if n := strings.Count(p.logged.String(), "does not hold all of it"); n != 1 {
		t.Errorf("that some are left out is logged %d times", n)
	}
	p.form(approver, revoke, "token", "opaque-secret-x")
	if !strings.Contains(p.lines.String(), approver) {
		t.Error("the refusal of a client is not in the audit")
	}
}

// Who goes away before the answer has done what is done all the same: the audit says
// so, and names what was approved.
func TestAuditOfWhoGoesAway(t *testing.T) {
	p := start(t, plan{})
	credentials := base64.StdEncoding.EncodeToString([]byte(approver + ":" + secret))
	for i := range 20 {
		id := fmt.Sprint("gone-", i)
		p.form(everybody, revoke, "token", p.token(id, nil))
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(p.url, "http://"))
		fatal(t, err)
		body := "token=" + id
		_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: here\r\nAuthorization: Basic %s\r\nContent-Type: application/x-www-form-urlencoded\r\n"+
			"Content-Length: %d\r\n\r\n%s", approve, credentials, len(body), body)
		fatal(t, err)
		p.get(reader, "/healthz") // some time, which differs
		fatal(t, conn.Close())
	}
	p.eventually("every call is in the audit", func() bool { return strings.Count(p.lines.String(), `"action":"approve"`) == 20 })
	for i := range 20 {
		id := fmt.Sprint("gone-", i)
		said := strings.Contains(p.lines.String(), `"action":"approve","target":"`+id+`","outcome":"approved"`)
		if approved := p.state(revocation.DomainToken, id) == "approved"; approved != said {
			t.Errorf("%s: approved %t, and the audit says so %t", id, approved, said)
		}
	}
}

// What no route takes is answered in JSON as well.
func TestFaultsOfPathsAndMethods(t *testing.T) {
	p := start(t, plan{})
	for _, tc := range []struct {
		method, path, kind string
		status             int
	}{
		{http.MethodGet, "/nowhere", "application/problem+json", http.StatusNotFound},
		{http.MethodDelete, "/gateways", "application/problem+json", http.StatusMethodNotAllowed},
		{http.MethodGet, revoke, "application/json", http.StatusMethodNotAllowed},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tc.method, p.url+tc.path, nil)
		fatal(t, err)
		resp, err := http.DefaultClient.Do(req)
		fatal(t, err)
		text, err := io.ReadAll(resp.Body)
		fatal(t, err)
		_ = resp.Body.Close()
		if resp.StatusCode != tc.status || resp.Header.Get("Content-Type") != tc.kind || !json.Valid(text) ||
			tc.status == http.StatusMethodNotAllowed && resp.Header.Get("Allow") == "" || resp.Header.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s %s: %d %v %s", tc.method, tc.path, resp.StatusCode, resp.Header, text)
		}
	}
}

// A client that asks for what it may not is bounded as any other: it cannot push the
// audit out by being refused.
func TestAuditOfRefusedClientsIsBounded(t *testing.T) {
	p := start(t, plan{clients: func(c *clients.Config) { c.RequestsPerSecond = 1 }})
	refused := map[int]int{}
	for range 30 {
		refused[p.form(other, approve, "token", "a").status]++
	}
	if refused[http.StatusForbidden] == 0 || refused[http.StatusForbidden] > 15 || refused[http.StatusTooManyRequests] == 0 {
		t.Errorf("by status: %v", refused)
	}
}

// An action is a word, and no pattern of subjects of the hub.
func TestAuditOfNoAction(t *testing.T) {
	p := start(t, plan{})
	for _, action := range []string{"*", "%3E", "a%20b", "a.b"} {
		if a := p.get(operator, "/audit?action="+action); a.status != 400 {
			t.Errorf("%s: %d %s", action, a.status, a.body)
		}
	}
}
