package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"golang.org/x/crypto/bcrypt"

	"revocation-adapter/integration/chromium"
	"revocation-adapter/integration/stack"
)

// The clients of these tests, who have one secret.
const (
	portal        = "client-1" // to which stack.Issuer issues
	incident      = "incident-team"
	keyManager    = "key-manager"
	controlSecret = "correct-horse-battery"
)

// controlled is an adapter with clients and an issuer.
type controlled struct {
	*adapter
	issuer *stack.Issuer
}

// controlSections are those of clients and the issuer whose keys lie at a path.
func controlSections(t *testing.T, keys string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(controlSecret), bcrypt.MinCost)
	must(t, err)
	var text strings.Builder
	for id, roles := range map[string]string{
		portal: `"revoke"`, incident: `"revoke_any", "approve", "operator"`, keyManager: `"grants"`,
	} {
		fmt.Fprintf(&text, "[[clients]]\nid = %q\nsecret_hash = %q\nroles = [%s]\n", id, hash, roles)
	}
	fmt.Fprintf(&text, "[[issuers]]\nname = \"https://localhost:9443/oauth2/token\"\njwks = [%q]\n", keys)
	return text.String()
}

// newControlled configures an adapter; hub is its section, "" an embedded one.
func newControlled(t *testing.T, hub string) *controlled {
	t.Helper()
	issuer, err := stack.NewIssuer("key-1")
	must(t, err)
	keys := filepath.Join(t.TempDir(), "keys.json")
	must(t, issuer.WriteKeys(keys))
	sections := map[string]string{"rest": controlSections(t, keys) + "[log]\nlevel = \"debug\"\n"}
	if hub != "" {
		sections["hub"] = hub
	}
	return &controlled{newAdapter(t, sections), issuer}
}

func startControlled(t *testing.T) *controlled {
	t.Helper()
	c := newControlled(t, "")
	c.start(t)
	c.awaitReady(t)
	return c
}

// onPlainHub starts an adapter whose hub encrypts nothing that it stores.
func onPlainHub(t *testing.T) (c *controlled, store string) {
	t.Helper()
	address, store := freePort(t), t.TempDir()
	natsOn(t, store, address)
	c = newControlled(t, fmt.Sprintf("mode = \"external\"\nreplicas = 1\nurls = [\"nats://%s\"]\n", address))
	c.hub = address
	c.start(t)
	c.awaitReady(t)
	return c, store
}

func (c *controlled) token(t *testing.T, jti string) string {
	t.Helper()
	raw, err := c.issuer.AccessToken(jti, nil)
	must(t, err)
	return raw
}

// reply is what a call got.
type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) effect() string { return r.header.Get("Revocation-Effect") }

// figures of the receipt in a reply.
type figures struct {
	Version  uint64
	Gateways struct {
		Enforced, NotConcerned, Cannot int
		Pending, Unreachable           []string
	}
	TookMS int64 `json:"took_ms"`
}

func (r reply) receipt(t *testing.T) (f figures) {
	t.Helper()
	text := strings.ReplaceAll(r.body, "not_concerned", "notconcerned")
	if err := json.Unmarshal([]byte(text), &f); err != nil || r.status != http.StatusOK {
		t.Fatalf("%d %s: %v", r.status, r.body, err)
	}
	return f
}

// call calls the control API of an adapter as a client.
func (a *adapter) call(t *testing.T, client, method, path, body string, headers ...string) reply {
	t.Helper()
	r, err := a.tryCall(t, client, method, path, body, headers...)
	must(t, err)
	return r
}

func (a *adapter) tryCall(t *testing.T, client, method, path, body string, headers ...string) (reply, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+a.control+path, strings.NewReader(body))
	must(t, err)
	req.SetBasicAuth(client, controlSecret)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(text)}, err
}

// form calls with a form of names and values.
func (a *adapter) form(t *testing.T, client, path string, pairs []string, headers ...string) reply {
	t.Helper()
	values := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		values.Add(pairs[i], pairs[i+1])
	}
	return a.call(t, client, http.MethodPost, path, values.Encode(),
		append([]string{"Content-Type", "application/x-www-form-urlencoded"}, headers...)...)
}

