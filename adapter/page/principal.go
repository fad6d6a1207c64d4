package page

import (
	"crypto/hmac"
	"net/http"
	"net/url"
)

// The headers of requests in a session.
const (
	tokenHeader      = "X-CSRF-Token"
	unattendedHeader = "X-Unattended" // the page asks by itself: that keeps no session alive
)

// Principal returns the client in whose session a request is made, if there is
// one. A request that may change something must come from the page itself: its
// Origin is ours, and it carries the session's token.
func (p *Page) Principal(r *http.Request) (client string, ok bool) {
	id, s := p.session(r)
	if s == nil {
		return "", false
	}
	if writes(r.Method) && !fromPage(r, id) {
		return "", false
	}
	if r.Header.Get(unattendedHeader) == "" {
		p.sessions.touch(s)
	}
	return s.client, true
}

// fromPage says whether the page sent a write in the session with an id.
func fromPage(r *http.Request, id string) bool {
	return sameOrigin(r) && hmac.Equal([]byte(r.Header.Get(tokenHeader)), []byte(tokenOf(id)))
}

func writes(method string) bool { return method != http.MethodGet && method != http.MethodHead }

// session returns the session of a request, and its id. A request that says it
// comes from elsewhere has none.
func (p *Page) session(r *http.Request) (id string, s *session) {
	if r.Header.Get("Origin") != "" && !sameOrigin(r) {
		return "", nil
	}
	name := secureCookieName
	if onLoopback(r) {
		name = cookieName
	}
	cookie, err := r.Cookie(name)
	if err != nil {
		return "", nil
	}
	if s = p.sessions.find(cookie.Value); s != nil && !p.admitted(s) {
		p.sessions.end(s)
		return "", nil
	}
	return cookie.Value, s
}

// admitted says whether the client of a session may still go on with it.
func (p *Page) admitted(s *session) bool {
	return (p.cfg.Operator == nil || p.cfg.Operator(s.client)) && s.secret == p.secretOf(s.client)
}

func (p *Page) secretOf(client string) string {
	if p.cfg.Secret == nil {
		return ""
	}
	return p.cfg.Secret(client)
}

// sameOrigin says whether the page itself has sent a request. Browsers send the
// header with every write, and scripts cannot change it.
func sameOrigin(r *http.Request) bool {
	origin, err := url.Parse(r.Header.Get("Origin"))
	if err != nil || origin.Host == "" || origin.Host != r.Host {
		return false
	}
	// Behind a proxy that ends TLS the browser's scheme is not ours.
	return origin.Scheme == "https" || origin.Scheme == "http" && r.TLS == nil
}
