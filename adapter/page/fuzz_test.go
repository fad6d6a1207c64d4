package page_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// Whatever a receipt is asked for by, the answer is one, or 400.
func FuzzReceiptQuery(f *testing.F) {
	for _, query := range []string{"", "version=1", "version=-1", "version=1&series=rules&state=approved", "version=1&series=tokens&state=revoked&tenant=a&tenant=", "version=%00", "version=18446744073709551616"} {
		f.Add(query)
	}
	s := newStage(f)
	v := s.signIn(f)
	mux := http.NewServeMux()
	s.page.Register(mux)
	f.Fuzz(func(t *testing.T, query string) {
		req := v.in(t).arrived(http.MethodGet, "/page/receipts", nil)
		req.URL.RawQuery = query
		answer := httptest.NewRecorder()
		mux.ServeHTTP(answer, req)
		values, _ := url.ParseQuery(query) // what can be read of it counts
		switch answer.Code {
		case http.StatusBadRequest:
		case http.StatusOK:
			if !strings.Contains(answer.Body.String(), `"done":true`) || !values.Has("version") {
				t.Errorf("%q is answered by %s", query, answer.Body)
			}
		default:
			t.Errorf("%q: %d", query, answer.Code)
		}
	})
}

// No header makes a write the page's own but those that it sends.
func FuzzPrincipal(f *testing.F) {
	s := newStage(f)
	v := s.signIn(f)
	for _, origin := range []string{"", "null", s.url, s.url + "/", s.url + "@evil.example", "http://evil.example#" + s.url, "HTTP" + s.url[4:], "//" + s.url[7:]} {
		f.Add(origin, v.token)
		f.Add(origin, "")
	}
	f.Fuzz(func(t *testing.T, origin, token string) {
		req := v.in(t).arrived(http.MethodPost, "/revocations", nil)
		req.Header["Origin"], req.Header["X-Csrf-Token"] = []string{origin}, []string{token}
		_, ok := s.page.Principal(req)
		host := strings.ToLower(origin)
		if ok && (token != v.token || !strings.HasPrefix(host, "http") || !strings.Contains(host, s.url[7:]) || strings.Contains(host, "evil")) {
			t.Errorf("origin %q and token %q are admitted", origin, token)
		}
	})
}
