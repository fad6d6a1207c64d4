package page

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"revocation-adapter/config/throttle"
)

// The cookie of a session. With the prefix browsers take it from TLS alone, and
// from no other host.
const (
	cookieName       = "revocation-page"
	secureCookieName = "__Host-" + cookieName
)

const (
	maxForm     = 4 << 10 // bytes of a sign-in form
	retrySignIn = "5"     // seconds, when credentials cannot be checked
)

// answer is what the page's script is told of its session.
type answer struct {
	Client string `json:"client"`          // empty: nobody has signed in
	Token  string `json:"token,omitempty"` // that writes carry
	Idle   int    `json:"idle_seconds,omitempty"`
}

// signIn begins a session. The form has the client's id and secret.
func (p *Page) signIn(w http.ResponseWriter, r *http.Request) {
	if !sameOrigin(r) {
		p.refuse(w, problem{http.StatusForbidden, "Signing in is for this page alone", "the request comes from another site"})
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		p.refuse(w, problem{http.StatusBadRequest, "The form cannot be read", ""})
		return
	}
	id := r.PostForm.Get("client_id")
	from := throttle.From(r)
	secret := p.secretOf(id) // before it is compared
	if why := p.admit(r, from, id); why.status != 0 {
		if why.status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", why.detail)
			why.detail = "try again in " + why.detail + " seconds"
		}
		if why.status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", retrySignIn)
		}
		p.refuse(w, why)
		return
	}
	p.cfg.Log.WithField("client", id).WithField("from", from).Info("An operator has signed in")
	p.welcome(w, r, who{id, secret})
}

// who has signed in, with what Config.Secret said of it.
type who struct{ client, secret string }

// welcome gives a client a session, in place of the one that its browser had.
func (p *Page) welcome(w http.ResponseWriter, r *http.Request, in who) {
	if _, old := p.session(r); old != nil {
		p.sessions.end(old)
	}
	id := p.sessions.begin(in.client, in.secret)
	http.SetCookie(w, p.cookie(r, id))
	p.tell(w, answer{in.client, tokenOf(id), int(p.cfg.Idle / time.Second)})
}

// admit says why a client is not let in; a status of 0 means that it is.
func (p *Page) admit(r *http.Request, from, id string) problem {
	if wait := p.guesses.try(from); wait > 0 {
		return problem{http.StatusTooManyRequests, "Too many tries from this address", strconv.Itoa(wait)}
	}
	select {
	case p.checking <- struct{}{}:
		defer func() { <-p.checking }()
	case <-r.Context().Done():
		return problem{http.StatusServiceUnavailable, "Nobody waits for the answer", ""}
	}
	roles, err := p.cfg.Authenticate(r.Context(), from, id, r.PostForm.Get("client_secret"))
	switch {
	case errors.Is(err, ErrCannotTell):
		p.cfg.Log.WithError(err).Warn("Nobody can sign in")
		return problem{http.StatusServiceUnavailable, "Credentials cannot be checked now", "try again in a moment"}
	case err != nil:
		// Not who: what stands in that field may be the secret.
		p.cfg.Log.WithField("from", from).Warn("Signing in has failed")
		return problem{http.StatusUnauthorized, "Client id or secret is wrong", ""}
	case !slices.Contains(roles, RoleOperator):
		return problem{http.StatusForbidden, "This client is no operator", "its roles do not include " + RoleOperator}
	}
	p.guesses.succeeded(from)
	return problem{}
}

// whoIsIt answers 200 to everybody: that nobody has signed in is no fault.
func (p *Page) whoIsIt(w http.ResponseWriter, r *http.Request) {
	id, s := p.session(r)
	if s == nil {
		p.tell(w, answer{})
		return
	}
	p.sessions.touch(s)
	p.tell(w, answer{s.client, tokenOf(id), int(p.cfg.Idle / time.Second)})
}

func (p *Page) signOut(w http.ResponseWriter, r *http.Request) {
	client, ok := p.Principal(r)
	if !ok {
		p.refuse(w, problem{http.StatusUnauthorized, "Nobody has signed in", ""})
		return
	}
	if _, s := p.session(r); s != nil {
		p.sessions.end(s)
	}
	gone := p.cookie(r, "")
	gone.MaxAge = -1
	http.SetCookie(w, gone)
	p.cfg.Log.WithField("client", client).Info("An operator has signed out")
	w.WriteHeader(http.StatusNoContent)
}

// cookie goes back over TLS alone, except to a page on this machine without it.
func (p *Page) cookie(r *http.Request, id string) *http.Cookie {
	c := &http.Cookie{
		Name: secureCookieName, Value: id, Path: "/", Secure: true,
		HttpOnly: true, SameSite: http.SameSiteStrictMode,
	}
	if onLoopback(r) {
		c.Name, c.Secure = cookieName, false
	}
	return c
}

// onLoopback says whether the browser has the page from its own machine, without
// TLS.
func onLoopback(r *http.Request) bool {
	if r.TLS != nil {
		return false
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = strings.Trim(r.Host, "[]")
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// problem is an error as RFC 9457 has it.
type problem struct {
	status        int
	title, detail string
}

func (p *Page) refuse(w http.ResponseWriter, why problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(why.status)
	p.encode(w, map[string]any{"type": "about:blank", "title": why.title, "status": why.status, "detail": why.detail})
}

func (p *Page) tell(w http.ResponseWriter, what any) {
	w.Header().Set("Content-Type", "application/json")
	p.encode(w, what)
}

func (p *Page) encode(w http.ResponseWriter, what any) {
	if err := json.NewEncoder(w).Encode(what); err != nil {
		p.cfg.Log.WithError(err).Debug("An answer could not be sent")
	}
}
