package control_test

import (
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// BenchmarkRevoke is one revocation of a verified JWT, client included.
func BenchmarkRevoke(b *testing.B) {
	p := start(b, plan{})
	bodies := make([]string, b.N)
	for i := range bodies {
		bodies[i] = url.Values{"token": {p.token("bench-"+strconv.Itoa(i), nil)}, "token_type_hint": {"access_token"}}.Encode()
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128}}
	defer client.CloseIdleConnections()
	var next atomic.Int64
	b.SetParallelism(64)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, p.url+revoke, strings.NewReader(bodies[next.Add(1)-1]))
			fatal(b, err)
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.SetBasicAuth(owner, secret)
			resp, err := client.Do(req)
			fatal(b, err)
			_, err = io.Copy(io.Discard, resp.Body)
			fatal(b, err)
			_ = resp.Body.Close() // read to its end
			if resp.Header.Get("Revocation-Effect") != "revoked" {
				b.Error(resp.Status, resp.Header)
			}
		}
	})
}
