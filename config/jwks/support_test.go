package jwks_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"revocation-adapter/config/jwks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// signer is a key with its id.
type signer struct {
	id     string
	method jwt.SigningMethod
	secret any
	public any
}

func newSigner(t *testing.T, id string, method jwt.SigningMethod) signer {
	t.Helper()
	s := signer{id: id, method: method}
	var err error
	switch method.Alg() {
	case "ES256":
		var k *ecdsa.PrivateKey
		k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		s.secret, s.public = k, k.Public()
	case "EdDSA":
		s.public, s.secret, err = ed25519.GenerateKey(rand.Reader)
	default:
		var k *rsa.PrivateKey
		k, err = rsa.GenerateKey(rand.Reader, 2048)
		s.secret, s.public = k, k.Public()
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sign makes a token; a claim of nil is left out.
func (s signer) sign(t *testing.T, claims jwt.MapClaims, change ...func(*jwt.Token)) string {
	t.Helper()
	token := jwt.NewWithClaims(s.method, claims)
	if s.id != "" {
		token.Header["kid"] = s.id
	}
	for _, c := range change {
		c(token)
	}
	raw, err := token.SignedString(s.secret)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func keySet(t *testing.T, signers ...signer) []byte {
	t.Helper()
	set := jwkset.JWKSMarshal{}
	for _, s := range signers {
		options := jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: s.id, USE: jwkset.UseSig}}
		one, err := jwkset.NewJWKFromKey(s.public, options)
		if err != nil {
			t.Fatal(err)
		}
		set.Keys = append(set.Keys, one.Marshal())
	}
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// keyServer serves a key set that can change.
type keyServer struct {
	*httptest.Server
	asked  atomic.Int32
	mu     sync.Mutex
	text   []byte
	status int
}

func newKeyServer(t *testing.T, text []byte) *keyServer {
	t.Helper()
	s := &keyServer{text: text, status: http.StatusOK}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.asked.Add(1)
		s.mu.Lock()
		defer s.mu.Unlock()
		w.WriteHeader(s.status)
		_, _ = w.Write(s.text) // the client is gone
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *keyServer) say(status int, text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.text = status, text
}

func (s *keyServer) tls() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &tls.Config{RootCAs: pool}
}

// clock is moved by hand.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(c.at.Load(), 0) }

// begin is when all tests begin, in seconds since the epoch.
const begin = 1_800_000_000

// running starts Keys with what change says.
func running(t *testing.T, change func(*jwks.Config)) (*jwks.Keys, *clock, *safeBuffer) {
	t.Helper()
	c, out := &clock{}, &safeBuffer{}
	c.at.Store(begin)
	log := logrus.New()
	log.SetOutput(out)
	cfg := jwks.Config{Refresh: time.Hour, Log: log, Now: c.now}
	change(&cfg)
	k, err := jwks.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	k.WaitLonger()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return k, c, out
}

type safeBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *safeBuffer) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(text)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.After(time.Minute); !is(); {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

func ready(t *testing.T, k *jwks.Keys) {
	t.Helper()
	eventually(t, "the keys are read", func() bool { return k.NotReady() == "" })
}

func good() jwt.MapClaims { return jwt.MapClaims{"jti": "a", "exp": begin + 60} }
