package main

import (
	"context"
	"crypto/tls"
	"fmt"

	"revocation-adapter/config"
	"revocation-adapter/messaging"
)

// amqpSources are the parts that take events from API-M's brokers.
func (r *replica) amqpSources(intake *messaging.Intake) (parts []func(context.Context) error, err error) {
	if len(r.cfg.AMQP.Brokers) == 0 {
		return nil, nil
	}
	tlsConfig, err := clientTLS(r.cfg.AMQP.TLS)
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
		}, intake, r.sources.Add(name))
		if err != nil {
			return nil, exitError{exitUsage, err}
		}
		parts = append(parts, source.Run)
	}
	return parts, nil
}

func amqpServers(u config.URL) (servers []messaging.AMQPServer, err error) {
	brokers, err := u.Brokers()
	for _, b := range brokers {
		servers = append(servers, messaging.AMQPServer(b))
	}
	return servers, err
}

// clientTLS is the adapter's side of a connection that it makes.
func clientTLS(files config.HubTLS) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if files.CA != "" {
		roots, err := pool(files.CA)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = roots
	}
	if files.Cert == "" {
		return cfg, nil
	}
	cert, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s, key %s: %w", files.Cert, files.Key, err)
	}
	cfg.Certificates = []tls.Certificate{cert}
	return cfg, nil
}
