package rabbitmq_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"revocation-adapter/integration/rabbitmq"
)

// With TLS the broker's certificate is verified.
func TestAMQPOverTLS(t *testing.T) {
	dir := t.TempDir()
	roots := certificate(t, dir)
	b := brokerWith(t, rabbitmq.Options{
		Dir: dir, CA: filepath.Join(dir, "cert.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"),
	})
	r, secured := startReplica(t), server(b.TLSAddress)
	secured.TLS, secured.Pause = true, time.Millisecond
	stranger, _ := r.listenTLS(t, &tls.Config{MinVersion: tls.VersionTLS12}, secured)
	eventually(t, "who does not know the authority refuses", func() bool {
		return strings.Contains(stranger.Status().LastError, "certificate")
	})
	_, connected := r.listenTLS(t, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}, secured)
	await(t, "connected", connected)
	if err := publishTo(t, b).send(t.Context(), event("secured")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is revoked", func() bool { return r.knows("secured") })
}

// certificate writes one for loopback that signs itself, and its key.
func certificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "cert.pem"), text, 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return roots
}
