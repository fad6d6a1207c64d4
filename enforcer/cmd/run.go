package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/sirupsen/logrus"

	"revocation-adapter/config/basicauth"
	"revocation-adapter/config/jwks"
	"revocation-adapter/config/process"
	"revocation-adapter/enforcer"
	"revocation-adapter/enforcer/cmd/config"
	"revocation-adapter/enforcer/cmd/control"
	"revocation-adapter/enforcer/cmd/extauthz"
	"revocation-adapter/enforcer/cmd/forwardauth"
	"revocation-adapter/enforcer/gate"
)

// drain is how long calls may go on after the end.
const drain = 4 * time.Second

// part is one that runs until its context ends.
type part = func(context.Context) error

// sidecar is the parts of a running enforcer.
type sidecar struct {
	cfg     config.Config
	log     logrus.FieldLogger
	metrics *prometheus.Registry

	set  *enforcer.Enforcer
	keys *jwks.Keys // nil: tokens are not verified
	gate *gate.Gate

	calls    *calls
	stopping atomic.Bool
}

// run builds the parts, joins them, and returns when all have stopped.
func run(ctx context.Context, cfg config.Config, log logrus.FieldLogger) error {
	s, err := newSidecar(cfg, log)
	if err != nil {
		return err
	}
	l, err := openAll(cfg)
	if err != nil {
		return failure{err}
	}
	defer l.close()
	fronts, err := s.fronts(l)
	if err != nil {
		return err
	}
	operators, err := s.control(l.control)
	if err != nil {
		return err
	}
	s.announce(l)
	return s.serve(ctx, fronts, operators)
}

// serve runs everything. When ctx ends, calls are answered to their end first,
// while operators are told that the enforcer is not ready.
func (s *sidecar) serve(ctx context.Context, fronts []part, operators part) error {
	background := []part{s.set.Run, operators, func(all context.Context) error {
		calls, end := context.WithCancel(all)
		defer end()
		defer context.AfterFunc(ctx, func() {
			s.stopping.Store(true)
			end()
		})()
		return process.Together(calls, fronts...)
	}}
	if s.keys != nil {
		background = append(background, s.keys.Run)
	}
	err := process.Together(context.WithoutCancel(ctx), background...)
	if ctx.Err() == nil || !errors.Is(err, context.Canceled) {
		return failure{err}
	}
	s.log.Info("The enforcer has stopped")
	return nil
}

// newSidecar builds what decides on calls.
func newSidecar(cfg config.Config, log logrus.FieldLogger) (*sidecar, error) {
	s := &sidecar{cfg: cfg, log: log, metrics: prometheus.NewRegistry()}
	s.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.calls = newCalls(s.metrics)
	follow, err := enforcerConfig(cfg)
	if err != nil {
		return nil, err
	}
	follow.Log, follow.Metrics = log, s.metrics
	if s.set, err = enforcer.New(follow); err != nil {
		return nil, err
	}
	decide := gateConfig(cfg)
	decide.Enforcer = s.set
	if len(cfg.JWT.JWKS) > 0 {
		if s.keys, err = newKeys(cfg.JWT, log); err != nil {
			return nil, err
		}
		decide.Verifier = verifier{s.keys}
		s.metrics.MustRegister(failedSources(s.keys))
	}
	s.gate, err = gate.New(decide)
	return s, err
}

// fronts are the parts that answer gateways.
func (s *sidecar) fronts(l listeners) ([]part, error) {
	var parts []part
	if l.extAuthz != nil {
		tlsConfig, err := s.cfg.ExtAuthz.TLS.Config("ext_authz.tls", s.log)
		if err != nil {
			return nil, err
		}
		server := extauthz.New(extauthz.Config{
			Decide: s.decide("ext_authz"), Ready: func() bool { return s.notReady() == "" }, TLS: tlsConfig, Drain: drain,
		})
		parts = append(parts, func(ctx context.Context) error { return server.Run(ctx, l.extAuthz) })
	}
	if l.forwardAuth != nil {
		tlsConfig, err := s.cfg.ForwardAuth.TLS.Config("forward_auth.tls", s.log)
		if err != nil {
			return nil, err
		}
		server := forwardauth.New(forwardauth.Config{
			Decide: s.decide("forward_auth"), TLS: tlsConfig, Drain: drain, Log: s.log,
			OriginalURI: s.cfg.ForwardAuth.OriginalURI, OriginalMethod: s.cfg.ForwardAuth.OriginalMethod,
		})
		parts = append(parts, func(ctx context.Context) error { return server.Run(ctx, l.forwardAuth) })
	}
	if len(parts) == 0 {
		return nil, errors.New("neither ext_authz.listen nor forward_auth.listen is set: no gateway could ask")
	}
	return parts, nil
}

func (s *sidecar) control(lis net.Listener) (part, error) {
	tlsConfig, err := s.cfg.Control.TLS.Config("control.tls", s.log)
	if err != nil {
		return nil, err
	}
	server := control.New(control.Config{
		Set: s.set, NotReady: s.notReady, Metrics: s.metrics, TLS: tlsConfig, Log: s.log,
		Credentials: basicauth.Credentials{
			Username: s.cfg.Control.Username, Password: string(s.cfg.Control.Password), PasswordHash: string(s.cfg.Control.PasswordHash),
		},
	})
	return func(ctx context.Context) error { return server.Run(ctx, lis) }, nil
}

// notReady says why calls should not be sent here.
func (s *sidecar) notReady() string {
	if s.stopping.Load() {
		return "the enforcer stops"
	}
	if why := s.set.NotReady(); why != "" || s.keys == nil {
		return why
	}
	return s.keys.NotReady()
}

// announce says where the enforcer listens, and warns of what a gateway must do
// itself.
func (s *sidecar) announce(l listeners) {
	fields := logrus.Fields{"control": l.control.Addr(), "version": process.Version()}
	if l.extAuthz != nil {
		fields["ext_authz"] = l.extAuthz.Addr()
	}
	if l.forwardAuth != nil {
		fields["forward_auth"] = l.forwardAuth.Addr()
	}
	s.log.WithFields(fields).Info("The enforcer listens")
	if s.keys == nil {
		s.log.Warn("Signatures are not verified here, so the gateway must: jwt.jwks is not set")
	}
}

// listeners are the ports, nil where there is none.
type listeners struct{ extAuthz, forwardAuth, control net.Listener }

// openAll opens the ports first, so that a taken one is told of at once.
func openAll(cfg config.Config) (l listeners, err error) {
	for _, one := range []struct {
		to           *net.Listener
		address, key string
	}{
		{&l.extAuthz, cfg.ExtAuthz.Listen, "ext_authz.listen"},
		{&l.forwardAuth, cfg.ForwardAuth.Listen, "forward_auth.listen"},
		{&l.control, cfg.Control.Listen, "control.listen"},
	} {
		if one.address == "" {
			continue
		}
		if *one.to, err = net.Listen("tcp", one.address); err != nil {
			l.close()
			return l, fmt.Errorf("%s: %w; is another enforcer running?", one.key, err)
		}
	}
	return l, nil
}

func (l listeners) close() {
	for _, lis := range []net.Listener{l.extAuthz, l.forwardAuth, l.control} {
		if lis != nil {
			_ = lis.Close() // closed already, once it was served
		}
	}
}
