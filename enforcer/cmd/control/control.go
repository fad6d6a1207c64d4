// Package control is the port of the enforcer's process for operators: health,
// readiness, freshness, metrics, and what is revoked.
package control

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"iter"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"

	"revocation-adapter/config/basicauth"
	"revocation-adapter/config/process"
	"revocation-adapter/enforcer"
)

// Set is what is known to be revoked: *enforcer.Enforcer.
type Set interface {
	Freshness() enforcer.Freshness
	Check(t enforcer.Token) enforcer.Decision
	Revoked() iter.Seq[enforcer.Listed]
}

// Config says what the control port tells.
type Config struct {
	Set         Set
	NotReady    func() string // why calls should not be sent here, "" when they may
	Metrics     prometheus.Gatherer
	Credentials basicauth.Credentials // for /revoked_tokens, which without a name does not exist
	TLS         *tls.Config
	Log         logrus.FieldLogger
}

// Status is what /status and /readyz tell.
type Status struct {
	Ready      bool   `json:"ready"`
	Reason     string `json:"reason,omitempty"`      // why not
	Version    uint64 `json:"version"`               // of the adapters' log, that the set holds
	CompleteAt string `json:"complete_at,omitempty"` // everything that the hub had stored by then is in the set, RFC 3339
	Stale      bool   `json:"stale"`
}

// Server answers on the control port.
type Server struct {
	cfg  Config
	http http.Server
}

// How long a client may take, and a stop.
const (
	readTimeout = 10 * time.Second
	stopTimeout = time.Second
	listTimeout = 5 * time.Minute // to take a list of millions
)

// New returns a server that answers nothing before Run.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "ok") //nolint:errcheck // the client is gone
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { s.ready(w) })
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { s.tell(w, http.StatusOK, s.status()) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{ErrorLog: cfg.Log}))
	if cfg.Credentials.Username != "" {
		mux.HandleFunc("/revoked_tokens", s.guarded(basicauth.New(cfg.Credentials, "enforcer", cfg.Log)))
	}
	s.http = http.Server{
		Handler: mux, ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, WriteTimeout: listTimeout,
		MaxHeaderBytes: 128 << 10, // a question may hold a token
	}
	return s
}

// Run answers on lis until ctx ends.
func (s *Server) Run(ctx context.Context, lis net.Listener) error {
	if s.cfg.TLS != nil {
		lis = tls.NewListener(lis, s.cfg.TLS)
	}
	return process.ServeHTTP(ctx, &s.http, process.Listening{Listener: lis, Name: "control", Drain: stopTimeout, Log: s.cfg.Log})
}

func (s *Server) status() Status {
	f, why := s.cfg.Set.Freshness(), s.cfg.NotReady()
	status := Status{Ready: why == "", Reason: why, Version: f.Version, Stale: f.Stale}
	if !f.Complete.IsZero() {
		status.CompleteAt = f.Complete.UTC().Format(time.RFC3339Nano)
	}
	return status
}

func (s *Server) ready(w http.ResponseWriter) {
	status := s.status()
	code := http.StatusOK
	if !status.Ready {
		code = http.StatusServiceUnavailable
	}
	s.tell(w, code, status)
}

func (s *Server) tell(w http.ResponseWriter, code int, what any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(what); err != nil {
		s.cfg.Log.WithError(err).Debug("An answer could not be sent")
	}
}
