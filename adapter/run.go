package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"revocation-adapter/adapter/clients"
	"revocation-adapter/adapter/control"
	"revocation-adapter/adapter/issuers"
	"revocation-adapter/adapter/memory"
	"revocation-adapter/adapter/page"
	"revocation-adapter/config"
	"revocation-adapter/config/logformat"
	"revocation-adapter/config/process"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
	"revocation-adapter/xds"
)

func runCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the adapter until it is told to stop",
		Long: `Run the adapter. It logs to standard error, and stops on SIGINT or SIGTERM:
every gateway's stream then ends with UNAVAILABLE, so that it connects again.`,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			log, err := logformat.New(os.Stderr, cfg.Log.Level)
			if err != nil {
				return exitError{exitUsage, err}
			}
			return run(c.Context(), cfg, log)
		},
	}
}

// replica is the parts of a running adapter.
type replica struct {
	name        string // as long as the process lives
	cfg         config.Config
	log         *logrus.Logger
	metrics     *prometheus.Registry
	revocations *revocation.Log
	sources     *messaging.Sources
	clients     *clients.Registry
	issuers     *issuers.Set
	page        *page.Page
	server      *xds.Server

	hub  atomic.Pointer[hubParts]           // nil until the hub is open
	sync atomic.Pointer[messaging.FullSync] // nil until then, and without a control plane
}

// hubParts are those that need the hub.
type hubParts struct {
	hub      *messaging.Hub
	follower *messaging.Follower
	intake   *messaging.Intake
	claims   *messaging.Claims
	core     *control.Core
}

// How long a hub that failed is left alone: the first time, and at most, where it
// fails again and again.
const (
	beginAgainAfter  = time.Second
	beginAgainAtMost = 30 * time.Second
	servedWell       = time.Minute // a failure after so long is the first again
)

// run serves until ctx ends. When the hub's log was written anew, or its store
// failed, it begins again: every stream ends, and gateways come back.
func run(ctx context.Context, cfg config.Config, log *logrus.Logger) error {
	name, err := messaging.ReplicaName()
	if err != nil {
		return err
	}
	for pause := beginAgainAfter; ; pause = min(2*pause, beginAgainAtMost) {
		began := time.Now()
		err := serve(ctx, name, cfg, log)
		if !errors.Is(err, messaging.ErrRebased) && !errors.Is(err, messaging.ErrStoreFailed) {
			return err
		}
		if time.Since(began) > servedWell {
			pause = beginAgainAfter
		}
		log.WithError(err).WithField("in", pause).Warn("The adapter begins again")
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// serve builds the parts of the replica called name, joins them, and returns when
// all have stopped.
func serve(ctx context.Context, name string, cfg config.Config, log *logrus.Logger) error {
	xdsListener, err := listen(cfg.XDS.Listen, "xds.listen")
	if err != nil {
		return err
	}
	defer xdsListener.Close() //nolint:errcheck // closed already once it was served
	controlListener, err := listen(cfg.Control.Listen, "control.listen")
	if err != nil {
		return err
	}
	defer controlListener.Close() //nolint:errcheck // closed already once it was served
	controlTLS, err := serverTLS("control.tls", cfg.Control.TLS, log)
	if err != nil {
		return err
	}
	if controlTLS != nil {
		controlListener = tls.NewListener(controlListener, controlTLS)
	}

	r := &replica{
		name: name, cfg: cfg, log: log, metrics: prometheus.NewRegistry(),
		revocations: revocation.NewLog(time.Duration(cfg.Revocation.Grace)),
		sources:     messaging.NewSources(time.Now),
	}
	r.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		messaging.NewSourcesCollector(r.sources))
	r.metrics.MustRegister(r.readiness()...)
	if err := r.build(); err != nil {
		return err
	}
	api := control.New(control.Config{
		Status: r.status, Metrics: r.metrics, Sources: func() any { return r.sources.List() }, Notify: r.notify(),
		API: r.newAPI(), Page: r.page.Register, Log: log,
	})
	log.WithFields(logrus.Fields{
		"xds": xdsListener.Addr(), "control": controlListener.Addr(), "version": process.Version(),
	}).Info("The adapter listens")
	err = process.Together(ctx,
		r.followHub,
		r.issuers.Run,
		r.page.Run,
		func(ctx context.Context) error { return r.server.Run(ctx, xdsListener) },
		func(ctx context.Context) error { return api.Run(ctx, controlListener) },
	)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		log.Info("The adapter has stopped")
		return nil
	}
	return err
}

// build makes the parts that need no hub.
func (r *replica) build() (err error) {
	if r.server, err = r.newServer(); err != nil {
		return err
	}
	if r.clients, err = newClients(r.cfg); err != nil {
		return exitError{exitUsage, err}
	}
	if r.issuers, err = r.newIssuers(); err != nil {
		return err
	}
	r.page, err = r.newPage()
	return err
}

