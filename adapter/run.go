package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"revocation-adapter/adapter/control"
	"revocation-adapter/config"
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
			log, err := newLogger(os.Stderr, cfg.Log.Level)
			if err != nil {
				return exitError{exitUsage, err}
			}
			return run(c.Context(), cfg, log)
		},
	}
}

// run builds the parts, joins them, and returns when all have stopped.
func run(ctx context.Context, cfg config.Config, log *logrus.Logger) error {
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

	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	hub, err := messaging.Open(ctx, hubConfig(cfg, log, reg))
	if err != nil {
		return err
	}
	defer hub.Close()

	revocations := revocation.NewLog(time.Duration(cfg.Revocation.Grace))
	reg.MustRegister(messaging.NewCollector(hub, revocations))
	measures := messaging.NewMetrics(reg)
	listener := messaging.NewListener(hub, revocations, measures)
	follower := messaging.NewFollower(hub, revocations, measures)
	server, err := newServer(cfg, log, reg, hub, follower, revocations)
	if err != nil {
		return err
	}
	api := control.New(control.Config{
		Status:  func() control.Status { return readiness(cfg, hub, follower, revocations) },
		Metrics: reg, Log: log,
	})
	if controlListener, err = secure(controlListener, cfg.Control.TLS); err != nil {
		return exitError{exitUsage, fmt.Errorf("control.tls: %w", err)}
	}
	log.WithFields(logrus.Fields{
		"hub": hubName(cfg, hub), "xds": xdsListener.Addr(), "control": controlListener.Addr(), "version": buildVersion(),
	}).Info("The adapter listens")
	err = together(ctx,
		follower.Run, listener.Run,
		func(ctx context.Context) error { return server.Run(ctx, xdsListener) },
		func(ctx context.Context) error { return api.Run(ctx, controlListener) },
	)
	if err == nil {
		log.Info("The adapter stops")
	}
	return err
}

func newServer(cfg config.Config, log *logrus.Logger, reg prometheus.Registerer, hub *messaging.Hub,
	follower *messaging.Follower, revocations *revocation.Log,
) (*xds.Server, error) {
	tlsConfig, err := serverTLS(cfg.XDS.TLS)
	if err != nil {
		return nil, exitError{exitUsage, fmt.Errorf("xds.tls: %w", err)}
	}
	return xds.New(xds.Config{
		Revocations: revocations, Grace: time.Duration(cfg.Revocation.Grace),
		NotReady: follower.NotReady, Last: hub.LastVersion,
		Label: cfg.XDS.Label, TLS: tlsConfig,
		MaxReceive: cfg.XDS.MaxReceiveBytes, MaxStreams: int64(cfg.XDS.MaxStreams),
		Log: log, Metrics: reg, Now: time.Now,
	})
}

func readiness(cfg config.Config, hub *messaging.Hub, follower *messaging.Follower, revocations *revocation.Log) control.Status {
	snapshot, why := revocations.Snapshot(), follower.NotReady()
	s := control.Status{
		Ready: why == "", Reason: why, Hub: "connected",
		Version: snapshot.Version(), Revoked: snapshot.Counts().Revoked(),
	}
	if !hub.Connected() {
		s.Hub = "unreachable"
	}
	if cfg.Hub.Mode == config.ModeExternal {
		s.Note = "whether the external hub encrypts its store cannot be verified from here"
	}
	return s
}

func hubName(cfg config.Config, hub *messaging.Hub) string {
	if cfg.Hub.Mode == config.ModeExternal {
		return "external"
	}
	return hub.Address()
}

func listen(address, key string) (net.Listener, error) {
	lis, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; is another adapter running?", key, err)
	}
	return lis, nil
}

func secure(lis net.Listener, t config.ServerTLS) (net.Listener, error) {
	cfg, err := serverTLS(t)
	if err != nil || cfg == nil {
		return lis, err
	}
	return tls.NewListener(lis, cfg), nil
}
