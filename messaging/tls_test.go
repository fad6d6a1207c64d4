package messaging_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"revocation-adapter/messaging"
)

// authority makes certificates in a directory of its own.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.cert, a.key = a.issue(t, "ca", &x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

// issue writes name.pem and name.key.
func (a *authority) issue(t *testing.T, name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fatal(t, err)
	template.SerialNumber, template.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	fatal(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	fatal(t, err)
	fatal(t, os.WriteFile(a.path(name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	fatal(t, os.WriteFile(a.path(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	cert, err := x509.ParseCertificate(der)
	fatal(t, err)
	return cert, key
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// issueBoth writes certificates of a server and of a client.
func (a *authority) issueBoth(t *testing.T) {
	t.Helper()
	a.issue(t, "server", &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	a.issue(t, "client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

// server is the TLS side of a server.
func (a *authority) server(t *testing.T, mutual bool) *tls.Config {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(a.path("server.pem"), a.path("server.key"))
	fatal(t, err)
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if mutual {
		cfg.ClientCAs, cfg.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		cfg.ClientCAs.AddCert(a.cert)
	}
	return cfg
}

func TestEmbeddedHubOverTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issueBoth(t)
	ca, cert := messaging.ExternalConfig{CA: a.path("ca.pem")}, messaging.ExternalConfig{
		CA: a.path("ca.pem"), Cert: a.path("client.pem"), Key: a.path("client.key"),
	}
	for _, tt := range []struct {
		name   string
		server *tls.Config
		client messaging.ExternalConfig
		ok     bool
	}{
		{"the client knows the authority", a.server(t, false), ca, true},
		{"the client does not", a.server(t, false), messaging.ExternalConfig{}, false},
		{"a client certificate is asked for", a.server(t, true), cert, true},
		{"and missing", a.server(t, true), ca, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := embedded(t)
			cfg.Embedded.TLS = tt.server
			_, cfg.Log = newLogbook(t)
			hub, err := messaging.Open(t.Context(), cfg)
			fatal(t, err)
			defer hub.Close()
			tt.client.URLs = []string{"tls://" + hub.Address()}
			conn, err := messaging.Dial(tt.client, nats.Timeout(patience))
			if err == nil {
				_, err = messaging.Publish(t.Context(), conn, messaging.SubjectRevocation, messaging.Announcement{RevokedToken: "a"})
				conn.Close()
			}
			if tt.ok != (err == nil) {
				t.Errorf("got %v, want connected: %v", err, tt.ok)
			}
		})
	}
}

// What the adapter shows to an external hub, and whom it believes, is read at
// every connect. What is broken then is tried again.
func TestClientFilesAreReadAtEveryConnect(t *testing.T) {
	t.Parallel()
	first, second := newAuthority(t), newAuthority(t)
	port := server.RANDOM_PORT
	serve := func(a *authority) *server.Server {
		a.issueBoth(t)
		s, err := server.NewServer(&server.Options{
			Host: "127.0.0.1", Port: port, TLSConfig: a.server(t, true), TLSTimeout: patience.Seconds(), NoLog: true, NoSigs: true,
		})
		fatal(t, err)
		s.Start()
		t.Cleanup(func() { shutdown(s) })
		if !s.ReadyForConnections(patience) {
			t.Fatal("the server is not ready")
		}
		return s
	}
	s := serve(first)
	port = portOf(t, s)
	conn, err := messaging.Dial(messaging.ExternalConfig{
		URLs: []string{s.ClientURL()}, CA: first.path("ca.pem"), Cert: first.path("client.pem"), Key: first.path("client.key"),
	}, nats.MaxReconnects(-1), nats.ReconnectWait(time.Millisecond), nats.ReconnectJitter(0, 0))
	fatal(t, err)
	t.Cleanup(conn.Close)

	shutdown(s)
	fatal(t, os.WriteFile(first.path("client.pem"), []byte("broken"), 0o600))
	serve(second)
	eventually(t, "the broken file is read", func() bool {
		err := conn.LastError()
		return err != nil && strings.Contains(err.Error(), "client certificate")
	})
	for _, name := range []string{"ca.pem", "client.pem", "client.key"} {
		content, err := os.ReadFile(second.path(name))
		fatal(t, err)
		fatal(t, os.WriteFile(first.path(name), content, 0o600))
	}
	eventually(t, "it is connected again", conn.IsConnected)
}
