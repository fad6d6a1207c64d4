package main

import (
	"fmt"
	"os"
	"time"

	"github.com/sirupsen/logrus"

	"revocation-adapter/config/jwks"
	"revocation-adapter/config/tlsfiles"
	"revocation-adapter/enforcer"
	"revocation-adapter/enforcer/cmd/config"
	"revocation-adapter/enforcer/gate"
)

// enforcerConfig turns the file's sections into what package enforcer wants.
func enforcerConfig(cfg config.Config) (enforcer.Config, error) {
	e := enforcer.Config{
		Adapters: cfg.Adapter.Addresses, Instance: cfg.Gateway.Instance, Tenants: cfg.Gateway.Tenants,
		Grace: time.Duration(cfg.Set.Grace), MaxStaleness: time.Duration(cfg.Set.MaxStaleness),
		SnapshotFile: cfg.Set.SnapshotFile, SnapshotEvery: time.Duration(cfg.Set.SnapshotEvery),
	}
	if cfg.Set.OnStale == config.Allow {
		e.OnStale = enforcer.Allow
	}
	var err error
	if e.Instance == "" {
		if e.Instance, err = os.Hostname(); err != nil {
			return e, fmt.Errorf("gateway.instance: %w", err)
		}
	}
	if cfg.Adapter.TLS.CA != "" {
		if e.TLS, err = cfg.Adapter.TLS.Config(); err != nil {
			return e, fmt.Errorf("adapter.tls: %w", err)
		}
	}
	return e, nil
}

func gateConfig(cfg config.Config) gate.Config {
	g := gate.Config{
		Places: gate.Places{
			Bearer: cfg.Tokens.Bearer, APIKeyHeader: cfg.Tokens.APIKeyHeader, Cookie: cfg.Tokens.Cookie, Query: cfg.Tokens.Query,
		},
		Missing: gate.Policy(cfg.Tokens.Missing == config.Pass), Opaque: gate.Policy(cfg.Tokens.Opaque == config.Pass),
		Unreachable:  gate.Policy(cfg.Claims.OnUnreachable == config.Allow),
		ClaimTimeout: time.Duration(cfg.Claims.Timeout),
	}
	for _, route := range cfg.OneTime {
		g.OneTime = append(g.OneTime, gate.Route{Path: route.Path, Methods: route.Methods, Scope: route.Scope})
	}
	return g
}

func newKeys(cfg config.JWT, log logrus.FieldLogger) (*jwks.Keys, error) {
	k := jwks.Config{
		Issuers: cfg.Issuer, Audiences: cfg.Audience, Log: log, Now: time.Now,
		Refresh: time.Duration(cfg.Refresh), Leeway: time.Duration(cfg.Leeway),
	}
	var err error
	if k.TLS, err = (tlsfiles.Client{CA: cfg.CA}).Config(); err != nil {
		return nil, fmt.Errorf("jwt.ca: %w", err)
	}
	k.Files, k.URLs = jwks.Sources(cfg.JWKS)
	return jwks.New(k)
}
