// Package tlsfiles is the TLS side of listeners and clients, made of PEM files.
//
// Those of a listener are read again when they change: whoever connects gets
// what they say now, or said when they were whole last.
package tlsfiles

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"revocation-adapter/config/strict"
)

// Server holds paths of PEM files. Without Cert a listener is plaintext.
type Server struct {
	// Cert is the certificate with its chain.
	Cert string `toml:"cert"`
	// Key is the private key of Cert.
	Key string `toml:"key"`
	// ClientCA, when set, makes client certificates mandatory and verifies them.
	ClientCA string `toml:"client_ca"`
}

// Check refuses files without those that they need.
func (s Server) Check(f *strict.Faults, section string) {
	f.Pair(section, s.Cert, s.Key)
	if s.ClientCA != "" && s.Cert == "" {
		f.Add(section+".client_ca", "needs "+section+".cert")
	}
}

// Files are those of the section.
func (s Server) Files(section string) []strict.File {
	return []strict.File{
		{Key: section + ".cert", Path: s.Cert},
		{Key: section + ".key", Path: s.Key, Secret: true},
		{Key: section + ".client_ca", Path: s.ClientCA},
	}
}

// lookEvery is how often the files of a listener are read at most.
const lookEvery = time.Second

// watched is the TLS side of a listener. Who is connected stays so, whatever
// becomes of the files.
type watched struct {
	files Server
	log   logrus.FieldLogger // names the section
	now   func() time.Time

	mu      sync.Mutex
	looked  time.Time
	seen    fingerprint // of the files then, broken or whole
	current *tls.Config // never changed once it is here
}

// fingerprint tells one state of the files from another.
type fingerprint [sha256.Size]byte

// Config builds the TLS side of the listener of a section, nil for plaintext. A
// client CA makes a client certificate mandatory.
func (s Server) Config(section string, log logrus.FieldLogger) (*tls.Config, error) {
	if s.Cert == "" {
		return nil, nil //nolint:nilnil // nil is plaintext
	}
	f := &watched{files: s, log: log.WithField("section", section), now: time.Now}
	cfg, err := f.open()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", section, err)
	}
	return cfg, nil
}

// open reads the files for the first time.
func (f *watched) open() (cfg *tls.Config, err error) {
	f.looked = f.now()
	if f.current, f.seen, err = readTLS(f.files); err != nil {
		return nil, err
	}
	cfg = f.current.Clone()
	cfg.GetConfigForClient = f.forClient
	return cfg, nil
}

func (f *watched) forClient(*tls.ClientHelloInfo) (*tls.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := f.now(); now.Sub(f.looked) >= lookEvery {
		f.looked = now
		f.look()
	}
	return f.current, nil
}

// look takes over what has changed, if it is whole, and tells of each change once.
func (f *watched) look() {
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

func readTLS(files Server) (*tls.Config, fingerprint, error) {
	contents, seen, err := contentsOf(files)
	if err != nil {
		return nil, seen, err
	}
	cfg, err := tlsOf(files, contents)
	return cfg, seen, err
}

// contentsOf reads cert, key and client CA. The fingerprint is also that of what
// cannot be read.
func contentsOf(files Server) (contents [3][]byte, seen fingerprint, err error) {
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

func tlsOf(files Server, contents [3][]byte) (*tls.Config, error) {
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
