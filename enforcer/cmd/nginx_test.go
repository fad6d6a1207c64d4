package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"revocation-adapter/enforcer/cmd/config"
	"revocation-adapter/revocation"
)

// nginx runs with what docs/enforcer.md says, before a backend that says "hello".
func nginx(t *testing.T, r *running) string {
	t.Helper()
	binary, err := exec.LookPath("nginx")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("nginx is missing: run make deps")
		}
		t.Skip("nginx is missing: run make deps")
	}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("hello")) // the client is gone
	}))
	t.Cleanup(backend.Close)
	text, err := os.ReadFile("../../docs/enforcer.md")
	if err != nil {
		t.Fatal(err)
	}
	_, documented, _ := strings.Cut(string(text), "```nginx\n")
	documented, _, _ = strings.Cut(documented, "```")
	documented = strings.NewReplacer("http://backend", backend.URL, "127.0.0.1:8082", r.forwardAuth).Replace(documented)
	lis := listen(t)
	address := lis.Addr().String()
	if err := lis.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "nginx.conf")
	write(t, path, fmt.Appendf(nil, `daemon off; master_process off; pid %[1]s/pid; error_log stderr;
events {}
http { access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
server { listen %[2]s; %[3]s } }`, dir, address, documented))
	cmd := exec.CommandContext(t.Context(), binary, "-p", dir, "-c", path)
	said := &output{}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended already, where that fails
		_ = cmd.Wait()         // it was killed
	})
	base := "http://" + address
	eventually(t, "nginx answers", func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil
	})
	return base
}

func TestNginx(t *testing.T) {
	h := newHub(t)
	h.revoke(revocation.DomainToken, "bad")
	cfg := settings(t, h)
	cfg.Tokens.Query = "token"
	cfg.OneTime = []config.OneTime{{Path: "/pay/*", Methods: []string{"POST"}, Scope: "OTT"}}
	r := start(t, cfg)
	base := nginx(t, r)
	faked := []string{"X-Original-URI", "/x", "X-Original-Method", "GET", "X-Forwarded-Uri", "/x", "X-Forwarded-Method", "GET"}
	for _, step := range []struct {
		name, method, path string
		headers            []string
		code               int
	}{
		{"no token", "GET", "/", nil, 200},
		{"good", "GET", "/x?y", []string{"Authorization", bearer(jwt("good"))}, 200},
		{"revoked", "GET", "/x", []string{"Authorization", bearer(jwt("bad"))}, 401},
		{"a second header", "GET", "/x", []string{"ApiKey", jwt("bad"), "Authorization", bearer(jwt("good"))}, 401},
		{"in the query", "POST", "/x?a=b&token=" + jwt("bad"), faked, 401},
		{"other method", "GET", "/pay/1", []string{"Authorization", bearer(once("a"))}, 200},
		{"used up", "POST", "/x/..//%70ay/1?x", append(faked, "Authorization", bearer(once("a"))), 200},
		{"used again", "POST", "/pay/1", append(faked, "Authorization", bearer(once("a"))), 401},
		{"not from outside", "GET", "/_enforcer", nil, 404},
	} {
		resp, body := ask(t, step.method, base+step.path, step.headers...)
		if resp.StatusCode != step.code || step.code == 200 && body != "hello" || step.code == 401 && body != refusal {
			t.Errorf("%s: %d %s", step.name, resp.StatusCode, body)
		}
		if challenge := resp.Header.Values("WWW-Authenticate"); step.code == 401 && !slices.Equal(challenge, []string{`Bearer error="invalid_token"`}) {
			t.Errorf("%s: challenge %q", step.name, challenge)
		}
	}
}

// nginx lets these through to the API, and tells of them as they came. What the API
// makes of them is its own.
func TestNginxDisguisedPaths(t *testing.T) {
	h := newHub(t)
	cfg := settings(t, h)
	cfg.OneTime = []config.OneTime{{Path: "/api/pay", Methods: []string{"POST"}, Scope: "OTT"}}
	base := nginx(t, start(t, cfg))
	for i, path := range []string{
		`/api/a\b/../pay`, "/api/%3bz/%2e%2e;/pay", "/api/pay.json", "/api/pay%0A", "/index.php/api/pay", "//host/api//pay/;x",
	} {
		for _, code := range []int{200, 401} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.URL.Opaque = path // as it is
			req.Header.Set("Authorization", bearer(once(fmt.Sprint("token ", i))))
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close() // it is not read
			if resp.StatusCode != code {
				t.Errorf("%s: %d, want %d", path, resp.StatusCode, code)
			}
		}
	}
}

func TestNginxRefusesWhatIsUntold(t *testing.T) {
	lis := listen(t)
	defer lis.Close() //nolint:errcheck // nothing was served
	r := begin(t, settings(t, &hub{address: lis.Addr().String()}))
	base := nginx(t, r)
	resp, body := ask(t, http.MethodGet, base+"/", "Authorization", bearer(jwt("a")))
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || strings.Contains(body, "hello") {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}
