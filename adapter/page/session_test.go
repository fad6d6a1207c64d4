package page_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// visitor is a browser as far as HTTP is concerned.
type visitor struct {
	t      testing.TB
	stage  *stage
	cookie *http.Cookie
	token  string
}

// signIn signs in as alice.
func (s *stage) signIn(tb testing.TB) *visitor {
	tb.Helper()
	v := &visitor{t: tb, stage: s}
	resp, body := v.signInAs("alice", secret, s.url)
	if resp.StatusCode != http.StatusOK || len(resp.Cookies()) != 1 {
		tb.Fatalf("signing in: %s %s", resp.Status, body)
	}
	v.cookie = resp.Cookies()[0]
	var said struct{ Token string }
	if err := json.Unmarshal([]byte(body), &said); err != nil || said.Token == "" {
		tb.Fatalf("no token: %s", body)
	}
	v.token = said.Token
	return v
}

// in is the same visitor, for a test within a test.
func (v *visitor) in(tb testing.TB) *visitor {
	tb.Helper()
	return &visitor{tb, v.stage, v.cookie, v.token}
}

func (v *visitor) signInAs(id, secret, origin string) (*http.Response, string) {
	v.t.Helper()
	form := strings.NewReader(url.Values{"client_id": {id}, "client_secret": {secret}}.Encode())
	return v.ask(http.MethodPost, "/page/session", form, map[string]string{"Origin": origin, "Content-Type": "application/x-www-form-urlencoded"})
}

func (v *visitor) ask(method, path string, body io.Reader, headers map[string]string) (*http.Response, string) {
	v.t.Helper()
	resp := v.open(v.t.Context(), v.request(method, path, body, headers))
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return resp, string(text)
}

func (v *visitor) request(method, path string, body io.Reader, headers map[string]string) *http.Request {
	v.t.Helper()
	req, err := http.NewRequestWithContext(v.t.Context(), method, v.stage.url+path, body)
	if err != nil {
		v.t.Fatal(err)
	}
	if v.cookie != nil {
		req.AddCookie(v.cookie)
	}
	for name, value := range headers {
		if name == "Host" {
			req.Host = value
		}
		req.Header.Set(name, value)
	}
	return req
}

// arrived is a request as the server gets it.
func (v *visitor) arrived(method, path string, headers map[string]string) *http.Request {
	v.t.Helper()
	req := v.request(method, path, nil, headers)
	req.Host = req.URL.Host
	return req
}

func (v *visitor) open(ctx context.Context, req *http.Request) *http.Response {
	v.t.Helper()
	resp, err := http.DefaultClient.Do(req.WithContext(ctx)) //nolint:bodyclose // the caller closes it
	if err != nil {
		v.t.Fatal(err)
	}
	return resp
}

// Whoever may write has the cookie and the token, and comes from the page itself.
func TestPagePrincipalOfWrites(t *testing.T) {
	s := newStage(t)
	v := s.signIn(t)
	other := s.signIn(t)
	for name, tc := range map[string]struct {
		method  string
		headers map[string]string
		admit   bool
	}{
		"the page":                  {"POST", map[string]string{"Origin": s.url, "X-CSRF-Token": v.token}, true},
		"a read":                    {"GET", nil, true},
		"a read by another site":    {"GET", map[string]string{"Origin": "https://evil.example"}, false},
		"no token":                  {"POST", map[string]string{"Origin": s.url}, false},
		"an empty token":            {"POST", map[string]string{"Origin": s.url, "X-CSRF-Token": ""}, false},
		"another session's token":   {"POST", map[string]string{"Origin": s.url, "X-CSRF-Token": other.token}, false},
		"no origin":                 {"POST", map[string]string{"X-CSRF-Token": v.token}, false},
		"origin null":               {"POST", map[string]string{"Origin": "null", "X-CSRF-Token": v.token}, false},
		"another site":              {"POST", map[string]string{"Origin": "https://evil.example", "X-CSRF-Token": v.token}, false},
		"another port":              {"POST", map[string]string{"Origin": "http://127.0.0.1:1", "X-CSRF-Token": v.token}, false},
		"a name that begins so":     {"POST", map[string]string{"Origin": s.url + ".evil.example", "X-CSRF-Token": v.token}, false},
		"another scheme":            {"POST", map[string]string{"Origin": strings.Replace(s.url, "http", "ftp", 1), "X-CSRF-Token": v.token}, false},
		"any method that may write": {"PROPFIND", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			client, ok := s.page.Principal(v.arrived(tc.method, "/revocations", tc.headers))
			if ok != tc.admit || ok != (client == "alice") {
				t.Errorf("got %q, %v", client, ok)
			}
		})
	}
}

