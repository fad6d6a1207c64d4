package page_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"revocation-adapter/revocation"
)

// api answers in the shapes of the control API, and appends to the log what it is
// asked to.
type api struct {
	stage   *stage
	tenants []string // whose all is that is changed

	mu      sync.Mutex
	asked   []asked
	letters []letter
}

// asked is a request that was admitted.
type asked struct{ Method, Path, Body string }

type letter struct {
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
	Subject  string    `json:"subject"`
	Reason   string    `json:"reason"`
}

func (a *api) register(mux *http.ServeMux) {
	for pattern, handle := range map[string]http.HandlerFunc{
		"POST /revocations":             a.revocations,
		"POST /revocations/explain":     a.explain,
		"GET /deadletters":              a.deadLetters,
		"GET /deadletters/{n}":          a.deadLetter,
		"POST /deadletters/{n}/replay":  a.dropLetter,
		"DELETE /deadletters/{n}":       a.dropLetter,
		"GET /which-nobody-has-allowed": func(http.ResponseWriter, *http.Request) {},
	} {
		mux.HandleFunc(pattern, a.guarded(handle))
	}
}

// guarded is how the control API accepts the page's session.
func (a *api) guarded(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, ok := a.stage.page.Principal(r); !ok {
			refuse(w, http.StatusUnauthorized, "Who is it?")
			return
		}
		next(w, r)
	}
}

func refuse(w http.ResponseWriter, code int, title string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "about:blank", "title": title, "status": code, "detail": "it is a test"}) // the client is gone
}

func (a *api) note(r *http.Request, body any) {
	text, _ := json.Marshal(body) // it was JSON before
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, asked{r.Method, r.URL.RequestURI(), string(text)})
}

// requests are those that were admitted to a path.
func (a *api) requests(path string) []asked {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(a.asked), func(r asked) bool { return r.Path != path })
}

type order struct {
	Tokens []map[string]string `json:"tokens,omitempty"`
	Rules  []map[string]string `json:"rules,omitempty"`
	State  string              `json:"state"`
	Reason string              `json:"reason,omitempty"`
	DryRun bool                `json:"dry_run,omitempty"`
}

func (a *api) revocations(w http.ResponseWriter, r *http.Request) {
	var o order
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
		refuse(w, http.StatusBadRequest, "The body is no JSON")
		return
	}
	a.note(r, o)
	if o.DryRun {
		tell(w, map[string]any{"new": 1, "already": 0, "expired": 0, "unknown_to_grants": 1, "gateways_concerned": 3})
		return
	}
	version := a.stage.version.Add(1)
	if err := a.stage.log.Append(version, o.revocation()); err != nil {
		refuse(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	a.stage.log.Publish(version)
	tell(w, map[string]any{"version": version, "event_id": "e1", "new": 1, "already": 0, "expired": 0, "took_ms": 3, "tenants": a.tenants})
}

func (o order) revocation() revocation.Revocation {
	r := revocation.Revocation{
		Domain: revocation.DomainToken, State: revocation.Revoked, Reason: o.Reason,
		Expiry: time.Now().Add(time.Hour).UnixMilli(), Lifetime: revocation.Dated,
	}
	if o.State == "approved" {
		r.State = revocation.Approved
	}
	if len(o.Rules) > 0 {
		r.Domain, r.Key = revocation.DomainRule, o.Rules[0]["claim"]+"="+o.Rules[0]["value"]
		r.Before = time.Now().UnixMilli()
	} else if r.Key = o.Tokens[0]["jti"]; r.Key == "" {
		r.Key = "jti-of-" + o.Tokens[0]["token"][:8]
	}
	r.Digest = revocation.DigestOf(r.Domain, r.Key)
	return r
}

func (a *api) explain(w http.ResponseWriter, r *http.Request) {
	var q struct{ Token, Key string }
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		refuse(w, http.StatusBadRequest, "The body is no JSON")
		return
	}
	a.note(r, q)
	if q.Key == "of-a-rule" {
		tell(w, map[string]any{"key": q.Key, "domain": "token", "state": "revoked", "rules": []string{"azp=stolen"}})
		return
	}
	if q.Key == "of-one-call" {
		tell(w, map[string]any{"key": q.Key, "domain": "token", "state": "used"})
		return
	}
	c, found := a.stage.log.Lookup(q.Key)
	if !found {
		tell(w, map[string]any{"key": q.Key, "domain": "token", "state": "none"})
		return
	}
	tell(w, map[string]any{
		"key": q.Key, "domain": "token", "state": c.State.String(), "active_until": time.UnixMilli(c.Expiry), "version": c.Version,
		"time": time.Now(), "source": "api", "actor": "alice", "reason": "stolen laptop", "event_id": "e1",
		"events":   []map[string]any{{"id": "e1", "time": time.Now(), "state": "revoked", "source": "api", "actor": "alice", "reason": "stolen laptop"}},
		"gateways": map[string]any{"enforced": 3, "pending": []string{}, "unreachable": []string{"gw-7"}, "not_concerned": 1, "cannot": 0},
	})
}

func (a *api) list() []letter {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.letters)
}

// bury adds a dead letter.
func (a *api) bury(reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.letters = append(a.letters, letter{uint64(len(a.letters) + 1), time.Now(), "tokenRevocation", reason})
}

func (a *api) deadLetters(w http.ResponseWriter, _ *http.Request) {
	all := a.list()
	tell(w, map[string]any{"dead_letters": all[:min(len(all), 100)]})
}

func (a *api) deadLetter(w http.ResponseWriter, r *http.Request) {
	for _, l := range a.list() {
		if r.PathValue("n") == strconv.FormatUint(l.Sequence, 10) {
			tell(w, map[string]any{"sequence": l.Sequence, "time": l.Time, "subject": l.Subject, "reason": l.Reason, "event": []byte("<b>hello</b> \u00e9")})
			return
		}
	}
	refuse(w, http.StatusNotFound, "There is no such dead letter")
}

func (a *api) dropLetter(w http.ResponseWriter, r *http.Request) {
	a.note(r, nil)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.letters = slices.DeleteFunc(a.letters, func(l letter) bool { return strings.Contains(r.URL.Path, fmt.Sprintf("/%d", l.Sequence)) })
	w.WriteHeader(http.StatusNoContent)
}

func tell(w http.ResponseWriter, what any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(what) // the client is gone
}
