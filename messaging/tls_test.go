package messaging_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

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

func TestEmbeddedHubOverTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issue(t, "server", &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	a.issue(t, "client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	ca, cert := messaging.ExternalConfig{CA: a.path("ca.pem")}, messaging.ExternalConfig{
		CA: a.path("ca.pem"), Cert: a.path("client.pem"), Key: a.path("client.key"),
	}
	for _, tt := range []struct {
		name, clientCA string
		client         messaging.ExternalConfig
		ok             bool
	}{
		{"the client knows the authority", "", ca, true},
		{"the client does not", "", messaging.ExternalConfig{}, false},
		{"a client certificate is asked for", a.path("ca.pem"), cert, true},
		{"and missing", a.path("ca.pem"), ca, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := embedded(t)
			cfg.Embedded.Cert, cfg.Embedded.Key, cfg.Embedded.CA = a.path("server.pem"), a.path("server.key"), tt.clientCA
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

func TestABadCertificateIsReported(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	cfg.Embedded.Cert, cfg.Embedded.Key = "missing.pem", "missing.key"
	_, cfg.Log = newLogbook(t)
	if hub, err := messaging.Open(t.Context(), cfg); err == nil {
		hub.Close()
		t.Error("the hub opens without its certificate")
	}
}
