package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/sirupsen/logrus"

	"revocation-adapter/config"
	"revocation-adapter/messaging"
)

// settings reads the configuration file that --config names.
type settings struct{ path *string }

func (s *settings) load() (config.Config, error) {
	if *s.path == "" {
		return config.Default(), nil
	}
	cfg, err := config.Load(*s.path)
	if err != nil {
		return cfg, exitError{exitUsage, err}
	}
	return cfg, nil
}

// hubConfig turns the file's sections into what package messaging wants.
func hubConfig(cfg config.Config, log logrus.FieldLogger) (messaging.Config, error) {
	m := messaging.Config{
		VersionFile: filepath.Clean(cfg.Hub.Store) + ".version",
		Limits: messaging.Limits{
			MaxLive: cfg.Revocation.MaxLive, MaxPending: cfg.Hub.MaxPending, MaxPendingBytes: cfg.Hub.MaxPendingBytes,
			MaxGrants: cfg.Grants.Max,
		},
		Audit: messaging.AuditLimits{MaxAge: time.Duration(cfg.Audit.Retention), MaxBytes: cfg.Audit.MaxBytes},
		Grace: time.Duration(cfg.Revocation.Grace), UnknownLife: time.Duration(cfg.Revocation.UnknownLifetime),
		PurgeInterval: time.Duration(cfg.Revocation.PurgeInterval),
		Rules:         rules(cfg.Rules),
		MaxDeliveries: uint64(cfg.Ingest.MaxDeliveries), Workers: cfg.Ingest.Workers,
		Log: log, Now: now,
	}
	if cfg.Hub.Mode == config.ModeExternal {
		m.External = externalHub(cfg.Hub)
		return m, nil
	}
	files := config.ServerTLS{Cert: cfg.Hub.TLS.Cert, Key: cfg.Hub.TLS.Key, ClientCA: cfg.Hub.TLS.CA}
	tlsConfig, err := serverTLS("hub.tls", files, log)
	m.Embedded = &messaging.EmbeddedConfig{Listen: cfg.Hub.Listen, Store: cfg.Hub.Store, TLS: tlsConfig}
	return m, err
}

func rules(cfg config.Rules) messaging.Rules {
	return messaging.Rules{
		ClientClaim: cfg.ClientClaim, UserClaim: cfg.UserClaim, Claims: cfg.Claims, MaxLifetime: time.Duration(cfg.MaxTokenLifetime),
	}
}

func externalHub(h config.Hub) messaging.ExternalConfig {
	ext := messaging.ExternalConfig{
		User: h.User, Password: string(h.Password), Credentials: h.Credentials, NKey: h.NKey,
		CA: h.TLS.CA, Cert: h.TLS.Cert, Key: h.TLS.Key, Replicas: h.Replicas,
	}
	for _, u := range h.URLs {
		ext.URLs = append(ext.URLs, string(u))
	}
	return ext
}

// dialHub connects the command line to the hub of the configuration: to an
// embedded one with the operator's key from its store.
func dialHub(cfg config.Config) (*nats.Conn, error) {
	ext, name := externalHub(cfg.Hub), fmt.Sprint(cfg.Hub.URLs) // URLs mask themselves
	if cfg.Hub.Mode != config.ModeExternal {
		scheme := "nats://"
		if cfg.Hub.TLS.Cert != "" {
			scheme = "tls://"
		}
		ext = messaging.ExternalConfig{
			URLs: []string{scheme + dialable(cfg.Hub.Listen)}, NKey: messaging.OperatorKey(cfg.Hub.Store),
			CA: cfg.Hub.TLS.CA,
		}
		name = ext.URLs[0]
		if cfg.Hub.TLS.CA != "" {
			ext.Cert, ext.Key = cfg.Hub.TLS.Cert, cfg.Hub.TLS.Key
		}
		if _, err := os.Stat(ext.NKey); err != nil {
			return nil, exitError{exitUnreachable, fmt.Errorf(
				"no operator key at %s: start the adapter once, and run this command in its directory or with its --config", ext.NKey)}
		}
	}
	conn, err := messaging.Dial(ext, nats.Name("adapter command line"), nats.Timeout(2*time.Second),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // each command says itself what failed
	switch {
	case errors.Is(err, messaging.ErrRefused), errors.Is(err, messaging.ErrConfig):
		return nil, hubError(fmt.Errorf("connect to the hub at %s: %w", name, err))
	case err != nil:
		return nil, exitError{exitUnreachable, fmt.Errorf("connect to the hub at %s: %w; is the adapter running?", name, err)}
	}
	return conn, nil
}

// hubError gives the code to an error of the hub that trying again cannot mend.
func hubError(err error) error {
	switch {
	case errors.Is(err, messaging.ErrConfig):
		return exitError{exitUsage, err}
	case errors.Is(err, messaging.ErrRefused):
		return exitError{exitUnreachable, err}
	}
	return err
}

// dialable turns a listen address into one that this machine can connect to.
func dialable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