// followHub opens the hub and follows it. Until it is open, gateways and probes
// are told that the adapter is not ready.
func (r *replica) followHub(ctx context.Context) error {
	cfg, err := hubConfig(r.cfg, r.log)
	if err != nil {
		return err
	}
	cfg.Reconnected = func() { r.requestSync("hub connected") }
	hub, err := messaging.Open(ctx, cfg)
	if err != nil {
		return hubError(err)
	}
	defer hub.Close()
	r.log.WithField("hub", hub.Address()).Info("The hub is open")
	r.metrics.MustRegister(messaging.NewCollector(hub, r.revocations))
	measures := messaging.NewMetrics(r.metrics)
	follower := messaging.NewFollower(hub, r.revocations, measures)
	intake := messaging.NewIntake(hub, r.revocations, measures)
	intake.Reload = r.reload()
	sources, err := r.openSources(intake, hub)
	if err != nil {
		return err
	}
	claims := messaging.NewClaims(follower)
	core, runCore, err := r.newCore(hub, measures)
	if err != nil {
		return err
	}
	r.hub.Store(&hubParts{hub, follower, intake, claims, core})
	reading := memory.Reading
	if cfg.Embedded != nil {
		reading = memory.ReadingEmbedded
	}
	return process.Together(ctx, follower.Run, claims.Run, runCore,
		func(ctx context.Context) error { return hub.Guard(ctx, measures) },
		func(ctx context.Context) error {
			return after(ctx, follower.Complete(), func(ctx context.Context) error { return process.Together(ctx, sources...) })
		},
		func(ctx context.Context) error { return memory.Tune(ctx, reading, follower.Complete()) })
}

// after runs a part once begin is closed. Events wait until the log is known:
// before, nobody could say whether it is full.
func after(ctx context.Context, begin <-chan struct{}, run func(context.Context) error) error {
	select {
	case <-begin:
		return run(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *replica) newServer() (*xds.Server, error) {
	tlsConfig, err := serverTLS("xds.tls", r.cfg.XDS.TLS, r.log)
	if err != nil {
		return nil, err
	}
	return xds.New(xds.Config{
		Revocations: r.revocations, Grace: time.Duration(r.cfg.Revocation.Grace),
		NotReady: r.notReady, Last: r.lastVersion, Identity: r.identity, Complete: r.complete, Claims: r.claim,
		Label: r.cfg.XDS.Label, TLS: tlsConfig,
		MaxReceive: r.cfg.XDS.MaxReceiveBytes, MaxStreams: int64(r.cfg.XDS.MaxStreams),
		Log: r.log, Metrics: r.metrics, Now: now,
	})
}

func (r *replica) notReady() string {
	parts := r.hub.Load()
	if parts == nil {
		return "the hub is not open yet"
	}
	if why := parts.follower.NotReady(); why != "" {
		return why
	}
	if sync := r.sync.Load(); sync != nil && r.cfg.ControlPlane.RequiredForReadiness {
		return sync.NotReady()
	}
	return ""
}

func (r *replica) lastVersion(ctx context.Context) (uint64, error) {
	parts := r.hub.Load()
	if parts == nil {
		return 0, errors.New("the hub is not open yet")
	}
	return parts.hub.LastVersion(ctx)
}

// identity is that of the hub's log, for streams, which are refused before the hub
// is open.
func (r *replica) identity() string {
	if parts := r.hub.Load(); parts != nil {
		return parts.hub.Identity()
	}
	return ""
}

// complete says up to which version the log holds everything that the hub had
// stored at a time.
func (r *replica) complete() (version uint64, at time.Time) {
	if parts := r.hub.Load(); parts != nil {
		c, _ := parts.follower.Confirmed()
		return c.Version, c.Complete
	}
	return 0, time.Time{}
}

func (r *replica) status() control.Status {
	snapshot, why := r.revocations.Snapshot(), r.notReady()
	s := control.Status{
		Ready: why == "", Reason: why, Hub: "unreachable",
		Version: snapshot.Version(), Revoked: snapshot.Counts().Revoked(),
	}
	if parts := r.hub.Load(); parts != nil {
		if parts.hub.Connected() {
			s.Hub = "connected"
		}
		c, stale := parts.follower.Confirmed()
		s.Stale, s.Confirmed = stale, c.Version
		if c.Version > 0 {
			s.ConfirmedAt = c.Time.UTC().Format(time.RFC3339Nano)
		}
	}
	if r.cfg.Hub.Mode == config.ModeExternal {
		s.Note = "whether the external hub encrypts its store cannot be verified from here"
	}
	return s
}

func listen(address, key string) (net.Listener, error) {
	lis, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; is another adapter running?", key, err)
	}
	return lis, nil
}
