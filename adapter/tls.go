package main

import (
	"crypto/tls"
	"errors"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"revocation-adapter/config/tlsfiles"
)

// tlsFlags are the flags of a command that connects to a running adapter.
type tlsFlags tlsfiles.Client

func (t *tlsFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&t.CA, "ca", "", "PEM file that verifies the adapter's certificate; makes the connection TLS")
	flags.StringVar(&t.Cert, "cert", "", "PEM file of the client certificate")
	flags.StringVar(&t.Key, "key", "", "PEM file of the client certificate's key")
}

// config is nil where the connection is plaintext.
func (t *tlsFlags) config() (*tls.Config, error) {
	switch {
	case t.CA != "":
		return tlsfiles.Client(*t).Config()
	case t.Cert != "" || t.Key != "":
		return nil, errors.New("--cert and --key need --ca, without which the connection is plaintext")
	}
	return nil, nil //nolint:nilnil // plaintext
}

// serverTLS is the TLS side of the listener of a section, nil for plaintext.
func serverTLS(section string, files tlsfiles.Server, log logrus.FieldLogger) (*tls.Config, error) {
	cfg, err := files.Config(section, log)
	if err != nil {
		return nil, exitError{exitUsage, err}
	}
	return cfg, nil
}
