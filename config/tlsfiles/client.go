package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// Client holds paths of PEM files, for connections that are made.
type Client struct {
	// CA verifies the server, instead of the system's authorities.
	CA string `toml:"ca"`
	// Cert is the certificate with its chain.
	Cert string `toml:"cert"`
	// Key is the private key of Cert.
	Key string `toml:"key"`
}

// Config is the client's side of TLS connections.
func (c Client) Config() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		roots, err := pool(c.CA)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = roots
	}
	if c.Cert == "" {
		return cfg, nil
	}
	cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s, key %s: %w", c.Cert, c.Key, err)
	}
	cfg.Certificates = []tls.Certificate{cert}
	return cfg, nil
}

// pool reads the certificates that may have signed others.
func pool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p, err := poolOf(pem)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

func poolOf(pem []byte) (*x509.CertPool, error) {
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in it")
	}
	return p, nil
}
