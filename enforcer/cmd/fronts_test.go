package main

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"revocation-adapter/config/tlsfiles"
	"revocation-adapter/enforcer/cmd/config"
	"revocation-adapter/revocation"
)

const refusal = `{"error_message":"Invalid Credentials","code":"900901","error_description":"Invalid JWT token. Make sure you have provided the correct security credentials"}`

func (r *running) dial(t *testing.T, with credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(r.extAuthz, grpc.WithTransportCredentials(with))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

// check asks as Envoy does.
func (r *running) check(t *testing.T, http *authv3.AttributeContext_HttpRequest) *authv3.CheckResponse {
	t.Helper()
	client := authv3.NewAuthorizationClient(r.dial(t, insecure.NewCredentials()))
	answer, err := client.Check(t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: http},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func raw(pairs ...string) *corev3.HeaderMap {
	all := &corev3.HeaderMap{}
	for i := 0; i < len(pairs); i += 2 {
		all.Headers = append(all.Headers, &corev3.HeaderValue{Key: pairs[i], RawValue: []byte(pairs[i+1])})
	}
	return all
}

func TestEnvoyIsAnswered(t *testing.T) {
	h := newHub(t)
	h.revoke(revocation.DomainToken, "bad")
	h.revoke(revocation.DomainOpaque, "opaque-bad")
	cfg := settings(t, h)
	cfg.Tokens.Query, cfg.Tokens.APIKeyHeader = "token", "Api-Key"
	r := start(t, cfg)
	for name, tc := range map[string]struct {
		http *authv3.AttributeContext_HttpRequest
		pass bool
	}{
		"good":                  {&authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/", Headers: map[string]string{"authorization": bearer(jwt("good"))}}, true},
		"none":                  {&authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/"}, true},
		"nothing at all":        {nil, true},
		"revoked":               {&authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/", Headers: map[string]string{"authorization": bearer(jwt("bad"))}}, false},
		"opaque":                {&authv3.AttributeContext_HttpRequest{Headers: map[string]string{"authorization": "bearer opaque-bad"}}, false},
		"upper case":            {&authv3.AttributeContext_HttpRequest{Headers: map[string]string{"API-KEY": jwt("bad")}}, false},
		"an underscore":         {&authv3.AttributeContext_HttpRequest{Headers: map[string]string{"api_key": jwt("bad")}}, false},
		"joined":                {&authv3.AttributeContext_HttpRequest{Headers: map[string]string{"authorization": bearer(jwt("good")) + "," + bearer(jwt("bad"))}}, false},
		"raw values":            {&authv3.AttributeContext_HttpRequest{HeaderMap: raw("authorization", bearer(jwt("good")), "authorization", bearer(jwt("bad")))}, false},
		"raw values, good":      {&authv3.AttributeContext_HttpRequest{HeaderMap: raw("authorization", bearer(jwt("good")))}, true},
		"values that are text":  {&authv3.AttributeContext_HttpRequest{HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: "api-key", Value: jwt("bad")}}}}, false},
		"raw, in upper case":    {&authv3.AttributeContext_HttpRequest{HeaderMap: raw("Authorization", bearer(jwt("bad")))}, false},
		"query in the path":     {&authv3.AttributeContext_HttpRequest{Path: "/x?token=" + jwt("bad")}, false},
		"query beside the path": {&authv3.AttributeContext_HttpRequest{Path: "/x", Query: "token=" + jwt("bad")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			answer := r.check(t, tc.http)
			if tc.pass {
				if answer.GetOkResponse() == nil || codes.Code(answer.GetStatus().GetCode()) != codes.OK {
					t.Errorf("got %v", answer)
				}
				return
			}
			denied := answer.GetDeniedResponse()
			if denied.GetStatus().GetCode() != 401 || denied.GetBody() != refusal || codes.Code(answer.GetStatus().GetCode()) == codes.OK {
				t.Errorf("got %v", answer)
			}
			headers := map[string]string{}
			for _, one := range denied.GetHeaders() {
				headers[one.GetHeader().GetKey()] = one.GetHeader().GetValue()
			}
			if len(headers) != 2 || headers["Content-Type"] != "application/json" || headers["WWW-Authenticate"] != `Bearer error="invalid_token"` {
				t.Errorf("headers: %v", headers)
			}
		})
	}
	if strings.Contains(r.log.String(), "opaque-bad") || strings.Contains(r.log.String(), jwt("bad")) {
		t.Errorf("a token is in the log: %s", r.log)
	}
}

// asIs sends bytes, and reads what protobuf can.
type asIs struct{ encoding.CodecV2 }

func (asIs) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

// A check that cannot be read is denied, not failed: a gateway may let those pass
// that fail, and a client can write what is no UTF-8 into its call.
func TestEnvoyIsDeniedWhatCannotBeRead(t *testing.T) {
	h := newHub(t)
	h.revoke(revocation.DomainToken, "bad")
	r := start(t, settings(t, h))
	check, err := proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
		Http: &authv3.AttributeContext_HttpRequest{Path: "/?xx", Headers: map[string]string{"authorization": bearer(jwt("bad"))}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, sent := range map[string][]byte{
		"no UTF-8":    bytes.Replace(check, []byte("/?xx"), []byte("/?\xff\xff"), 1),
		"no protobuf": []byte("\xff"),
		"nothing":     {},
	} {
		var answer authv3.CheckResponse
		err := r.dial(t, insecure.NewCredentials()).Invoke(t.Context(), authv3.Authorization_Check_FullMethodName, sent, &answer,
			grpc.ForceCodecV2(asIs{encoding.GetCodecV2("proto")}))
		if err != nil || answer.GetDeniedResponse().GetStatus().GetCode() != 401 {
			t.Errorf("%s: %v, %v", name, &answer, err)
		}
	}
}

func TestRevocationArrives(t *testing.T) {
	h := newHub(t)
	r := start(t, settings(t, h))
	call := &authv3.AttributeContext_HttpRequest{Headers: map[string]string{"authorization": bearer(jwt("a"))}}
	if r.check(t, call).GetOkResponse() == nil {
		t.Fatal("refused before it is revoked")
	}
	h.revoke(revocation.DomainToken, "a")
	eventually(t, "it is refused", func() bool { return r.check(t, call).GetDeniedResponse().GetStatus().GetCode() == 401 })
}

func TestForwardAuthAnswers(t *testing.T) {
	h := newHub(t)
	h.revoke(revocation.DomainToken, "bad")
	cfg := settings(t, h)
	cfg.Tokens.Cookie, cfg.Tokens.Query = "session", "token"
	r := start(t, cfg)
	base := "http://" + r.forwardAuth
	for name, tc := range map[string]struct {
		method, path string
		headers      []string
		code         int
	}{
		"none":                {"GET", "/", nil, 200},
		"good":                {"GET", "/", []string{"Authorization", bearer(jwt("good"))}, 200},
		"revoked":             {"GET", "/", []string{"Authorization", bearer(jwt("bad"))}, 401},
		"a second header":     {"GET", "/", []string{"Authorization", bearer(jwt("good")), "Authorization", bearer(jwt("bad"))}, 401},
		"any method":          {"DELETE", "/some/path", []string{"apikey", jwt("bad")}, 401},
		"cookie":              {"GET", "/", []string{"Cookie", "a=b; session=" + jwt("bad")}, 401},
		"query of nginx":      {"GET", "/_auth", []string{"X-Original-URI", "/x?token=" + jwt("bad")}, 401},
		"query of Traefik":    {"GET", "/", []string{"X-Forwarded-Uri", "/x?token=" + jwt("bad")}, 401},
		"query of its own":    {"GET", "/x?token=" + jwt("bad"), nil, 401},
		"query that is faked": {"GET", "/", []string{"X-Original-URI", "/", "X-Forwarded-Uri", "/x?token=" + jwt("bad")}, 401},
		"garbage":             {"GET", "/", []string{"Authorization", "Bearer a.b"}, 200}, // opaque
		"garbage JWT":         {"GET", "/", []string{"Authorization", "Bearer eyJ.b.c"}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := ask(t, tc.method, base+tc.path, tc.headers...)
			if resp.StatusCode != tc.code || (tc.code == 200) != (body == "") || tc.code == 401 && body != refusal {
				t.Errorf("got %d %q", resp.StatusCode, body)
			}
			resp.Header.Del("Date")
			resp.Header.Del("Content-Length")
			if tc.code == 200 && len(resp.Header) != 0 {
				t.Errorf("a call that passes has headers: %v", resp.Header)
			}
		})
	}
}

// A one-time token is used up whichever gateway asks, and whatever a client adds.
func TestOneTimeOverEveryFront(t *testing.T) {
	h := newHub(t)
	cfg := settings(t, h)
	cfg.OneTime = []config.OneTime{{Path: "/pay/*", Methods: []string{"POST"}, Scope: "OTT"}}
	r := start(t, cfg)
	base := "http://" + r.forwardAuth
	envoy := func(jti, method, path string) bool {
		return r.check(t, &authv3.AttributeContext_HttpRequest{
			Method: method, Path: path, Headers: map[string]string{"authorization": bearer(once(jti)), "x-request-id": "same"},
		}).GetOkResponse() != nil
	}
	over := func(jti, method, path string, headers ...string) bool {
		code, _ := r.get(t, base+path, append(headers, "Authorization", bearer(once(jti)), "X-Request-Id", "same")...)
		if method != http.MethodGet {
			resp, _ := ask(t, method, base+path, append(headers, "Authorization", bearer(once(jti)))...)
			code = resp.StatusCode
		}
		return code == http.StatusOK
	}
	if !envoy("a", "GET", "/pay/1") || !envoy("a", "POST", "/pay/1?x") || envoy("a", "POST", "/pay/2") || !envoy("a", "GET", "/pay/1") {
		t.Error("Envoy: a token passes twice, or not at all")
	}
	if over("a", "GET", "/", "X-Original-URI", "/pay/1", "X-Original-Method", "POST") {
		t.Error("nginx: a token that Envoy has used up passes")
	}
	if !over("b", "GET", "/", "X-Forwarded-Uri", "/pay/1", "X-Forwarded-Method", "POST", "X-Original-URI", "/x", "X-Original-Method", "GET") ||
		over("b", "GET", "/", "X-Forwarded-Uri", "/pay/1", "X-Forwarded-Method", "POST", "X-Original-URI", "/x", "X-Original-Method", "GET") {
		t.Error("Traefik: a client's own headers hide its call")
	}
	if !over("c", "GET", "/", "X-Original-URI", "/pay/1") || over("c", "GET", "/", "X-Original-URI", "/pay/1") {
		t.Error("without a method it is not used up")
	}
	if !over("d", "GET", "/_auth", "X-Original-URI", "/pay/1", "X-Original-Method", "GET") || h.claimID("d") != "" {
		t.Error("another method is used up")
	}
	joined := []string{"X-Original-URI", "/x, /pay/1,2", "X-Original-Method", "GET, POST"}
	if !over("f", "GET", "/", joined...) || over("f", "GET", "/", joined...) {
		t.Error("a call that two headers in one tell of is not used up")
	}
	if !over("e", "POST", "/pay/1") || over("e", "POST", "/pay/1") {
		t.Error("the request's own line is not used up")
	}
	ids := []string{h.claimID("a"), h.claimID("b"), h.claimID("c")}
	if ids[0] == ids[1] || ids[1] == ids[2] || len(ids[0]) < 16 || strings.Contains(strings.Join(ids, ""), "same") {
		t.Errorf("claim ids: %v", ids)
	}
}

func TestNobodyAnswersTheClaim(t *testing.T) {
	for policy, code := range map[string]int{config.Deny: http.StatusServiceUnavailable, config.Allow: http.StatusOK} {
		h := newHub(t)
		h.claims = make(chan chan struct{}) // nobody takes from it
		cfg := settings(t, h)
		cfg.OneTime = []config.OneTime{{Path: "/*", All: true}}
		cfg.Claims.OnUnreachable, cfg.Claims.Timeout = policy, config.Default().Claims.Timeout/10
		r := start(t, cfg)
		quickest := time.Minute
		for _, id := range []string{"a", "b", "c"} { // the machine may be busy
			began := time.Now()
			got, _ := r.get(t, "http://"+r.forwardAuth+"/", "Authorization", bearer(jwt(id)))
			quickest = min(quickest, time.Since(began))
			if got != code {
				t.Errorf("%s: got %d", policy, got)
			}
		}
		if quickest > 2*time.Second {
			t.Errorf("%s: answered after %s", policy, quickest)
		}
	}
}

func TestFrontsOverTLS(t *testing.T) {
	h := newHub(t)
	h.revoke(revocation.DomainToken, "bad")
	files := certificate(t)
	cfg := settings(t, h)
	cfg.ExtAuthz.TLS = tlsfiles.Server{Cert: files.Cert, Key: files.Key, ClientCA: files.Cert}
	cfg.ForwardAuth.TLS = cfg.ExtAuthz.TLS
	r := start(t, cfg)
	known, err := tlsfiles.Client{CA: files.Cert, Cert: files.Cert, Key: files.Key}.Config()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := tlsfiles.Client{CA: files.Cert}.Config()
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: known.Clone()}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+r.forwardAuth+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", bearer(jwt("bad")))
	resp, err := transport.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Fatalf("forward auth: %v, %v", resp, err)
	}
	_ = resp.Body.Close() // nothing is read
	if resp, err := (&http.Transport{TLSClientConfig: stranger.Clone()}).RoundTrip(req); err == nil {
		t.Errorf("forward auth answers a stranger: %v", resp.Status)
	}
	for name, tc := range map[string]struct {
		with credentials.TransportCredentials
		ok   bool
	}{"known": {credentials.NewTLS(known), true}, "stranger": {credentials.NewTLS(stranger), false}, "plaintext": {insecure.NewCredentials(), false}} {
		_, err := authv3.NewAuthorizationClient(r.dial(t, tc.with)).Check(t.Context(), &authv3.CheckRequest{})
		if (err == nil) != tc.ok {
			t.Errorf("ext_authz, %s: %v", name, err)
		}
	}
	if strings.Contains(r.log.String(), "http: ") && !strings.Contains(r.log.String(), "A connection has failed") {
		t.Errorf("net/http logs by itself: %s", r.log)
	}
}
