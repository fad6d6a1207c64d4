package jwks_test

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/sirupsen/logrus"

	"revocation-adapter/config/jwks"
)

func TestVerify(t *testing.T) {
	rs, es, ed := newSigner(t, "rs", jwt.SigningMethodRS256), newSigner(t, "es", jwt.SigningMethodES256), newSigner(t, "ed", jwt.SigningMethodEdDSA)
	ps := rs
	ps.method = jwt.SigningMethodPS256
	other := newSigner(t, "rs", jwt.SigningMethodRS256)
	unnamed := es
	unnamed.id = ""
	wrongName := es
	wrongName.id = "rs"
	server := newKeyServer(t, keySet(t, rs, es, ed))
	k, _, _ := running(t, func(c *jwks.Config) { c.URLs, c.TLS = []string{server.URL}, server.tls() })
	ready(t, k)
	secret := signer{id: "rs", method: jwt.SigningMethodHS256, secret: x509.MarshalPKCS1PublicKey(rs.public.(*rsa.PublicKey))}
	none := signer{id: "rs", method: jwt.SigningMethodNone, secret: jwt.UnsafeAllowNoneSignatureType}
	valid := rs.sign(t, good())
	for name, tc := range map[string]struct {
		raw string
		ok  bool
	}{
		"RS256":               {valid, true},
		"PS256":               {ps.sign(t, good()), true},
		"ES256":               {es.sign(t, good()), true},
		"EdDSA":               {ed.sign(t, good()), true},
		"without kid":         {unnamed.sign(t, good()), true},
		"without exp":         {es.sign(t, jwt.MapClaims{"jti": "a"}), true},
		"padded":              {padded(t, es), true},
		"another key":         {other.sign(t, good()), false},
		"another's name":      {wrongName.sign(t, good()), false},
		"secret algorithm":    {secret.sign(t, good()), false},
		"no algorithm":        {none.sign(t, good()), false},
		"no signature":        {valid[:strings.LastIndex(valid, ".")+1], false},
		"another payload":     {forged(valid), false},
		"expired":             {es.sign(t, jwt.MapClaims{"exp": begin - 1}), false},
		"not yet":             {es.sign(t, jwt.MapClaims{"nbf": begin + 10}), false},
		"exp is no time":      {es.sign(t, jwt.MapClaims{"exp": "soon"}), false},
		"critical header":     {es.sign(t, good(), func(t *jwt.Token) { t.Header["crit"] = []string{"b64"} }), false},
		"kid of another type": {es.sign(t, good(), func(t *jwt.Token) { t.Header["kid"] = 7 }), true},
		"not a JWT":           {"a.b.c", false},
		"nothing":             {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			err := k.Verify(t.Context(), tc.raw)
			if (err == nil) != tc.ok || errors.Is(err, jwks.ErrUndecided) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// padded is a token with padding in its segments, as API keys have it.
func padded(t *testing.T, s signer) string {
	t.Helper()
	encode := func(text string) string { return base64.URLEncoding.EncodeToString([]byte(text)) }
	text := encode(`{"alg":"ES256","kid":"es"}`) + "." + encode(`{"jti":"key","token_type":"apiKey"}`)
	if !strings.Contains(text, "=.") {
		t.Fatal("nothing is padded")
	}
	signature, err := s.method.Sign(text, s.secret)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.URLEncoding.EncodeToString(signature)
}

// forged has another payload under the signature.
func forged(raw string) string {
	parts := strings.Split(raw, ".")
	parts[1] = base64.RawURLEncoding.EncodeToString([]byte(`{"jti":"b"}`))
	return strings.Join(parts, ".")
}

func TestIssuerAudienceLeeway(t *testing.T) {
	es := newSigner(t, "es", jwt.SigningMethodES256)
	server := newKeyServer(t, keySet(t, es))
	k, _, _ := running(t, func(c *jwks.Config) {
		c.URLs, c.TLS, c.Leeway = []string{server.URL}, server.tls(), 5*time.Second
		c.Issuers, c.Audiences = []string{"i1", "i2"}, []string{"a1", "a2"}
	})
	ready(t, k)
	for name, tc := range map[string]struct {
		claims jwt.MapClaims
		ok     bool
	}{
		"both":            {jwt.MapClaims{"iss": "i2", "aud": "a1"}, true},
		"one of many":     {jwt.MapClaims{"iss": "i1", "aud": []string{"x", "a2"}}, true},
		"other issuer":    {jwt.MapClaims{"iss": "i3", "aud": "a1"}, false},
		"no issuer":       {jwt.MapClaims{"aud": "a1"}, false},
		"other audience":  {jwt.MapClaims{"iss": "i1", "aud": []string{"x"}}, false},
		"no audience":     {jwt.MapClaims{"iss": "i1"}, false},
		"within leeway":   {jwt.MapClaims{"iss": "i1", "aud": "a1", "exp": begin - 3, "nbf": begin + 3}, true},
		"beyond leeway":   {jwt.MapClaims{"iss": "i1", "aud": "a1", "exp": begin - 6}, false},
		"too far ahead":   {jwt.MapClaims{"iss": "i1", "aud": "a1", "nbf": begin + 6}, false},
		"case of issuers": {jwt.MapClaims{"iss": "I1", "aud": "a1"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := k.Verify(t.Context(), es.sign(t, tc.claims)); (err == nil) != tc.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

// What was verified once is looked at again when it expires.
func TestVerifiedExpires(t *testing.T) {
	es := newSigner(t, "es", jwt.SigningMethodES256)
	server := newKeyServer(t, keySet(t, es))
	k, c, _ := running(t, func(c *jwks.Config) {
		c.URLs, c.TLS, c.Leeway = []string{server.URL}, server.tls(), 5*time.Second
	})
	ready(t, k)
	raw := es.sign(t, good()) // for a minute
	for _, step := range []struct {
		after int64
		ok    bool
	}{{0, true}, {0, true}, {60, true}, {4, true}, {1, false}, {0, false}} {
		c.at.Add(step.after)
		if err := k.Verify(t.Context(), raw); (err == nil) != step.ok {
			t.Errorf("at %d: %v", c.at.Load()-begin, err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	for _, method := range []jwt.SigningMethod{jwt.SigningMethodRS256, jwt.SigningMethodES256} {
		b.Run(method.Alg(), func(b *testing.B) {
			t := &testing.T{}
			s := newSigner(t, "k", method)
			path := filepath.Join(b.TempDir(), "keys.json")
			if err := os.WriteFile(path, keySet(t, s), 0o600); err != nil {
				b.Fatal(err)
			}
			log := logrus.New()
			log.SetOutput(&safeBuffer{})
			k, err := jwks.New(jwks.Config{Files: []string{path}, Refresh: time.Hour, Log: log, Now: time.Now})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan error, 1)
			go func() { ended <- k.Run(ctx) }()
			for k.NotReady() != "" {
				<-time.After(time.Millisecond)
			}
			raw := s.sign(t, jwt.MapClaims{"jti": "a", "exp": time.Now().Add(time.Hour).Unix(), "scope": "read", "azp": "client", "sub": "alice"})
			b.Run("again", func(b *testing.B) {
				for b.Loop() {
					if k.Verify(ctx, raw) != nil {
						b.Fatal("not verified")
					}
				}
			})
			b.Run("first", func(b *testing.B) {
				for n := 0; b.Loop(); n++ {
					b.StopTimer()
					fresh := s.sign(t, jwt.MapClaims{"jti": strconv.Itoa(n), "exp": time.Now().Add(time.Hour).Unix(), "scope": "read", "azp": "client", "sub": "alice"})
					b.StartTimer()
					if k.Verify(ctx, fresh) != nil {
						b.Fatal("not verified")
					}
				}
			})
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				b.Fatal(err)
			}
		})
	}
}

// Who must know whether a token is genuine is told when nobody can say: its key may
// be one of a source that does not answer.
func TestReadSaysWhenNobodyCanTell(t *testing.T) {
	es, other := newSigner(t, "es", jwt.SigningMethodES256), newSigner(t, "other", jwt.SigningMethodES256)
	server := newKeyServer(t, keySet(t, es))
	k, c, _ := running(t, func(c *jwks.Config) { c.URLs, c.TLS = []string{server.URL}, server.tls() })
	ready(t, k)
	var claims jwt.RegisteredClaims
	if err := k.Read(t.Context(), es.sign(t, good()), &claims); err != nil || claims.ID == "" {
		t.Errorf("genuine: %v, %+v", err, claims)
	}
	stranger := other.sign(t, good())
	if err := k.Read(t.Context(), stranger, &claims); err == nil || errors.Is(err, jwks.ErrUndecided) {
		t.Errorf("of nobody: %v", err)
	}
	server.say(http.StatusServiceUnavailable, nil)
	c.at.Add(11)
	if err := k.Read(t.Context(), stranger, &claims); !errors.Is(err, jwks.ErrUndecided) {
		t.Errorf("while the keys cannot be read: %v", err)
	}
	c.at.Add(100)
	if err := k.Read(t.Context(), es.sign(t, good()), &claims); err != nil {
		t.Errorf("of the past: %v", err)
	}
}

// A key that has come since the keys were read does not make its tokens forged, named
// or not.
func TestReadAfterRotation(t *testing.T) {
	named, next := newSigner(t, "named", jwt.SigningMethodES256), newSigner(t, "next", jwt.SigningMethodES256)
	nameless, after := newSigner(t, "", jwt.SigningMethodES256), newSigner(t, "", jwt.SigningMethodES256)
	server := newKeyServer(t, keySet(t, named, nameless))
	k, c, _ := running(t, func(c *jwks.Config) { c.URLs, c.TLS = []string{server.URL}, server.tls() })
	ready(t, k)
	var claims jwt.RegisteredClaims
	if err := k.Read(t.Context(), next.sign(t, good()), &claims); err == nil || errors.Is(err, jwks.ErrUndecided) {
		t.Errorf("of nobody: %v", err)
	}
	server.say(http.StatusOK, keySet(t, named, nameless, next, after))
	for name, s := range map[string]signer{"named": next, "nameless": after} {
		err := k.Read(t.Context(), s.sign(t, good()), &claims)
		if !errors.Is(err, jwks.ErrUndecided) || !errors.Is(err, jwks.ErrTooSoon) {
			t.Errorf("%s, just after the keys were read: %v", name, err)
		}
	}
	c.at.Add(11)
	for name, s := range map[string]signer{"nameless": after, "named": next} {
		if err := k.Read(t.Context(), s.sign(t, good()), &claims); err != nil {
			t.Errorf("%s, when they may be read again: %v", name, err)
		}
	}
	forged := newSigner(t, "", jwt.SigningMethodES256)
	c.at.Add(11)
	if err := k.Read(t.Context(), forged.sign(t, good()), &claims); err == nil || errors.Is(err, jwks.ErrUndecided) {
		t.Errorf("nameless, of nobody: %v", err)
	}
}
