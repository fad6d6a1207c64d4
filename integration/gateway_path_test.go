package integration_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"revocation-adapter/integration/stack"
)

// rejection is the body of every rejected call.
const rejection = `{"error_message":"Invalid Credentials","code":"900901","error_description":"Invalid JWT token. Make sure you have provided the correct security credentials"}`

// enforcerBinary is the enforcer's process, built when it is needed first.
var enforcerBinary = sync.OnceValues(func() (string, error) {
	var flags []string
	if raceEnabled {
		flags = append(flags, "-race")
	}
	return stack.Build(context.Background(), filepath.Dir(binary), "enforcer", "revocation-adapter/enforcer/cmd", flags...)
})

// startable is a part of the path of a call.
type startable interface {
	Start() error
	Ready(ctx context.Context) error
}

// run starts a part and stops it when the test ends.
func run(t *testing.T, p *stack.Process, part startable) {
	t.Helper()
	if err := part.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err, p.Kill())
		}
		if t.Failed() {
			t.Logf("log of %s:\n%s", p.Name, p.Log())
		}
		if strings.Contains(p.Log(), "DATA RACE") {
			t.Errorf("%s has a data race:\n%s", p.Name, p.Log())
		}
	})
}

func ready(t *testing.T, part startable) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := part.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

// newEnforcer prepares an enforcer that follows adapters.
func newEnforcer(t *testing.T, sections string, adapters ...*adapter) *stack.Enforcer {
	t.Helper()
	built, err := enforcerBinary()
	if err != nil {
		t.Fatal(err)
	}
	var at []string
	for _, a := range adapters {
		at = append(at, a.xds)
	}
	dir := t.TempDir()
	if !strings.Contains(sections, "[set]") {
		sections += fmt.Sprintf("[set]\nsnapshot_file = %q\n", filepath.Join(dir, "enforcer.snapshot"))
	}
	e, err := stack.NewEnforcer(built, dir, at, sections)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// startEnforcer starts one and waits until it knows what is revoked.
func startEnforcer(t *testing.T, sections string, adapters ...*adapter) *stack.Enforcer {
	t.Helper()
	e := newEnforcer(t, sections, adapters...)
	run(t, &e.Process, e)
	ready(t, e)
	return e
}

// api is what gateways stand in front of.
type api struct {
	*httptest.Server
	calls atomic.Int64
}

func startAPI(t *testing.T) *api {
	t.Helper()
	a := &api{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		a.calls.Add(1)
		_, _ = io.WriteString(w, "the API answers") // the caller has gone, else
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *api) address() string { return strings.TrimPrefix(a.URL, "http://") }

// startNginx starts nginx as the example has it.
func startNginx(t *testing.T, e *stack.Enforcer, behind *api) *stack.Nginx {
	t.Helper()
	if _, err := stack.NginxPath(); err != nil {
		missing(t, "nginx")
	}
	n, err := stack.NewNginx(t.TempDir(), filepath.Join(examples, "nginx", "nginx.conf"), e.ForwardAuth, behind.address())
	if err != nil {
		t.Fatal(err)
	}
	run(t, &n.Process, n)
	ready(t, n)
	return n
}

// answer is what a caller gets.
type answer struct {
	status int
	body   string
	header http.Header
}

// request calls an address with headers, given as names and values.
func request(t *testing.T, method, url string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, string(body), resp.Header}
}

// get is request for the caller of an API.
func get(t *testing.T, address, path string, headers ...string) answer {
	t.Helper()
	return request(t, http.MethodGet, "http://"+address+path, headers...)
}

func (a answer) passed(t *testing.T, what string) {
	t.Helper()
	if a.status != http.StatusOK {
		t.Errorf("%s: got %d %s", what, a.status, a.body)
	}
}

// rejected fails unless it is the answer that WSO2's gateways give.
func (a answer) rejected(t *testing.T, what string) {
	t.Helper()
	if a.status != http.StatusUnauthorized || a.body != rejection ||
		!strings.HasPrefix(a.header.Get("Content-Type"), "application/json") ||
		!slices.Equal(a.header.Values("WWW-Authenticate"), []string{`Bearer error="invalid_token"`}) {
		t.Errorf("%s: got %d %q %v", what, a.status, a.body, a.header)
	}
}

// command runs a command of the adapter that must succeed.
func (a *adapter) command(t *testing.T, args ...string) {
	t.Helper()
	if code, out, errOut := a.run(t, args...); code != 0 {
		t.Fatalf("adapter %s: code %d: %s%s", args[0], code, out, errOut)
	}
}

// signer signs tokens.
type signer struct {
	*stack.Issuer
	t    *testing.T
	keys string // path of its JWKS
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	issuer, err := stack.NewIssuer("k1")
	if err != nil {
		t.Fatal(err)
	}
	s := &signer{issuer, t, filepath.Join(t.TempDir(), "jwks.json")}
	if err := s.WriteKeys(s.keys); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *signer) token(jti string, claims map[string]any) string {
	s.t.Helper()
	token, err := s.AccessToken(jti, claims)
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

func (s *signer) key(jti string) string {
	s.t.Helper()
	key, err := s.APIKey(jti)
	if err != nil {
		s.t.Fatal(err)
	}
	return key
}

// section is that of an enforcer that verifies what s signs.
func (s *signer) section() string {
	return fmt.Sprintf("[jwt]\njwks = [%q]\nissuer = [%q]\n", s.keys, s.Name)
}

// becomes calls until the status is as wanted, and returns what came last.
func becomes(t *testing.T, status int, call func() answer) answer {
	t.Helper()
	var last answer
	eventually(t, fmt.Sprintf("the answer is %d", status), func() bool {
		last = call()
		return last.status == status
	})
	return last
}

// soon bounds what must not take long on a machine that is busy.
const soon = 5 * time.Second

func awaitPort(t *testing.T, address string) {
	t.Helper()
	eventually(t, address+" answers", func() bool {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}

// startCaddy starts Caddy as the example has it, and returns its address.
func startCaddy(t *testing.T, dir string, e *stack.Enforcer, behind *api) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(examples, "caddy", "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	address := freePort(t)
	conf := strings.NewReplacer("127.0.0.1:8000", address, "127.0.0.1:8082", e.ForwardAuth, "127.0.0.1:8080", behind.address()).Replace(string(text))
	path := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &stack.Process{
		Name: "caddy", Dir: dir,
		Args: []string{"env", "HOME=" + dir, filepath.Join(dir, "caddy"), "run", "--config", path, "--adapter", "caddyfile"},
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of caddy:\n%s", p.Log())
		}
	})
	awaitPort(t, address)
	return address
}