func TestPageCookie(t *testing.T) {
	s := newStage(t)
	for name, tc := range map[string]struct {
		host string
		want []string
		not  string
	}{
		"on this machine": {strings.TrimPrefix(s.url, "http://"), []string{"revocation-page=", "Path=/", "HttpOnly", "SameSite=Strict"}, "Secure"},
		"IPv6":            {"[::1]:9843", []string{"revocation-page=", "HttpOnly"}, "Secure"},
		"IPv6, port 80":   {"[::1]", []string{"revocation-page=", "HttpOnly"}, "Secure"},
		"localhost":       {"localhost:9843", []string{"revocation-page=", "HttpOnly", "SameSite=Strict"}, "Secure"},
		"elsewhere":       {"adapter.example:9843", []string{"__Host-revocation-page=", "Path=/", "HttpOnly", "SameSite=Strict", "Secure"}, "Domain"},
	} {
		t.Run(name, func(t *testing.T) {
			v := &visitor{t: t, stage: s}
			form := strings.NewReader(url.Values{"client_id": {"alice"}, "client_secret": {secret}}.Encode())
			resp, body := v.ask("POST", "/page/session", form, map[string]string{
				"Host": tc.host, "Origin": "http://" + tc.host, "Content-Type": "application/x-www-form-urlencoded",
			})
			cookie := resp.Header.Get("Set-Cookie")
			for _, want := range tc.want {
				if !strings.Contains(cookie, want) {
					t.Errorf("%d %s: no %s in %q", resp.StatusCode, body, want, cookie)
				}
			}
			if strings.Contains(cookie, tc.not) {
				t.Errorf("%s in %q", tc.not, cookie)
			}
		})
	}
}

func TestPageSignInRefuses(t *testing.T) {
	s := newStage(t)
	v := &visitor{t: t, stage: s}
	for name, tc := range map[string]struct {
		id, secret, origin string
		code               int
	}{
		"another site":        {"alice", secret, "https://evil.example", 403},
		"no origin":           {"alice", secret, "", 403},
		"no operator":         {"app", secret, s.url, 403},
		"wrong":               {"alice", "x", s.url, 401},
		"cannot be told":      {"away", secret, s.url, 503},
		"a form without end":  {"alice", strings.Repeat("x", 5000), s.url, 400},
		"nobody of this name": {"", "", s.url, 401},
	} {
		t.Run(name, func(t *testing.T) {
			s.late.Add(int64(time.Minute)) // every case has its tries
			resp, body := v.signInAs(tc.id, tc.secret, tc.origin)
			if resp.StatusCode != tc.code || len(resp.Cookies()) > 0 || !strings.Contains(body, `"title"`) {
				t.Errorf("got %s %s", resp.Status, body)
			}
		})
	}
}

// Guessing is stopped, also for who guesses right in the end. Who waits gets in.
func TestPageSignInLimitsGuesses(t *testing.T) {
	s := newStage(t)
	v := &visitor{t: t, stage: s}
	for i := range 5 {
		if resp, _ := v.signInAs("alice", fmt.Sprint(i), s.url); resp.StatusCode != http.StatusUnauthorized {
			t.Fatalf("guess %d: %s", i, resp.Status)
		}
	}
	resp, _ := v.signInAs("alice", secret, s.url)
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Fatalf("the sixth: %s, retry after %q", resp.Status, resp.Header.Get("Retry-After"))
	}
	s.late.Store(int64(6 * time.Second))
	for range 10 { // whoever knows the secret may sign in as often as he likes
		if resp, body := v.signInAs("alice", secret, s.url); resp.StatusCode != http.StatusOK {
			t.Fatalf("six seconds later: %s %s", resp.Status, body)
		}
	}
}

// A session ends when nobody does anything in it, at the latest after 12 hours, and
// what the page asks by itself does not count.
func TestPageSessionsEnd(t *testing.T) {
	s := newStage(t)
	read := func(v *visitor, header string) bool {
		_, ok := s.page.Principal(v.arrived("GET", "/gateways", map[string]string{header: "1"}))
		return ok
	}
	v := s.signIn(t)
	s.late.Add(int64(14 * time.Minute))
	if !read(v, "X-Unattended") {
		t.Fatal("it ended after 14 minutes")
	}
	s.late.Add(int64(time.Minute))
	if read(v, "X-Unattended") {
		t.Error("what the page does by itself keeps it alive")
	}
	v = s.signIn(t)
	for range 12*6 - 1 {
		s.late.Add(int64(10 * time.Minute))
		if !read(v, "X-Attended") {
			t.Fatal("it ended though somebody uses it")
		}
	}
	s.late.Add(int64(10 * time.Minute))
	if read(v, "X-Attended") {
		t.Error("it lasts for more than 12 hours")
	}
	v = s.signIn(t)
	s.secrets.Add(1)
	if read(v, "X-Attended") {
		t.Error("a session outlives the secret that it began with")
	}
	v = s.signIn(t)
	s.removed.Store(true)
	if read(v, "X-Attended") {
		t.Error("a client that is no operator any more is admitted")
	}
}

