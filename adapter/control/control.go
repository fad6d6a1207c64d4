// Package control is the adapter's control port: health, readiness, metrics, the
// ways in, and the endpoint of key managers.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"
)

// Status is what /readyz tells.
type Status struct {
	Ready   bool   `json:"ready"`
	Reason  string `json:"reason,omitempty"` // why not
	Version uint64 `json:"version"`          // of the log
	Revoked int    `json:"revoked"`          // keys that are refused
	Hub     string `json:"hub"`              // "connected" or "unreachable"

	Stale       bool   `json:"stale"`                  // the version was not confirmed for some seconds
	Confirmed   uint64 `json:"confirmed"`              // version that the hub's leader confirmed last
	ConfirmedAt string `json:"confirmed_at,omitempty"` // when, RFC 3339

	Note string `json:"note,omitempty"` // what could not be verified
}

// Config says what the control port tells.
type Config struct {
	Status  func() Status
	Metrics prometheus.Gatherer
	Sources func() any // what /sources tells, as JSON
	Notify  *Notify    // nil: there is no such endpoint
	Log     logrus.FieldLogger
}

// Server answers on the control port.
type Server struct{ http http.Server }

// How long a client may take, and a stop.
const (
	readTimeout = 10 * time.Second
	stopTimeout = time.Second
)

// New returns a server that answers nothing before Run.
func New(cfg Config) *Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "ok") //nolint:errcheck // the client is gone
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { ready(w, cfg) })
	mux.HandleFunc("GET /sources", func(w http.ResponseWriter, _ *http.Request) { tell(w, cfg, cfg.Sources()) })
	if cfg.Notify != nil {
		mux.Handle("POST "+notifyPath, newNotifier(*cfg.Notify, cfg.Log))
	}
	mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{ErrorLog: cfg.Log}))
	return &Server{http: http.Server{
		Handler: mux, ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, MaxHeaderBytes: 16 << 10,
	}}
}

func ready(w http.ResponseWriter, cfg Config) {
	s := cfg.Status()
	if !s.Ready {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	tell(w, cfg, s)
}

func tell(w http.ResponseWriter, cfg Config, what any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(what); err != nil {
		cfg.Log.WithError(err).Debug("An answer could not be sent")
	}
}

// Run answers on lis until ctx ends.
func (s *Server) Run(ctx context.Context, lis net.Listener) error {
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		stopped <- s.http.Shutdown(ctx)
	})
	err := s.http.Serve(lis)
	if stop() { // it failed by itself
		return fmt.Errorf("control port: %w", err)
	}
	if err := <-stopped; err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("control port: %w", err)
	}
	return ctx.Err()
}