const revokePath = "/oauth2/revoke"

// One call by RFC 7009 reaches gateways on every protocol, and is there after a
// kill.
func TestRevokeOverHTTP(t *testing.T) {
	t.Parallel()
	c := startControlled(t)
	gateways := []*gateway{}
	for _, protocol := range []string{rtds, sotw, delta} {
		gateways = append(gateways, connectGateway(t, c.adapter, protocol, ""))
	}
	raw := c.token(t, "over-http")
	if r := c.form(t, portal, revokePath, []string{"token", raw}); r.status != 200 || r.body != "" || r.header.Get("RevokedAccessToken") != raw {
		t.Errorf("%d %q %v", r.status, r.body, r.header)
	}
	for _, g := range gateways {
		g.awaits(t, "over-http")
	}
	c.signal(t, syscall.SIGKILL)
	c.start(t)
	c.awaitReady(t)
	late := connectGateway(t, c.adapter, delta, "")
	late.awaits(t, "over-http")
	if r := c.form(t, portal, revokePath, []string{"token", raw}); r.effect() != `none; reason="already_revoked"` {
		t.Errorf("after a kill: %s", r.effect())
	}
	if strings.Contains(c.log.String(), raw) || strings.Contains(c.log.String(), controlSecret) {
		t.Error("a token or a secret is in the log")
	}
}

// A refresh token falls with its access token, and no gateway is told of it.
func TestCascadeOverHTTP(t *testing.T) {
	t.Parallel()
	c, store := onPlainHub(t)
	g := connectGateway(t, c.adapter, delta, "")
	body, err := json.Marshal(map[string]any{
		"access_token": c.token(t, "cascades"), "refresh_token": "the-refresh-token", "client_id": portal, "subject": "alice",
	})
	must(t, err)
	if r := c.call(t, keyManager, http.MethodPost, "/grants", string(body)); r.status != http.StatusCreated {
		t.Fatal(r.status, r.body)
	}
	c.signal(t, syscall.SIGKILL) // what is registered is on disk
	c.start(t)
	c.awaitReady(t)
	r := c.form(t, portal, revokePath, []string{"token", "the-refresh-token", "token_type_hint", "refresh_token"})
	if r.header.Get("RevokedRefreshToken") != "the-refresh-token" || !strings.HasPrefix(r.header.Get("RevokedAccessToken"), "sha256:") {
		t.Errorf("%d %s %v", r.status, r.body, r.header)
	}
	g.awaits(t, "cascades")
	if held, _ := g.count(); held != 1 {
		t.Errorf("the gateway holds %d tokens", held)
	}
	if r := c.form(t, incident, "/oauth2/introspect", []string{"token", "the-refresh-token"}); !strings.Contains(r.body, `"reason":"revoked"`) {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := c.form(t, incident, "/oauth2/approve", []string{"token", "the-refresh-token"}); r.effect() != "approved" {
		t.Errorf("%d %s", r.status, r.effect())
	}
	eventually(t, "the gateway forgets it", func() bool { return !g.holds("cascades") })
	notInFiles(t, store, "the-refresh-token")
	notInFiles(t, c.dir, "the-refresh-token")
}

// A list whose adapter is killed while it is stored goes on where it ended.
func TestListGoesOnAfterAKill(t *testing.T) {
	t.Parallel()
	c := startControlled(t)
	g := connectGateway(t, c.adapter, delta, "")
	var tokens []string
	for i := range 10_000 {
		tokens = append(tokens, fmt.Sprintf(`{"jti":"list-%d"}`, i))
	}
	body := `{"reason":"incident 7","tokens":[` + strings.Join(tokens, ",") + `]}`
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = c.tryCall(t, incident, http.MethodPost, "/revocations", body, "Idempotency-Key", "incident-7") // answered, if it was fast
	}()
	eventually(t, "some is stored", func() bool {
		held, _ := g.count()
		return held > 0
	})
	c.signal(t, syscall.SIGKILL)
	<-ended
	c.start(t)
	c.awaitReady(t)
	r := c.call(t, incident, http.MethodPost, "/revocations", body, "Idempotency-Key", "incident-7", "Prefer", "wait=30")
	var answer struct{ New, Already int }
	if err := json.Unmarshal([]byte(r.body), &answer); err != nil || r.status != 200 || answer.New+answer.Already != 10_000 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	eventually(t, "the gateway holds all", func() bool {
		held, _ := g.count()
		return held == 10_000
	})
	again := c.call(t, incident, http.MethodPost, "/revocations", body, "Idempotency-Key", "incident-7")
	if again.header.Get("Idempotent-Replayed") != "true" || again.body != r.body {
		t.Errorf("again: %d %s", again.status, again.body)
	}
}

