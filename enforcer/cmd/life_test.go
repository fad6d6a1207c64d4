package main

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"revocation-adapter/enforcer/cmd/config"
)

func TestNothingPassesBeforeTheSet(t *testing.T) {
	lis := listen(t)
	nobody := &hub{address: lis.Addr().String()} // takes connections, and says nothing
	defer lis.Close()                            //nolint:errcheck // nothing was served
	r := begin(t, guarded(t, nobody))
	if code, _ := r.get(t, "http://operator:hunter2@"+r.control+"/revoked_tokens?token=a"); code != http.StatusServiceUnavailable {
		t.Errorf("what is revoked is told before it is known: %d", code)
	}
	if code, body := r.get(t, "http://"+r.control+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "no complete set") {
		t.Errorf("readiness: %d %s", code, body)
	}
	if code, body := r.get(t, "http://"+r.forwardAuth+"/", "Authorization", bearer(jwt("a"))); code != http.StatusServiceUnavailable || strings.Contains(body, "900901") {
		t.Errorf("a token: %d %s", code, body)
	}
	if got := r.health(t); got != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health: %s", got)
	}
}

func (r *running) health(t *testing.T) grpc_health_v1.HealthCheckResponse_ServingStatus {
	t.Helper()
	client := grpc_health_v1.NewHealthClient(r.dial(t, insecure.NewCredentials()))
	answer, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "envoy.service.auth.v3.Authorization"})
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetStatus()
}

func TestHealthIsWatched(t *testing.T) {
	h := newHub(t)
	r := start(t, settings(t, h))
	if got := r.health(t); got != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health: %s", got)
	}
	client := grpc_health_v1.NewHealthClient(r.dial(t, insecure.NewCredentials()))
	if _, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "x"}); err == nil {
		t.Error("a service that does not exist is healthy")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	watch, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	first, err := watch.Recv()
	if err != nil || first.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("got %v, %v", first, err)
	}
	r.stop()
	if _, err := watch.Recv(); err == nil {
		if _, err = watch.Recv(); err == nil {
			t.Error("the watch goes on")
		}
	}
}

// What a gateway has asked before the end is answered, and operators are told.
func TestCallsAreAnsweredToTheirEnd(t *testing.T) {
	h := newHub(t)
	h.claims = make(chan chan struct{})
	cfg := settings(t, h)
	cfg.OneTime = []config.OneTime{{Path: "/*", All: true}}
	cfg.Claims.Timeout *= 5
	r := start(t, cfg)
	answers := make(chan int, 2)
	go func() {
		code, _ := r.get(t, "http://"+r.forwardAuth+"/", "Authorization", bearer(jwt("a")))
		answers <- code
	}()
	go func() {
		call := &authv3.AttributeContext_HttpRequest{Headers: map[string]string{"authorization": bearer(jwt("b"))}}
		answers <- map[bool]int{true: 200}[r.check(t, call).GetOkResponse() != nil]
	}()
	one, two := <-h.claims, <-h.claims
	began := time.Now()
	r.stop()
	eventually(t, "operators are told", func() bool {
		code, body := r.get(t, "http://"+r.control+"/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "the enforcer stops")
	})
	close(one)
	close(two)
	for range 2 {
		if code := <-answers; code != http.StatusOK {
			t.Errorf("a call that was under way: %d", code)
		}
	}
	err := <-r.ended
	r.ended <- err
	if took := time.Since(began); err != nil || took > 10*time.Second {
		t.Errorf("stopped with %v after %s", err, took)
	}
}

func TestWhoHoldsOnIsCutOff(t *testing.T) {
	h := newHub(t)
	h.claims = make(chan chan struct{})
	cfg := settings(t, h)
	cfg.OneTime = []config.OneTime{{Path: "/*", All: true}}
	cfg.Claims.Timeout *= 10
	r := start(t, cfg)
	client := authv3.NewAuthorizationClient(r.dial(t, insecure.NewCredentials()))
	cut := make(chan error, 1)
	go func() {
		_, err := client.Check(t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
				Headers: map[string]string{"authorization": bearer(jwt("a"))},
			}},
		}})
		cut <- err
	}()
	held := <-h.claims
	defer close(held)
	began := time.Now()
	r.stop()
	err := <-r.ended
	r.ended <- err
	if took := time.Since(began); err != nil || took < 3*time.Second || took > 15*time.Second {
		t.Errorf("stopped with %v after %s", err, took)
	}
	if err := <-cut; err == nil {
		t.Error("a call that never ended is answered")
	}
}
