package control_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/bcrypt"

	"revocation-adapter/adapter/control"
	"revocation-adapter/adapter/control/openapitest"
	"revocation-adapter/config/basicauth"
)

// parsed is our document, which must be valid with its examples.
func parsed(t *testing.T) *openapitest.Document {
	t.Helper()
	document, err := openapitest.Parse(control.OpenAPI())
	if err != nil {
		t.Fatal(err)
	}
	return document
}

// Every operation of the control API is there, with its answers.
func TestOpenAPIIsComplete(t *testing.T) {
	got := parsed(t).Operations()
	for _, want := range []string{
		"POST /oauth2/revoke", "POST /oauth2/approve", "POST /oauth2/introspect",
		"POST /api/am/devportal/v3/applications/{applicationId}/api-keys/{keyType}/revoke",
		"POST /grants", "POST /revocations", "GET /revocations/{key}", "POST /revocations/explain",
		"GET /gateways", "GET /audit",
		"GET /deadletters", "GET /deadletters/{sequence}", "DELETE /deadletters/{sequence}", "POST /deadletters/{sequence}/replay",
		"POST /internal/data/v1/notify", "GET /sources", "GET /healthz", "GET /readyz", "GET /metrics", "GET /openapi.yaml",
		"GET /", "GET /page/session", "POST /page/session", "DELETE /page/session",
	} {
		if _, ok := got[want]; !ok {
			t.Errorf("%s is missing", want)
		}
		delete(got, want)
	}
	if len(got) > 0 {
		t.Errorf("not expected: %v", got)
	}
}

// serveAll serves the whole control port, and returns a client whose exchanges are
// held to the document.
func serveAll(t *testing.T, status *control.Status, taken error) (client *http.Client, url string) {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("hunter2"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector())
	server := control.New(control.Config{
		Status: func() control.Status { return *status }, Metrics: metrics, Log: log,
		Sources: func() any {
			return []map[string]any{{"name": "nats", "connected": true, "events": 1, "lag_seconds": 0.5, "errors": 0}}
		},
		Notify: &control.Notify{
			Credentials: basicauth.Credentials{Username: "km", PasswordHash: string(hash)},
			Take:        func(context.Context, []byte) error { return taken },
		},
	})
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx, lis) }()
	base := &http.Transport{}
	t.Cleanup(func() {
		base.CloseIdleConnections()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return &http.Client{Transport: parsed(t).Transport(t, base)}, "http://" + lis.Addr().String()
}

// What is served is as the document says; the client's transport fails the test
// otherwise.
func TestOpenAPIOfWhatIsServed(t *testing.T) {
	ready := &control.Status{Ready: true, Version: 7, Revoked: 1, Hub: "connected", Confirmed: 7, ConfirmedAt: "2026-11-20T12:51:48.123Z"}
	for _, path := range []string{"/healthz", "/readyz", "/sources", "/metrics", "/openapi.yaml", "/nothing"} {
		client, url := serveAll(t, ready, nil)
		resp, err := client.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.Body.Close() != nil {
			t.Error(err)
		}
		if found := resp.StatusCode == http.StatusOK; found == (path == "/nothing") {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	client, url := serveAll(t, &control.Status{Reason: "the hub is not open yet", Hub: "unreachable"}, nil)
	resp, err := client.Get(url + "/readyz")
	if err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%v, %v", resp, err)
	}
	_ = resp.Body.Close() // read by the transport
}

func TestOpenAPIOfNotify(t *testing.T) {
	for name, tt := range map[string]struct {
		taken  error
		change func(*http.Request)
		code   int
	}{
		"taken":          {nil, func(*http.Request) {}, 200},
		"not understood": {control.ErrNotUnderstood, func(*http.Request) {}, 400},
		"not stored":     {errors.New("away"), func(*http.Request) {}, 503},
		"no header":      {nil, func(r *http.Request) { r.Header.Del("X-WSO2-KEY-MANAGER") }, 400},
		"no credentials": {nil, func(r *http.Request) { r.Header.Del("Authorization") }, 401},
		"wrong password": {nil, func(r *http.Request) { r.SetBasicAuth("km", "x") }, 401},
	} {
		t.Run(name, func(t *testing.T) {
			client, url := serveAll(t, &control.Status{}, tt.taken)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/internal/data/v1/notify", strings.NewReader(`{"type":"token_revocation"}`))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("X-WSO2-KEY-MANAGER", "default")
			req.SetBasicAuth("km", "hunter2")
			tt.change(req)
			resp, err := client.Do(req)
			if err != nil || resp.StatusCode != tt.code {
				t.Fatalf("%v, %v, want %d", resp, err, tt.code)
			}
			_ = resp.Body.Close() // read by the transport
		})
	}
}