// Sessions are bounded: the one that was used least recently goes.
func TestPageSessionsAreBounded(t *testing.T) {
	s := newStage(t)
	first := s.signIn(t)
	s.late.Add(int64(time.Second))
	second := s.signIn(t)
	for range 63 {
		s.late.Add(int64(time.Second))
		s.signIn(t)
	}
	for v, want := range map[*visitor]bool{first: false, second: true} {
		if _, ok := s.page.Principal(v.arrived("GET", "/", nil)); ok != want {
			t.Errorf("got %v, want %v", ok, want)
		}
	}
}

// Every answer keeps other sites away, errors and streams as well.
func TestPageSecurityHeaders(t *testing.T) {
	s := newStage(t)
	v := s.signIn(t)
	for _, path := range []string{"/", "/page/assets/main.js", "/page/assets/none.js", "/page/session", "/page/receipts", "/page/receipts?version=1", "/page/events"} {
		ctx, cancel := context.WithCancel(t.Context())
		resp := v.open(ctx, v.request("GET", path, nil, nil))
		const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
		for name, want := range map[string]string{"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cross-Origin-Resource-Policy": "same-origin"} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		if cache := resp.Header.Get("Cache-Control"); cache != "no-store" && cache != "no-cache" {
			t.Errorf("%s: may be cached: %q", path, cache)
		}
		cancel()
		resp.Body.Close()
	}
}

// Another site in the operator's browser, on this machine even, can do nothing.
func TestPageAgainstOtherSites(t *testing.T) {
	s, b := newStage(t), newBrowser(t)
	b.Allow("/revocations") // the browser writes down what was refused
	b.Allow("/page/session")
	b.Allow("/page/events")
	b.Allow("Access-Control-Allow-Origin")
	b.Allow("favicon")
	b.enter(s)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<title>other</title>") //nolint:errcheck // the client is gone
	}))
	t.Cleanup(other.Close)
	b.Run(navigateTo(other.URL))
	b.Do(fmt.Sprintf(`fetch("%s/revocations", {method: "POST", mode: "no-cors", credentials: "include", body: '{"tokens":[{"jti":"x"}],"state":"approved"}'})`, s.url))
	b.Do(fmt.Sprintf(`fetch("%s/page/session", {method: "DELETE", credentials: "include"}).catch(() => {})`, s.url))
	readable := eval[bool](b, fmt.Sprintf(`fetch("%s/page/session", {credentials: "include"}).then(() => true, () => false)`, s.url))
	streams := eval[bool](b, fmt.Sprintf(`new Promise((done) => { const e = new EventSource("%s/page/events", {withCredentials: true}); e.onmessage = () => done(true); e.onerror = () => { e.close(); done(false); }; })`, s.url))
	if asked := s.api.requests("/revocations"); len(asked) > 0 || readable || streams {
		t.Errorf("another site was admitted: %+v, reads %v, streams %v", asked, readable, streams)
	}
	b.Run(navigate(s))
	b.Shows("#client", "alice") // nor was the session ended
}

// stream reads the messages of a stream of events.
type stream struct {
	resp  *http.Response
	lines *bufio.Scanner
	end   context.CancelFunc
}

func (v *visitor) stream(path string) *stream {
	v.t.Helper()
	ctx, cancel := context.WithCancel(v.t.Context())
	resp := v.open(ctx, v.request("GET", path, nil, nil))
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 4<<20)
	st := &stream{resp, lines, cancel}
	v.t.Cleanup(st.close)
	return st
}

func (st *stream) close() {
	st.end()
	st.resp.Body.Close()
}

// next returns the name and data of the next event; none at the end.
func (st *stream) next() (name, data string, ok bool) {
	for st.lines.Scan() {
		line := st.lines.Text()
		switch {
		case strings.HasPrefix(line, "event: "):
			name = line[len("event: "):]
		case strings.HasPrefix(line, "data: "):
			return name, line[len("data: "):], true
		}
	}
	return "", "", false
}
