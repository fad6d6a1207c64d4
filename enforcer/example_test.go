package enforcer_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"revocation-adapter/enforcer"
)

// guard lets a call pass whose bearer token is not revoked. That the token is
// genuine, it does not check.
func guard(e *enforcer.Enforcer, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		token, err := e.Parse(raw)
		if !bearer || err != nil || e.Check(token).Verdict != enforcer.Pass {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			http.Error(w, "Invalid Credentials", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// In front of a handler. No adapter listens here, so that nothing is known, and
// everything is refused.
func Example() {
	e, err := enforcer.New(enforcer.Config{
		Adapters:     []string{"127.0.0.1:1"}, // their xDS ports
		Instance:     "gateway-7",
		Grace:        10 * time.Minute, // as the adapters have it
		MaxStaleness: 5 * time.Minute,
		OnStale:      enforcer.Deny,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = e.Run(ctx) }) // it ends with ctx, and says no more than that

	api := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	call := httptest.NewRequest(http.MethodGet, "/", nil)
	call.Header.Set("Authorization", "Bearer 3f8a8a1c-0b52-4f0a-b2d5-5b1f8e1f2a77")
	answer := httptest.NewRecorder()
	guard(e, api).ServeHTTP(answer, call)
	fmt.Println(answer.Code, e.NotReady())

	stop()
	running.Wait()
	// Output: 401 no complete set of revocations has come yet
}
