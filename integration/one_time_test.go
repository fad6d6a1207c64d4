package integration_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"revocation-adapter/integration/stack"
)

// How often, and by whom, a one-time token is used at the same time.
const (
	oneTimeGateways = 8
	oneTimeCalls    = 200 // at each
	oneTimeRounds   = 200
)

// oneTimePay gives claims time: the machine does other things too.
const oneTimePay = "[log]\nlevel = \"warn\"\n[claims]\ntimeout = \"20s\"\n[[one_time]]\npath = \"/pay/*\"\nscope = \"OTT\"\n"

// Every call says the same of itself, x-request-id included.
func TestOneTimeExactlyOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("320,000 calls")
	}
	a, s := startAdapter(t), newSigner(t)
	var gateways []*stack.Enforcer
	for range oneTimeGateways {
		gateways = append(gateways, startEnforcer(t, oneTimePay, a))
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: oneTimeCalls}}
	defer client.CloseIdleConnections()
	for round := range oneTimeRounds {
		token := s.token(fmt.Sprint("once-", round), map[string]any{"scope": "default OTT"})
		if passed, refused := useAtOnce(t, client, gateways, token); passed != 1 || passed+refused != oneTimeGateways*oneTimeCalls {
			t.Fatalf("round %d: %d calls passed, %d got 401", round, passed, refused)
		}
	}
}

// useAtOnce makes all calls of a round and counts those that passed, and those
// that were rejected.
func useAtOnce(t *testing.T, client *http.Client, gateways []*stack.Enforcer, token string) (passed, refused int64) {
	t.Helper()
	var all sync.WaitGroup
	var ok, no atomic.Int64
	begin := make(chan struct{})
	for _, g := range gateways {
		for range oneTimeCalls {
			all.Go(func() {
				<-begin
				switch status := pay(t.Context(), client, g.ForwardAuth, token); status {
				case http.StatusOK:
					ok.Add(1)
				case http.StatusUnauthorized:
					no.Add(1)
				default:
					t.Errorf("a call got %d", status)
				}
			})
		}
	}
	close(begin)
	all.Wait()
	return ok.Load(), no.Load()
}

func pay(ctx context.Context, client *http.Client, address, token string) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return 0
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("X-Original-URI", "/pay/17")
	req.Header.Set("X-Original-Method", http.MethodPost)
	req.Header.Set("X-Request-Id", "444d2f9b-57d8-4245-bef2-3f8d824741c3")
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, resp.Body) // the status is all that counts
	_ = resp.Body.Close()                 // read to its end
	return resp.StatusCode
}

func TestOneTimeRoutes(t *testing.T) {
	a, s := startAdapter(t), newSigner(t)
	e := startEnforcer(t, s.section()+`
[[one_time]]
path = "/pay/*"
methods = ["POST"]
scope = "OTT"
[[one_time]]
path = "/vote"
all = true
[claims]
timeout = "5s"
`, a)
	call := func(method, path, token string) answer {
		return get(t, e.ForwardAuth, "/check", "X-Original-URI", path, "X-Original-Method", method, "Authorization", "Bearer "+token)
	}
	once := s.token("once", map[string]any{"scope": "OTT"})
	for range 2 {
		call(http.MethodGet, "/pay/1", once).passed(t, "another method")
		call(http.MethodPost, "/orders", once).passed(t, "another path")
	}
	call(http.MethodPost, "/pay/1", once).passed(t, "its one call")
	call(http.MethodPost, "/x/..//%70ay/1", once).rejected(t, "the second, another spelling")
	used := becomes(t, http.StatusUnauthorized, func() answer { return call(http.MethodGet, "/orders", once) })
	used.rejected(t, "used up, it is revoked everywhere, a tenth of a second later")
	many := s.token("many", nil)
	for range 2 {
		call(http.MethodPost, "/pay/1", many).passed(t, "without the scope")
	}
	call(http.MethodGet, "/vote", many).passed(t, "every token counts once here")
	call(http.MethodGet, "/vote", many).rejected(t, "the second vote")
	a.command(t, "approve", many)
	becomes(t, http.StatusOK, func() answer { return call(http.MethodGet, "/orders", many) })
	call(http.MethodGet, "/vote", many).passed(t, "approved, it counts once more")
	call(http.MethodGet, "/vote", many).rejected(t, "and no more")

	a.stop(t)
	late := s.token("late", nil)
	if got := call(http.MethodGet, "/vote", late); got.status/100 == 2 {
		t.Error("a one-time call passes while no adapter can say that it is the first")
	}
	call(http.MethodGet, "/orders", late).passed(t, "elsewhere")
	a.start(t)
	a.awaitReady(t)
	becomes(t, http.StatusOK, func() answer { return call(http.MethodGet, "/vote", late) })
	call(http.MethodGet, "/vote", late).rejected(t, "again")
}

// What Envoy asks, and what it is told.
func TestExtAuthz(t *testing.T) {
	a, s := startAdapter(t), newSigner(t)
	e := startEnforcer(t, s.section()+"[tokens]\nmissing = \"deny\"\n", a)
	conn, err := grpc.NewClient(e.ExtAuthz, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // nothing depends on how
	check := func(headers map[string]string) *auth.CheckResponse {
		t.Helper()
		resp, err := auth.NewAuthorizationClient(conn).Check(t.Context(), &auth.CheckRequest{Attributes: &auth.AttributeContext{
			Request: &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{Method: "GET", Path: "/orders?x=1", Headers: headers}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	passes := func(headers map[string]string) bool { return check(headers).GetStatus().GetCode() == int32(codes.OK) }
	token, key := s.token("token", nil), s.key("key")
	both := map[string]string{"authorization": "Bearer " + token, "apikey": key}
	if !passes(both) {
		t.Error("a call with two valid tokens is refused")
	}
	a.command(t, "revoke", key)
	eventually(t, "the key is refused", func() bool { return !passes(both) })
	denied := check(both).GetDeniedResponse()
	if denied.GetStatus().GetCode() != http.StatusUnauthorized || denied.GetBody() != rejection {
		t.Errorf("got %v", denied)
	}
	headers := map[string]string{}
	for _, h := range denied.GetHeaders() {
		headers[http.CanonicalHeaderKey(h.GetHeader().GetKey())] = h.GetHeader().GetValue()
	}
	if headers["Www-Authenticate"] != `Bearer error="invalid_token"` || headers["Content-Type"] != "application/json" {
		t.Errorf("headers %v", headers)
	}
	if passes(nil) || passes(map[string]string{"authorization": "Bearer eyJhbGciOiJub25lIn0.x.y"}) {
		t.Error("a call without a token, or with garbage, passes")
	}
}
