package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"revocation-adapter/adapter/clients"
	"revocation-adapter/adapter/control"
	"revocation-adapter/adapter/issuers"
	"revocation-adapter/adapter/receipts"
	"revocation-adapter/config"
	"revocation-adapter/config/jwks"
	"revocation-adapter/config/process"
	"revocation-adapter/config/tlsfiles"
	"revocation-adapter/messaging"
)

// newClients are those of the configuration; those of the hub come when it is open.
func newClients(cfg config.Config) (*clients.Registry, error) {
	c := clients.Config{Limits: clients.Limits{RequestsPerSecond: cfg.Control.RequestsPerSecond, MaxBody: cfg.Control.MaxBodyBytes}}
	for _, one := range cfg.Clients {
		c.Clients = append(c.Clients, clients.Entry{
			ID: one.ID, SecretHash: string(one.SecretHash), Roles: one.Roles,
			Limits: clients.Limits{RequestsPerSecond: one.RequestsPerSecond, MaxBody: one.MaxBodyBytes},
		})
	}
	return clients.New(c)
}

func (r *replica) newIssuers() (*issuers.Set, error) {
	c := issuers.Config{Log: r.log, Now: now}
	for i, one := range r.cfg.Issuers {
		tlsConfig, err := (tlsfiles.Client{CA: one.CA}).Config()
		if err != nil {
			return nil, exitError{exitUsage, fmt.Errorf("issuers[%d].ca: %w", i, err)}
		}
		of := issuers.Issuer{Name: one.Name, TLS: tlsConfig, Refresh: time.Duration(cmp.Or(one.Refresh, config.DefaultRefresh))}
		of.Files, of.URLs = jwks.Sources(one.JWKS)
		c.Issuers = append(c.Issuers, of)
	}
	return issuers.New(c)
}

// newAPI is the control API.
func (r *replica) newAPI() *control.API {
	return &control.API{
		Core: r.core, Clients: r.clients, Issuers: r.issuers, Revocations: r.revocations, Rules: rules(r.cfg.Rules),
		Grace: time.Duration(r.cfg.Revocation.Grace), UnknownLife: time.Duration(r.cfg.Revocation.UnknownLifetime),
		AllowQueryCredentials: r.cfg.Control.AllowQueryCredentials,
		Session:               r.page.Principal,
		Replica:               r.name, Metrics: r.metrics, Log: r.log, Now: now,
	}
}

// core is what the control API works with, nil until the hub is open.
func (r *replica) core() *control.Core {
	if parts := r.hub.Load(); parts != nil {
		return parts.core
	}
	return nil
}

// newCore makes the parts of the control API that need the hub, and returns what
// runs them.
func (r *replica) newCore(hub *messaging.Hub, m *messaging.Metrics) (*control.Core, func(context.Context) error, error) {
	lines, err := openAudit(r.cfg.Audit.File)
	if err != nil {
		return nil, nil, fmt.Errorf("audit.file: %w", err)
	}
	gathered, err := receipts.New(receipts.Config{
		Hub: hub, Server: r.server, Name: r.name, Memory: time.Duration(r.cfg.Receipts.Memory), Log: r.log,
	})
	if err != nil {
		return nil, nil, err
	}
	core := &control.Core{
		Hub: hub, Decisions: messaging.NewDecisions(hub, r.revocations, m), Grants: messaging.NewGrants(hub),
		Audit: messaging.NewAudit(hub, messaging.AuditConfig{Lines: lines}), Answers: messaging.NewAnswers(hub),
		Receipts: gathered,
	}
	return core, func(ctx context.Context) error {
		defer lines.Close() //nolint:errcheck // every line was written
		return process.Together(ctx, core.Decisions.Run, core.Audit.Run, core.Receipts.Run, func(ctx context.Context) error {
			return hub.Clients().Watch(ctx, r.replaceClients)
		})
	}, nil
}

// replaceClients takes over those that the hub keeps.
func (r *replica) replaceClients(stored []messaging.StoredClient) {
	entries := make([]clients.Entry, 0, len(stored))
	for _, c := range stored {
		entries = append(entries, clients.Entry{
			ID: c.ID, SecretHash: c.SecretHash, Roles: c.Roles,
			Limits: clients.Limits{RequestsPerSecond: c.RequestsPerSecond, MaxBody: c.MaxBodyBytes},
		})
	}
	before := r.clients.Len()
	r.clients.Replace(entries)
	if now := r.clients.Len(); now != before {
		r.log.WithField("clients", now).Info("The clients of the hub have changed")
	}
}

// noFile is where lines go that nobody wants.
type noFile struct{ io.Writer }

func (noFile) Close() error { return nil }

func openAudit(path string) (io.WriteCloser, error) {
	if path == "" {
		return noFile{io.Discard}, nil
	}
	return os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
}
