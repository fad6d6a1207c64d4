// Package forwardauth answers gateways that ask over HTTP: nginx (auth_request),
// Traefik and Caddy (forward auth), Envoy (HTTP ext_authz).
//
// The call is told of by headers, or is the request itself. Whatever is there
// counts: who adds a header of his own makes more of his tokens be looked at and
// used up, never fewer.
package forwardauth

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/sirupsen/logrus"

	"revocation-adapter/config/process"
	"revocation-adapter/enforcer/gate"
)

// Config says how calls are answered.
type Config struct {
	Decide         func(ctx context.Context, r gate.Request) gate.Answer
	OriginalURI    []string // headers that name the URI of the call
	OriginalMethod []string // headers that name its method
	TLS            *tls.Config
	Drain          time.Duration // how long requests may go on after the end
	Log            logrus.FieldLogger
}

// Server answers gateways.
type Server struct {
	cfg  Config
	http http.Server
}

const (
	headerTimeout = 10 * time.Second
	readTimeout   = time.Minute // with the body, and more than claims.timeout: at its end the call is cut off
	idleTimeout   = 2 * time.Minute
	maxHeaders    = 128 << 10 // bytes: a call has many tokens at most
	maxNamed      = 16        // URIs, and methods, that a call may be told of
)

// New returns a Server that answers nothing before Run.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg}
	s.http = http.Server{
		Handler: http.HandlerFunc(s.answer), MaxHeaderBytes: maxHeaders,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout,
	}
	return s
}

// Run answers on lis until ctx ends, and the requests of then.
func (s *Server) Run(ctx context.Context, lis net.Listener) error {
	if s.cfg.TLS != nil {
		lis = tls.NewListener(lis, s.cfg.TLS)
	}
	return process.ServeHTTP(ctx, &s.http, process.Listening{Listener: lis, Name: "forward_auth", Drain: s.cfg.Drain, Log: s.cfg.Log})
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	a := s.cfg.Decide(r.Context(), s.requestOf(r))
	for _, h := range a.Headers {
		w.Header().Set(h.Name, h.Value)
	}
	w.WriteHeader(a.Status)
	if _, err := io.WriteString(w, a.Body); err != nil {
		s.cfg.Log.WithError(err).Debug("An answer could not be sent")
	}
}

// requestOf takes the request itself, and every URI that its headers tell of with
// every method. If they tell of a URI and no method, it may be any.
func (s *Server) requestOf(r *http.Request) gate.Request {
	targets := values(r, s.cfg.OriginalURI, beginsTarget)
	methods := values(r, s.cfg.OriginalMethod, func(string) bool { return true })
	if len(methods) == 0 {
		methods = []string{""}
	}
	lines := []gate.Line{{Method: r.Method, Target: r.RequestURI}}
	if len(targets) > maxNamed || len(methods) > maxNamed {
		return gate.Request{Lines: lines, Header: gate.Headers(r.Header), Malformed: true}
	}
	for _, target := range targets {
		for _, method := range methods {
			lines = append(lines, gate.Line{Method: method, Target: target})
		}
	}
	return gate.Request{Lines: lines, Header: gate.Headers(r.Header)}
}