// Who goes away while it waits for gateways has used its key all the same.
func TestListOfACallerWhoLeaves(t *testing.T) {
	c := startControlled(t)
	held := holdBack(t, c.adapter)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		defer cancel()
		if _, err := held.stream.Recv(); err == nil { // it is stored, and to be audited
			<-time.After(time.Second)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.control+"/revocations", strings.NewReader(`{"tokens":[{"jti":"left"}]}`))
	must(t, err)
	req.SetBasicAuth(incident, controlSecret)
	for name, value := range map[string]string{"Content-Type": "application/json", "Idempotency-Key": "leaves", "Prefer": "wait=30"} {
		req.Header.Set(name, value)
	}
	if resp, err := http.DefaultClient.Do(req); err == nil {
		_ = resp.Body.Close()
		t.Fatal("it was answered: ", resp.Status)
	}
	c.stop(t) // which waits for calls
	c.start(t)
	c.awaitReady(t)
	if r := c.call(t, incident, http.MethodPost, "/revocations", `{"tokens":[{"jti":"other"}]}`, "Idempotency-Key", "leaves"); r.status != http.StatusUnprocessableEntity {
		t.Errorf("another body: %d %s", r.status, r.body)
	}
}

// What was revoked at one replica is revoked at the other, when it is answered;
// the receipt counts the gateways of both, and knows when one is gone.
func TestReceiptsOverReplicas(t *testing.T) {
	t.Parallel()
	address := freePort(t)
	startNATS(t, address)
	hub := fmt.Sprintf("mode = \"external\"\nreplicas = 1\nurls = [\"nats://%s\"]\n", address)
	one, two := newControlled(t, hub), newControlled(t, hub)
	for _, c := range []*controlled{one, two} {
		c.hub = address
		c.start(t)
	}
	one.awaitReady(t)
	two.awaitReady(t)
	two.issuer = one.issuer
	g1, g2 := connectGateway(t, one.adapter, rtds, ""), connectGateway(t, two.adapter, delta, "")
	var r reply
	eventually(t, "both gateways are known", func() bool {
		r = one.call(t, incident, http.MethodPost, "/revocations", `{"tokens":[{"jti":"both"}]}`, "Prefer", "wait=10")
		return r.receipt(t).Gateways.Enforced == 2
	})
	g1.awaits(t, "both")
	g2.awaits(t, "both")
	if r := two.form(t, incident, "/oauth2/introspect", []string{"token", one.token(t, "both")}); r.status == 200 && strings.Contains(r.body, `"active":true`) {
		t.Errorf("at the other replica: %s", r.body)
	}
	if f := one.form(t, incident, "/oauth2/approve", []string{"token", "both"}, "Prefer", "wait=10").receipt(t); f.Gateways.Enforced != 1 || f.Gateways.Cannot != 1 {
		t.Errorf("approved: %+v", f)
	}
	<-time.After(time.Second) // replicas tell each other of their gateways five times a second
	two.signal(t, syscall.SIGKILL)
	f := one.call(t, incident, http.MethodPost, "/revocations", `{"tokens":[{"jti":"one"}]}`, "Prefer", "wait=20").receipt(t)
	if f.Gateways.Enforced != 1 || len(f.Gateways.Unreachable) != 1 || !strings.Contains(f.Gateways.Unreachable[0], "gw-delta") || f.TookMS > 24_000 {
		t.Errorf("with a replica killed: %+v", f)
	}
	var all struct{ Gateways []struct{ Name string } }
	r = one.call(t, incident, http.MethodGet, "/gateways", "")
	if err := json.Unmarshal([]byte(r.body), &all); err != nil || len(all.Gateways) != 2 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// A client of the hub may call any replica at once, and none once it is removed.
func TestClientsOfTheHub(t *testing.T) {
	t.Parallel()
	c := startControlled(t)
	code, secret, errOut := c.run(t, "client", "add", "late", "--role", "operator", "--hub")
	if code != 0 || len(strings.TrimSpace(secret)) < 40 {
		t.Fatalf("exit %d: %s%s", code, secret, errOut)
	}
	asks := func() int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+c.control+"/gateways", nil)
		must(t, err)
		req.SetBasicAuth("late", strings.TrimSpace(secret))
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	eventually(t, "it is known", func() bool { return asks() == http.StatusOK })
	if _, out, _ := c.run(t, "client", "list"); !strings.Contains(out, "late") || !strings.Contains(out, portal) || strings.Contains(out, "$2") {
		t.Errorf("list: %s", out)
	}
	if code, _, errOut := c.run(t, "client", "add", "late", "--role", "revoke", "--hub"); code != 2 || !strings.Contains(errOut, "--replace") {
		t.Errorf("a client that is there: exit %d, %s", code, errOut)
	}
	if code, _, errOut := c.run(t, "client", "add", portal, "--role", "revoke", "--hub"); code != 2 || !strings.Contains(errOut, "configuration") {
		t.Errorf("a client of the configuration: exit %d, %s", code, errOut)
	}
	if code, _, errOut := c.run(t, "client", "add", "late", "--role", "operator", "--hub", "--replace", "--max-body-bytes", "1"); code != 2 || !strings.Contains(errOut, "max_body_bytes") {
		t.Errorf("a limit that is none: exit %d, %s", code, errOut)
	}
	code, again, errOut := c.run(t, "client", "add", "late", "--role", "operator", "--hub", "--replace", "--requests-per-second", "1")
	if code != 0 || again == secret {
		t.Errorf("replaced: exit %d, %s", code, errOut)
	}
	secret = again
	eventually(t, "it is held to its own limit", func() bool { return asks() == http.StatusTooManyRequests })
	if code, out, errOut := c.run(t, "client", "remove", "late"); code != 0 {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}
	eventually(t, "it is known no more", func() bool { return asks() == http.StatusUnauthorized })
	if code, _, _ := c.run(t, "client", "remove", "late"); code != 4 {
		t.Errorf("removed twice: exit %d", code)
	}
	for name, args := range map[string][]string{
		"no role": {"client", "add", "x"}, "a wrong role": {"client", "add", "x", "--role", "king"}, "a wrong id": {"client", "add", "a:b", "--role", "revoke"},
	} {
		if code, _, errOut := c.run(t, args...); code != 2 || errOut == "" {
			t.Errorf("%s: exit %d: %s", name, code, errOut)
		}
	}
	code, entry, said := c.run(t, "client", "add", "for-file", "--role", "revoke")
	if code != 0 || !strings.HasPrefix(entry, "[[clients]]") || strings.Contains(entry, strings.TrimSpace(said[strings.LastIndex(said, " ")+1:])) {
		t.Errorf("exit %d: %s%s", code, entry, said)
	}
}

