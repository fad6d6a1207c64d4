package tlsfiles

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"revocation-adapter/config/logformat"
)

// selfSigned writes a certificate of that name with its key over what is there,
// and returns them.
func selfSigned(t *testing.T, name, cert, key string) tls.Certificate {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &secret.PublicKey, secret)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalECPrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(
		write(t, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		write(t, key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded})))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func write(t *testing.T, path string, content []byte) []byte {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return content
}

// tlsSide is the TLS side of a listener, on files and a clock of its own.
type tlsSide struct {
	dir    string
	client tls.Certificate // that its client CA admits
	time   time.Time
	log    bytes.Buffer
	server *tls.Config
}

func newTLSSide(t *testing.T) *tlsSide {
	t.Helper()
	s := &tlsSide{dir: t.TempDir(), time: time.Now()}
	selfSigned(t, "first", s.path("cert"), s.path("key"))
	s.client = selfSigned(t, "client", s.path("ca"), s.path("client.key"))
	log, err := logformat.New(&s.log, "info")
	if err != nil {
		t.Fatal(err)
	}
	f := &watched{
		files: Server{Cert: s.path("cert"), Key: s.path("key"), ClientCA: s.path("ca")},
		log:   log.WithField("section", "xds.tls"), now: func() time.Time { return s.time },
	}
	if s.server, err = f.open(); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *tlsSide) path(name string) string { return filepath.Join(s.dir, name) }

// connect is a client of one connection, if it is admitted. A session is taken
// up again where cache holds one.
func (s *tlsSide) connect(t *testing.T, cert tls.Certificate, cache tls.ClientSessionCache) (tls.ConnectionState, error) {
	t.Helper()
	lis, err := tls.Listen("tcp", "127.0.0.1:0", s.server)
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close() //nolint:errcheck // nobody else connects
	served := make(chan error, 1)
	go func() {
		conn, err := lis.Accept()
		if err == nil {
			_, err = conn.Write([]byte("x"))
			err = errors.Join(err, conn.Close())
		}
		served <- err
	}()
	client, err := tls.Dial("tcp", lis.Addr().String(), &tls.Config{
		InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}, ClientSessionCache: cache, ServerName: "adapter",
	})
	if err != nil {
		return tls.ConnectionState{}, errors.Join(err, <-served)
	}
	defer client.Close()                  //nolint:errcheck // all was read
	_, err = client.Read(make([]byte, 1)) // the ticket comes before the byte
	return client.ConnectionState(), errors.Join(err, <-served)
}

// nameOf is the name of the certificate that the server has shown.
func nameOf(state tls.ConnectionState) string {
	if len(state.PeerCertificates) == 0 {
		return ""
	}
	return state.PeerCertificates[0].Subject.CommonName
}

// sees connects a second later and compares.
func (s *tlsSide) sees(t *testing.T, want string) {
	t.Helper()
	s.time = s.time.Add(lookEvery)
	if state, err := s.connect(t, s.client, nil); nameOf(state) != want || err != nil {
		t.Errorf("a client sees %q, %v, want %q", nameOf(state), err, want)
	}
}

func (s *tlsSide) lines(level string) int { return strings.Count(s.log.String(), " "+level+" [") }

func TestTLSFilesAreReadAgain(t *testing.T) {
	s := newTLSSide(t)
	s.sees(t, "first")
	selfSigned(t, "second", s.path("cert"), s.path("key"))
	if state, err := s.connect(t, s.client, nil); nameOf(state) != "first" || err != nil {
		t.Errorf("within a second a client sees %q, %v", nameOf(state), err)
	}
	if s.lines("INFO") != 0 {
		t.Errorf("nothing has changed yet: %s", &s.log)
	}
	s.sees(t, "second")
	s.sees(t, "second")
	if s.lines("INFO") != 1 || s.lines("ERRO") != 0 || !strings.Contains(s.log.String(), "section=xds.tls") {
		t.Errorf("one change is logged as\n%s", &s.log)
	}
}

func TestBrokenTLSFilesChangeNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		harm func(*testing.T, *tlsSide)
		says string
	}{
		"no certificate": {func(t *testing.T, s *tlsSide) { write(t, s.path("cert"), []byte("x")) }, "cert"},
		"another's key":  {func(t *testing.T, s *tlsSide) { selfSigned(t, "other", s.path("other"), s.path("key")) }, "does not match"},
		"an empty CA":    {func(t *testing.T, s *tlsSide) { write(t, s.path("ca"), nil) }, "ca: no certificate in it"},
		"no file": {func(t *testing.T, s *tlsSide) {
			if err := os.Remove(s.path("ca")); err != nil {
				t.Fatal(err)
			}
		}, "ca: no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTLSSide(t)
			tt.harm(t, s)
			s.sees(t, "first")
			s.sees(t, "first")
			if s.lines("ERRO") != 1 || !strings.Contains(s.log.String(), tt.says) || strings.Contains(s.log.String(), "PRIVATE KEY-") {
				t.Errorf("one broken change is logged as\n%s", &s.log)
			}
			selfSigned(t, "second", s.path("cert"), s.path("key"))
			s.client = selfSigned(t, "client", s.path("ca"), s.path("client.key"))
			s.sees(t, "second")
			if s.lines("ERRO") != 1 || s.lines("INFO") != 1 {
				t.Errorf("what is mended is logged as\n%s", &s.log)
			}
		})
	}
}

// An authority that was removed admits nobody new, not even who takes up a
// session again.
func TestARemovedClientCAAdmitsNobody(t *testing.T) {
	s := newTLSSide(t)
	cache := tls.NewLRUClientSessionCache(1)
	for _, resumed := range []bool{false, true} {
		if state, err := s.connect(t, s.client, cache); err != nil || state.DidResume != resumed {
			t.Fatalf("a session is taken up: %v, want %v, %v", state.DidResume, resumed, err)
		}
	}
	old := s.client
	s.client = selfSigned(t, "other", s.path("ca"), s.path("client.key"))
	s.sees(t, "first")
	for _, c := range []tls.ClientSessionCache{nil, cache} {
		if _, err := s.connect(t, old, c); err == nil {
			t.Errorf("a client of the old authority is admitted, with a session: %v", c != nil)
		}
	}
}

func TestTLSFilesMustBeWholeAtStart(t *testing.T) {
	log, err := logformat.New(&bytes.Buffer{}, "info")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Server{Cert: "missing.pem", Key: "missing.key"}.Config("hub.tls", log)
	if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "hub.tls: ") {
		t.Errorf("missing files: %v", err)
	}
	if cfg, err := (Server{}).Config("hub.tls", log); cfg != nil || err != nil {
		t.Errorf("no files: %v, %v, want plaintext", cfg, err)
	}
}
