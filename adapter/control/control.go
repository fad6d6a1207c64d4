// Package control is the adapter's control port: health, readiness, metrics, the
// ways in, the endpoint of key managers, and the control API: revocation (RFC
// 7009), re-approval, introspection (RFC 7662), grants, lists of revocations with
// receipts, and what operators ask. docs/control-api.md
//
// What it answers for is stored: no call that changes something is answered with
// success before the hub has it. No token is in an answer that its caller has not
// sent, in a log line or in the audit.
package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"

	"revocation-adapter/config/process"
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
	API     *API       // nil: there is no control API
	// Page adds the operator's page; nil: there is none.
	Page func(*http.ServeMux)
	Log  logrus.FieldLogger
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
	if cfg.API != nil {
		for pattern, handler := range newAPI(*cfg.API).routes() {
			mux.Handle(pattern, handler)
		}
	}
	mux.HandleFunc("GET /openapi.yaml", serveOpenAPI)
	if cfg.Page != nil {
		cfg.Page(mux)
	}
	mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{ErrorLog: cfg.Log}))
	return &Server{http: http.Server{
		Handler: guarded(routed(mux, cfg.Log)), ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, MaxHeaderBytes: 16 << 10,
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
	return process.ServeHTTP(ctx, &s.http, process.Listening{Listener: lis, Name: "control port", Drain: stopTimeout})
}
