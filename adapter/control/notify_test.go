package control_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"

	"revocation-adapter/adapter/control"
	"revocation-adapter/config/basicauth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// port is a control port with a notify endpoint.
type port struct {
	url   string
	taken []string
	err   error // of Take
	log   *bytes.Buffer
}

func servePort(t *testing.T, n control.Notify) *port {
	t.Helper()
	p := &port{log: &bytes.Buffer{}}
	n.Take = func(_ context.Context, body []byte) error {
		p.taken = append(p.taken, string(body))
		return p.err
	}
	log := logrus.New()
	log.SetOutput(p.log)
	server := control.New(control.Config{Metrics: prometheus.NewRegistry(), Notify: &n, Log: log})
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.url = "http://" + lis.Addr().String() + "/internal/data/v1/notify"
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx, lis) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return p
}

// post sends a notification, and returns the answer with its body.
func (p *port) post(t *testing.T, body string, change func(*http.Request)) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-WSO2-KEY-MANAGER", "default")
	req.SetBasicAuth("km", "hunter2")
	if change != nil {
		change(req)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

func TestNotifyAnswers(t *testing.T) {
	cases := map[string]struct {
		body   string
		change func(*http.Request)
		err    error // of Take
		code   int
		says   string
		header string // that must be there
	}{
		"stored":     {body: "x", code: 200},
		"malformed":  {body: "x", err: fmt.Errorf("%w: no type", control.ErrNotUnderstood), code: 400, says: "no type"},
		"hub away":   {body: "x", err: errors.New("secret internals"), code: 503, says: "try again", header: "Retry-After"},
		"no manager": {change: func(r *http.Request) { r.Header.Del("X-WSO2-KEY-MANAGER") }, code: 400, says: "X-WSO2-KEY-MANAGER"},
		"nobody":     {change: func(r *http.Request) { r.Header.Del("Authorization") }, code: 401, header: "WWW-Authenticate"},
		"other user": {change: func(r *http.Request) { r.SetBasicAuth("KM", "hunter2") }, code: 401, header: "WWW-Authenticate"},
		"wrong":      {change: func(r *http.Request) { r.SetBasicAuth("km", "hunter3") }, code: 401, header: "WWW-Authenticate"},
		"joined":     {change: func(r *http.Request) { r.SetBasicAuth("", "km\x00hunter2") }, code: 401, header: "WWW-Authenticate"},
		"too large":  {body: strings.Repeat("x", 4<<20+1), code: 413, says: "larger"},
		"a GET":      {change: func(r *http.Request) { r.Method = http.MethodGet }, code: 405},
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("hunter2"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for way, n := range map[string]control.Notify{
		"password": {Credentials: basicauth.Credentials{Username: "km", Password: "hunter2"}},
		"hash":     {Credentials: basicauth.Credentials{Username: "km", PasswordHash: string(hash)}},
	} {
		for name, tc := range cases {
			t.Run(way+" "+name, func(t *testing.T) {
				p := servePort(t, n)
				p.err = tc.err
				resp, text := p.post(t, tc.body, tc.change)
				if resp.StatusCode != tc.code || !strings.Contains(text, tc.says) || strings.Contains(text, "internals") {
					t.Errorf("got %d %s", resp.StatusCode, text)
				}
				if tc.header != "" && resp.Header.Get(tc.header) == "" {
					t.Errorf("no %s", tc.header)
				}
				if reached := len(p.taken) > 0; reached != (tc.body == "x") {
					t.Errorf("taken: %v", reached)
				}
				if strings.Contains(p.log.String(), "hunter") {
					t.Errorf("a password is in the log: %s", p.log)
				}
			})
		}
	}
}

// Guessing is stopped; the one who knows may be wrong now and then.
func TestNotifyLimitsGuesses(t *testing.T) {
	p := servePort(t, control.Notify{Credentials: basicauth.Credentials{Username: "km", Password: "hunter2"}})
	wrong := func(r *http.Request) { r.SetBasicAuth("km", "guess") }
	if resp, _ := p.post(t, "x", wrong); resp.StatusCode != http.StatusUnauthorized {
		t.Fatalf("first guess: %d", resp.StatusCode)
	}
	if resp, _ := p.post(t, "x", nil); resp.StatusCode != http.StatusOK {
		t.Fatalf("right after one guess: %d", resp.StatusCode)
	}
	for range 10 {
		if resp, _ := p.post(t, "x", wrong); resp.StatusCode == http.StatusTooManyRequests {
			if resp.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			return
		}
	}
	t.Error("ten guesses, and nobody minds")
}
