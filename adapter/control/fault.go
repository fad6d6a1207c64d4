package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/sirupsen/logrus"
)

// fault is why a call is not served. What it says goes to the client: nothing of a
// token or secret is in it.
type fault struct {
	status int
	code   string // of RFC 6749, 5.2, and RFC 7009, 2.2.1
	detail string
	wait   int      // seconds until it may be tried again; 0: it is not said
	more   []string // one by one, where several things are wrong
}

func (f *fault) Error() string { return f.detail }

func invalid(detail string) error {
	return &fault{status: http.StatusBadRequest, code: "invalid_request", detail: detail}
}

func unauthorized(detail string) error {
	return &fault{status: http.StatusUnauthorized, code: "invalid_client", detail: detail}
}

func forbidden(detail string) error {
	return &fault{status: http.StatusForbidden, code: "unauthorized_client", detail: detail}
}

func notFound(detail string) error {
	return &fault{status: http.StatusNotFound, code: "invalid_request", detail: detail}
}

func tooLong(limit int) error {
	return &fault{
		status: http.StatusRequestEntityTooLarge, code: "invalid_request",
		detail: fmt.Sprintf("the body is larger than %d bytes", limit),
	}
}

func tooMany(seconds int, detail string) error {
	return &fault{status: http.StatusTooManyRequests, code: "temporarily_unavailable", detail: detail, wait: seconds}
}

func unavailable(detail string) error {
	return &fault{status: http.StatusServiceUnavailable, code: "temporarily_unavailable", detail: detail, wait: 2}
}

// faultOf is what a client is told of an error. What is not meant for it stays
// here.
func faultOf(err error) *fault {
	var f *fault
	if errors.As(err, &f) {
		return f
	}
	_ = errors.As(unavailable("it cannot be done now: try again"), &f) // it is one
	return f
}

// problem is RFC 9457's.
type problem struct {
	Type   string   `json:"type"`
	Title  string   `json:"title"`
	Status int      `json:"status"`
	Detail string   `json:"detail,omitempty"`
	Errors []string `json:"errors,omitempty"`
}

type oauthError struct {
	Error       string `json:"error"`
	Description string `json:"error_description,omitempty"`
}

// write answers with the fault: as OAuth has it, or as a problem.
func (f *fault) write(w http.ResponseWriter, oauth bool, log logrus.FieldLogger) {
	h := w.Header()
	if f.wait > 0 {
		h.Set("Retry-After", strconv.Itoa(f.wait))
	}
	if f.status == http.StatusUnauthorized && h.Get("WWW-Authenticate") == "" {
		h.Set("WWW-Authenticate", `Basic realm="revocation-adapter", charset="UTF-8"`)
	}
	var body any = problem{"about:blank", http.StatusText(f.status), f.status, f.detail, f.more}
	h.Set("Content-Type", "application/problem+json")
	if oauth {
		body = oauthError{f.code, f.detail}
		h.Set("Content-Type", "application/json")
	}
	w.WriteHeader(f.status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		log.WithError(err).Debug("An answer could not be sent")
	}
}

// routed answers what no route takes as every other fault is answered.
func routed(mux *http.ServeMux, log logrus.FieldLogger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		refused := &statusOnly{ResponseWriter: w}
		h.ServeHTTP(refused, r)
		f := &fault{status: refused.status, code: "invalid_request", detail: "there is no such path: see /openapi.yaml"}
		if allow := w.Header().Get("Allow"); allow != "" {
			f.detail = "the method must be one of " + allow
		}
		f.write(w, strings.HasPrefix(r.URL.Path, "/oauth2/"), log)
	})
}

// statusOnly notes with which status a request is answered. The headers are set, no
// body is sent.
type statusOnly struct {
	http.ResponseWriter
	status int
}

func (s *statusOnly) WriteHeader(status int) { s.status = status }

func (s *statusOnly) Write(body []byte) (int, error) { return len(body), nil }

func quoted(text string) string { return fmt.Sprintf("%.64q", text) }
