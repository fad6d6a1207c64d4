package main

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"revocation-adapter/config"
)

// lookEvery is how often the files of a listener are read at most.
const lookEvery = time.Second

// tlsFiles is the TLS side of a listener. Whoever connects gets what its files
// say now, or said when they were whole last; who is connected stays so.
type tlsFiles struct {
	files config.ServerTLS
	log   logrus.FieldLogger // names the section
	now   func() time.Time

	mu      sync.Mutex
	looked  time.Time
	seen    fingerprint // of the files then, broken or whole
	current *tls.Config // never changed once it is here
}

// fingerprint tells one state of the files from another.
type fingerprint [sha256.Size]byte

// serverTLS builds the TLS side of the listener of a section, nil for plaintext.
// A client CA makes a client certificate mandatory.
func serverTLS(section string, files config.ServerTLS, log logrus.FieldLogger) (*tls.Config, error) {
	if files.Cert == "" {
		return nil, nil //nolint:nilnil // nil is plaintext
	}
	f := &tlsFiles{files: files, log: log.WithField("section", section), now: time.Now}
	cfg, err := f.open()
	if err != nil {
		return nil, exitError{exitUsage, fmt.Errorf("%s: %w", section, err)}
	}
	return cfg, nil
}

// open reads the files for the first time.
func (f *tlsFiles) open() (cfg *tls.Config, err error) {
	f.looked = f.now()
	if f.current, f.seen, err = readTLS(f.files); err != nil {
		return nil, err
	}
	cfg = f.current.Clone()
	cfg.GetConfigForClient = f.forClient
	return cfg, nil
}

func (f *tlsFiles) forClient(*tls.ClientHelloInfo) (*tls.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := f.now(); now.Sub(f.looked) >= lookEvery {
		f.looked = now
		f.look()
	}
	return f.current, nil
}

// look takes over what has changed, if it is whole, and tells of each change once.
func (f *tlsFiles) look() {
	cfg, seen, err := readTLS(f.files)
	if seen == f.seen {
		return
	}
	f.seen = seen
	if err != nil {
		f.log.WithError(err).Error("The TLS files have changed and cannot be used, what they said before stays in force")
		return
	}
	f.current = cfg
	f.log.WithField("expires", cfg.Certificates[0].Leaf.NotAfter.UTC().Format(time.RFC3339)).
		Info("The TLS files have changed, new connections see it")
}

func readTLS(files config.ServerTLS) (*tls.Config, fingerprint, error) {
	contents, seen, err := contentsOf(files)
	if err != nil {
		return nil, seen, err
	}
	cfg, err := tlsOf(files, contents)
	return cfg, seen, err
}

// contentsOf reads cert, key and client CA. The fingerprint is also that of what
// cannot be read.
func contentsOf(files config.ServerTLS) (contents [3][]byte, seen fingerprint, err error) {
	var errs [3]error
	hash := sha256.New()
	for i, path := range []string{files.Cert, files.Key, files.ClientCA} {
		if path != "" {
			contents[i], errs[i] = os.ReadFile(path)
		}
		fmt.Fprintf(hash, "%q %v\n", contents[i], errs[i]) //nolint:errcheck // a hash takes everything
	}
	return contents, fingerprint(hash.Sum(nil)), cmp.Or(errs[:]...)
}

func tlsOf(files config.ServerTLS, contents [3][]byte) (*tls.Config, error) {
	cert, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return nil, fmt.Errorf("certificate %s, key %s: %w", files.Cert, files.Key, err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if files.ClientCA == "" {
		return cfg, nil
	}
	if cfg.ClientCAs, err = poolOf(contents[2]); err != nil {
		return nil, fmt.Errorf("%s: %w", files.ClientCA, err)
	}
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
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
