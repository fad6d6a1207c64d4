package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"revocation-adapter/adapter/control"
	"revocation-adapter/config"
	"revocation-adapter/config/basicauth"
	"revocation-adapter/config/tlsfiles"
	"revocation-adapter/messaging"
)

// openSources are the parts that bring events in.
func (r *replica) openSources(intake *messaging.Intake, hub *messaging.Hub) ([]func(context.Context) error, error) {
	listener := messaging.NewListener(intake)
	listener.Report = r.sources.Add(messaging.SourceNATS)
	listener.Report.Ask(hub.Connected)
	parts, err := r.amqpSources(intake)
	if err != nil {
		return nil, err
	}
	parts = append(parts, listener.Run)
	measures := messaging.NewSyncMetrics(r.metrics)
	if r.cfg.ControlPlane.URL == "" {
		if len(r.cfg.AMQP.Brokers) > 0 {
			r.log.Warn("What is published while a broker is away is not learnt: there is no control_plane.url to read it from")
		}
		return parts, nil
	}
	sync, err := r.fullSync(intake, measures)
	if err != nil {
		return nil, err
	}
	r.sync.Store(sync)
	return append(parts, sync.Run), nil
}

// fullSync reads the control plane.
func (r *replica) fullSync(intake *messaging.Intake, measures *messaging.SyncMetrics) (*messaging.FullSync, error) {
	cfg := r.cfg.ControlPlane
	tlsConfig, err := tlsfiles.Client{CA: cfg.CA}.Config()
	if err != nil {
		return nil, exitError{exitUsage, fmt.Errorf("control_plane.ca: %w", err)}
	}
	sync, err := messaging.NewFullSync(messaging.FullSyncConfig{
		URL: string(cfg.URL), Username: cfg.Username, Password: string(cfg.Password), TLS: tlsConfig,
		Interval: time.Duration(cfg.Interval), Workers: r.cfg.Ingest.Workers,
	}, intake, r.sources.Add(messaging.SourceFullSync), measures)
	if err != nil {
		return nil, exitError{exitUsage, err}
	}
	return sync, nil
}

// requestSync has everything read again, if there is something to read from.
func (r *replica) requestSync(reason string) {
	if sync := r.sync.Load(); sync != nil {
		sync.Request(reason)
	}
}

// reload is what an event asks for that says to read everything again.
func (r *replica) reload() func() {
	if r.cfg.ControlPlane.URL == "" {
		return nil
	}
	return func() { r.requestSync("event") }
}

// notify is the endpoint of key managers, nil if there is none.
func (r *replica) notify() *control.Notify {
	cfg := r.cfg.Notify
	if cfg.Username == "" {
		return nil
	}
	report := r.sources.Add(messaging.SourceNotify)
	report.Ask(func() bool {
		parts := r.hub.Load()
		return parts != nil && parts.hub.Connected()
	})
	return &control.Notify{
		Credentials: basicauth.Credentials{
			Username: cfg.Username, Password: string(cfg.Password), PasswordHash: string(cfg.PasswordHash),
		},
		Take: func(ctx context.Context, body []byte) error {
			parts := r.hub.Load()
			if parts == nil || parts.follower.NotReady() != "" {
				return errNotYet
			}
			err := parts.intake.Notify(ctx, body, report)
			if errors.Is(err, messaging.ErrEvent) {
				return fmt.Errorf("%w: %w", control.ErrNotUnderstood, err)
			}
			return err
		},
	}
}

var errNotYet = errors.New("the log is not complete yet")

// amqpSources are the parts that take events from API-M's brokers.
func (r *replica) amqpSources(intake *messaging.Intake) (parts []func(context.Context) error, err error) {
	if len(r.cfg.AMQP.Brokers) == 0 {
		return nil, nil
	}
	tlsConfig, err := tlsfiles.Client(r.cfg.AMQP.TLS).Config()
	if err != nil {
		return nil, exitError{exitUsage, fmt.Errorf("amqp.tls: %w", err)}
	}
	for i, broker := range r.cfg.AMQP.Brokers {
		name := messaging.SourceAMQP
		if len(r.cfg.AMQP.Brokers) > 1 {
			name = fmt.Sprintf("%s-%d", name, i+1)
		}
		servers, err := amqpServers(broker)
		if err != nil {
			return nil, exitError{exitUsage, fmt.Errorf("amqp.brokers[%d]: %w", i, err)}
		}
		source, err := messaging.NewAMQP(messaging.AMQPConfig{
			Servers: servers, TLS: tlsConfig, Workers: r.cfg.Ingest.Workers,
			Connected: func() { r.requestSync(name + " connected") },
		}, intake, r.sources.Add(name))
		if err != nil {
			return nil, exitError{exitUsage, err}
		}
		parts = append(parts, source.Run)
	}
	return parts, nil
}

func amqpServers(u config.BrokerURL) (servers []messaging.AMQPServer, err error) {
	brokers, err := u.Brokers()
	for _, b := range brokers {
		servers = append(servers, messaging.AMQPServer(b))
	}
	return servers, err
}