// Who did what is known after a kill, over HTTP and on the command line, without a
// token.
func TestAuditIsKept(t *testing.T) {
	t.Parallel()
	c, store := onPlainHub(t)
	raw := c.token(t, "audited")
	c.form(t, portal, revokePath, []string{"token", raw, "reason", "lost phone"})
	c.form(t, incident, revokePath, []string{"token", "an-opaque-token-of-somebody"})
	c.signal(t, syscall.SIGKILL)
	c.start(t)
	c.awaitReady(t)
	code, out, errOut := c.run(t, "audit", "--json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != 0 || len(lines) != 2 || !strings.Contains(lines[1], `"target":"audited"`) || !strings.Contains(lines[1], "lost phone") ||
		!strings.Contains(lines[0], `"target":"sha256:`) {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}
	if code, out, _ := c.run(t, "audit", "--actor", portal); code != 0 || !strings.Contains(out, "lost phone") || strings.Contains(out, incident) {
		t.Errorf("exit %d: %s", code, out)
	}
	code, out, errOut = c.run(t, "explain", "audited")
	if code != 0 || !strings.Contains(out, "lost phone") || !strings.Contains(out, portal) {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}
	if code, _, _ := c.run(t, "explain", "nobody-knows-it"); code != 4 {
		t.Errorf("unknown: exit %d", code)
	}
	for _, command := range []string{"revoke", "approve"} {
		if code, _, errOut := c.run(t, command, "by-hand"); code != 0 {
			t.Fatalf("%s: exit %d: %s", command, code, errOut)
		}
		code, out, errOut := c.run(t, "audit", "--json", "--action", command)
		if code != 0 || !strings.Contains(out, `"target":"by-hand","outcome":"stored"`) || !strings.Contains(out, `"actor":"cli:`) {
			t.Errorf("%s on the command line: exit %d: %s%s", command, code, out, errOut)
		}
	}
	c.run(t, "revoke", "--claim", "sub=alice")
	if code, out, _ := c.run(t, "audit", "--json", "--target", "sub=alice"); code != 0 || !strings.Contains(out, `"actor":"cli:`) {
		t.Errorf("a rule by its key: exit %d: %s", code, out)
	}
	notInFiles(t, store, raw, "an-opaque-token-of-somebody", controlSecret)
	notInFiles(t, c.dir, raw, "an-opaque-token-of-somebody", controlSecret)
}

// An operator signs in with a real browser, revokes a token, sees that the gateways
// have it, and looks at them; nothing is told without a session.
func TestPageOfTheAdapter(t *testing.T) {
	t.Parallel()
	c := startControlled(t)
	if code, _ := c.get(t, "/page/events"); code != http.StatusUnauthorized {
		t.Errorf("events without a session: %d", code)
	}
	if code, body := c.get(t, "/openapi.yaml"); code != 200 || !strings.Contains(body, "openapi: 3.1") {
		t.Errorf("%d %.100s", code, body)
	}
	g := connectGateway(t, c.adapter, delta, "")
	slow := holdBack(t, c.adapter)
	b := chromium.New(t)
	b.Run(chromedp.Navigate("http://" + c.control + "/"))
	b.Fill("#client-id", incident)
	b.Fill("#client-secret", controlSecret+"\r")
	b.Shows("#link", "Live")
	b.Shows("#gateways", "gw-delta")
	b.Click("#what-jti")
	b.Fill("#act-jti", "revoked-on-the-page")
	b.Fill("#act-reason", "shown\r")
	b.Shows("#receipt", "Enforced by 1 of 2 connected gateways")
	b.Picture("pending")
	g.awaits(t, "revoked-on-the-page")
	slow.ack()
	b.Shows("#receipt", "Enforced by all 2 connected gateways")
	b.Picture("enforced")
	if r := c.call(t, incident, http.MethodGet, "/revocations/revoked-on-the-page", ""); !strings.Contains(r.body, `"actor":"`+incident+`"`) {
		t.Errorf("%d %s", r.status, r.body)
	}
	c.publish(t, `{"eventId":"x","type":"no-such-type","revokedToken":"y"}`)
	b.Shows("#letters", "type is none")
	b.Picture("dead-letter")
}

// While the hub is not open a client is told so, and nothing is lost silently.
func TestControlWithoutTheHub(t *testing.T) {
	t.Parallel()
	address := freePort(t)
	c := newControlled(t, fmt.Sprintf("mode = \"external\"\nreplicas = 1\nurls = [\"nats://%s\"]\n", address))
	c.start(t)
	eventually(t, "it listens", func() bool {
		code, _ := c.get(t, "/healthz")
		return code == 200
	})
	r := c.form(t, portal, revokePath, []string{"token", c.token(t, "a")})
	if r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", r.status, r.body)
	}
	startNATS(t, address)
	c.awaitReady(t)
	if r := c.form(t, portal, revokePath, []string{"token", c.token(t, "a")}); r.effect() != "revoked" {
		t.Errorf("%d %s", r.status, r.body)
	}
}
