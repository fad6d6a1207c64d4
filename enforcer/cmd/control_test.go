package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"revocation-adapter/config/logformat"
	"revocation-adapter/config/strict"
	"revocation-adapter/config/tlsfiles"
	"revocation-adapter/enforcer/cmd/config"
	"revocation-adapter/revocation"
)

// certificate is one that has signed itself, for 127.0.0.1.
func certificate(t *testing.T) tlsfiles.Server {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &secret.PublicKey, secret)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalECPrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	files := tlsfiles.Server{Cert: filepath.Join(t.TempDir(), "cert.pem"), Key: filepath.Join(t.TempDir(), "key.pem")}
	write(t, files.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, files.Key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded}))
	return files
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func guarded(t *testing.T, h *hub) config.Config {
	t.Helper()
	cfg := settings(t, h)
	cfg.Control.Username, cfg.Control.Password = "operator", "hunter2"
	return cfg
}

func TestRevokedTokensAreListed(t *testing.T) {
	h := newHub(t)
	h.revoke(revocation.DomainToken, "bad")
	h.revoke(revocation.DomainOpaque, "opaque-bad")
	h.revoke(revocation.DomainOpaque, jwt("whole"))
	r := start(t, guarded(t, h))
	base := "http://operator:hunter2@" + r.control + "/revoked_tokens"
	_, body := r.get(t, base)
	var list struct {
		Count  int `json:"count"`
		Tokens []struct {
			JTI        string `json:"jti"`
			ExpiryTime int64  `json:"expiryTime"`
		} `json:"tokens"`
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil || list.Count != 3 || len(list.Tokens) != 3 {
		t.Fatalf("got %s, %v", body, err)
	}
	want := "sha256:" + revocation.DigestOf(revocation.DomainToken, "bad").String()
	if !strings.Contains(body, want) || list.Tokens[0].ExpiryTime != revocation.Never {
		t.Errorf("got %s", body)
	}
	for token, revoked := range map[string]bool{
		"bad": true, jwt("bad"): true, "opaque-bad": true, jwt("whole"): true, "good": false, jwt("good"): false, "": false, "a b/%": false,
	} {
		code, body := r.get(t, base+"?token="+url.QueryEscape(token))
		if code != http.StatusOK || strings.Contains(body, `"revoked":true`) != revoked || !strings.Contains(body, `"stale":false`) {
			t.Errorf("%q: got %d %s", token, code, body)
		}
		resp, err := http.PostForm(base, url.Values{"token": {token}})
		if err != nil {
			t.Fatal(err)
		}
		var found struct{ Revoked bool }
		if err := errors.Join(json.NewDecoder(resp.Body).Decode(&found), resp.Body.Close()); err != nil || found.Revoked != revoked {
			t.Errorf("%q in a form: %+v, %v", token, found, err)
		}
	}
}

func TestRevokedTokensAreGuarded(t *testing.T) {
	h := newHub(t)
	r := start(t, guarded(t, h))
	for name, tc := range map[string]struct {
		who, method string
		code        int
	}{
		"nobody":     {"", "GET", 401},
		"wrong":      {"operator:wrong@", "GET", 401},
		"known":      {"operator:hunter2@", "GET", 200},
		"PUT":        {"operator:hunter2@", "PUT", 405},
		"empty POST": {"operator:hunter2@", "POST", 400},
	} {
		resp, _ := ask(t, tc.method, "http://"+tc.who+r.control+"/revoked_tokens")
		if resp.StatusCode != tc.code || (tc.code == 401) != (resp.Header.Get("WWW-Authenticate") != "") {
			t.Errorf("%s: %d %v", name, resp.StatusCode, resp.Header)
		}
	}
	if strings.Contains(r.log.String(), "hunter2") {
		t.Errorf("a password is in the log: %s", r.log)
	}
	closed := start(t, settings(t, h))
	if code, _ := closed.get(t, "http://"+closed.control+"/revoked_tokens"); code != http.StatusNotFound {
		t.Errorf("without credentials: %d", code)
	}
}

func TestControlTells(t *testing.T) {
	h := newHub(t)
	h.revoke(revocation.DomainToken, "bad")
	r := start(t, settings(t, h))
	r.get(t, "http://"+r.forwardAuth+"/", "Authorization", bearer(jwt("bad")))
	r.get(t, "http://"+r.forwardAuth+"/")
	_, status := r.get(t, "http://"+r.control+"/status")
	var s struct {
		Ready, Stale bool
		Version      uint64
		CompleteAt   time.Time `json:"complete_at"`
	}
	if err := json.Unmarshal([]byte(status), &s); err != nil || !s.Ready || s.Stale || s.Version != 2 || time.Since(s.CompleteAt) > time.Minute {
		t.Errorf("status: %s, %v", status, err)
	}
	if code, body := r.get(t, "http://"+r.control+"/healthz"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("health: %d %q", code, body)
	}
	_, page := r.get(t, "http://"+r.control+"/metrics")
	for _, line := range []string{
		`revocation_enforcer_calls_total{front="forward_auth",verdict="revoked"} 1`,
		`revocation_enforcer_calls_total{front="forward_auth",verdict="public"} 1`,
		`revocation_enforcer_calls_total{front="ext_authz",verdict="no_claim"} 0`,
		`revocation_enforcer_call_seconds_count{front="forward_auth"} 2`,
	} {
		if !strings.Contains(page, line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}
	if log := r.log.String(); !strings.Contains(log, ".decide] [-] A call is refused [front=forward_auth verdict=revoked]") ||
		!strings.Contains(log, "WARN") || !strings.Contains(log, "jwt.jwks is not set") {
		t.Errorf("log: %s", log)
	}
}

// The metrics of the process are those of docs/enforcer.md, with their labels.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/enforcer.md")
	if err != nil {
		t.Fatal(err)
	}
	h := newHub(t)
	cfg := settings(t, h)
	cfg.JWT.JWKS = []strict.URL{strict.URL(filepath.Join(t.TempDir(), "none"))}
	r := begin(t, cfg)
	_, page := r.get(t, "http://"+r.control+"/metrics")
	documented := map[string]bool{}
	for _, cells := range regexp.MustCompile("(?m)^\\| `(revocation_enforcer_\\w+)` \\| (\\w+) \\|([^|]*)\\|").FindAllStringSubmatch(string(text), -1) {
		name := cells[1]
		documented[name] = true
		if !strings.Contains(page, "# TYPE "+name+" "+cells[2]+"\n") {
			t.Errorf("%s is no %s of the process", name, cells[2])
		}
		if strings.Trim(cells[3], " abcdefghijklmnopqrstuvwxyz_`,") != "" || !strings.Contains(cells[3], "`") {
			continue // a table without labels
		}
		for _, label := range regexp.MustCompile(`\w+`).FindAllString(cells[3], -1) {
			if !regexp.MustCompile(name + `(_count)?\{[^}]*` + label + `="`).MatchString(page) {
				t.Errorf("%s has no label %s", name, label)
			}
		}
	}
	for _, cells := range regexp.MustCompile(`(?m)^# TYPE (revocation_enforcer_(?:call|key)\w+) `).FindAllStringSubmatch(page, -1) {
		if !documented[cells[1]] {
			t.Errorf("%s is not in docs/enforcer.md", cells[1])
		}
	}
	if len(documented) < 3 {
		t.Errorf("documented: %v", documented)
	}
}

func TestKeysThatAreMissing(t *testing.T) {
	h := newHub(t)
	cfg := settings(t, h)
	missing := filepath.Join(t.TempDir(), "keys.json")
	cfg.JWT.JWKS = []strict.URL{strict.URL(missing)}
	r := begin(t, cfg)
	eventually(t, "the keys alone are missing", func() bool {
		code, body := r.get(t, "http://"+r.control+"/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "keys")
	})
	if code, _ := r.get(t, "http://"+r.forwardAuth+"/", "Authorization", bearer(jwt("a"))); code != http.StatusServiceUnavailable {
		t.Errorf("without keys: %d", code)
	}
	if _, page := r.get(t, "http://"+r.control+"/metrics"); !strings.Contains(page, "revocation_enforcer_key_sources_failed 1\n") {
		t.Error("the metrics do not tell of it")
	}
	write(t, missing, []byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
	r.ready(t)
	blank := base64.RawURLEncoding.EncodeToString([]byte(` {"alg":"none"}`)) + jwt("a")[strings.Index(jwt("a"), "."):]
	for name, token := range map[string]string{"another's signature": jwt("a"), "a blank before the header": blank, "no header": "x.y.z"} {
		if code, body := r.get(t, "http://"+r.forwardAuth+"/", "Authorization", bearer(token)); code != http.StatusUnauthorized || body != refusal {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
}

func TestFailures(t *testing.T) {
	taken := listen(t)
	defer taken.Close() //nolint:errcheck // nothing was served
	h := newHub(t)
	for name, tc := range map[string]struct {
		change func(*config.Config)
		code   int
		says   string
	}{
		"a taken port": {func(c *config.Config) { c.Control.Listen = taken.Addr().String() }, exitFailed, "control.listen: "},
		"no front":     {func(c *config.Config) { c.ExtAuthz.Listen, c.ForwardAuth.Listen = "", "" }, exitUsage, "no gateway could ask"},
		"broken TLS":   {func(c *config.Config) { c.Control.TLS.Cert = "/nowhere" }, exitUsage, "control.tls: "},
	} {
		cfg := settings(t, h)
		tc.change(&cfg)
		log, err := logformat.New(&output{}, "info")
		if err != nil {
			t.Fatal(err)
		}
		if err := run(t.Context(), cfg, log); exitCode(err) != tc.code || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, exit code %d", name, err, exitCode(err))
		}
	}
}

// A part that fails ends the process, with its reason.
func TestAPartThatFailsEndsAll(t *testing.T) {
	h := newHub(t)
	log, err := logformat.New(&output{}, "info")
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSidecar(settings(t, h), log)
	if err != nil {
		t.Fatal(err)
	}
	broke := errors.New("broke")
	breaks := func(context.Context) error { return broke }
	waits := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for name, parts := range map[string][2]part{"operators": {waits, breaks}, "a front": {breaks, waits}} {
		if err := s.serve(t.Context(), []part{parts[0], waits}, parts[1]); !errors.Is(err, broke) || exitCode(err) != exitFailed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	bad, good := filepath.Join(dir, "bad.toml"), filepath.Join(dir, "good.toml")
	write(t, bad, []byte("[tokens]\nmissing = \"maybe\"\n[[one_time]]\npth = \"/x\"\n"))
	write(t, good, []byte("[control]\nusername = \"u\"\npassword = \"hunter2\"\n[[one_time]]\npath = \"/x\"\nall = true\n"))
	for name, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"help":            {[]string{"--help"}, exitOK, "Exit codes"},
		"version":         {[]string{"version"}, exitOK, "enforcer "},
		"unknown command": {[]string{"walk"}, exitUsage, `unknown command "walk"`},
		"unknown flag":    {[]string{"run", "--fast"}, exitUsage, "See 'enforcer run --help'"},
		"an argument":     {[]string{"run", "x"}, exitUsage, "See 'enforcer run --help'"},
		"no file":         {[]string{"run", "--config", filepath.Join(dir, "none")}, exitUsage, "no such file"},
		"a bad file":      {[]string{"run", "--config", bad}, exitUsage, "tokens.missing: must be \"pass\" or \"deny\", is \"maybe\""},
		"an unknown key":  {[]string{"config", "check", "-c", bad}, exitUsage, "one_time[0].pth: unknown key\n   4| pth = ********"},
		"a good file":     {[]string{"config", "check", "-c", good}, exitOK, "password = '********'"},
		"shown":           {[]string{"config", "show", "-c", good}, exitOK, "[[one_time]]"},
		"the defaults":    {[]string{"config", "check"}, exitOK, "on_stale = 'deny'"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			c := command()
			c.SetOut(&out)
			c.SetArgs(tc.args)
			err := c.ExecuteContext(t.Context())
			text := out.String()
			if err != nil {
				text += err.Error()
			}
			if exitCode(err) != tc.code || !strings.Contains(text, tc.says) || strings.Contains(text, "hunter2") {
				t.Errorf("exit code %d, %s", exitCode(err), text)
			}
		})
	}
}
