package jwks_test

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"revocation-adapter/config/jwks"
)

// A new key is there for the first token that needs it; a removed one is gone.
func TestRotation(t *testing.T) {
	old, fresh, later := newSigner(t, "old", jwt.SigningMethodES256), newSigner(t, "new", jwt.SigningMethodES256), newSigner(t, "later", jwt.SigningMethodES256)
	server := newKeyServer(t, keySet(t, old))
	k, c, _ := running(t, func(c *jwks.Config) { c.URLs, c.TLS = []string{server.URL}, server.tls() })
	ready(t, k)
	if err := k.Verify(t.Context(), old.sign(t, good())); err != nil {
		t.Fatal(err)
	}
	server.say(http.StatusOK, keySet(t, fresh))
	if err := k.Verify(t.Context(), fresh.sign(t, good())); err != nil {
		t.Errorf("the first token of a new key: %v", err)
	}
	if err := k.Verify(t.Context(), old.sign(t, good())); err == nil {
		t.Error("a removed key verifies")
	}
	asked := server.asked.Load()
	server.say(http.StatusOK, keySet(t, later))
	for range 20 {
		if k.Verify(t.Context(), later.sign(t, good())) == nil {
			t.Fatal("the server was asked again too soon")
		}
	}
	if n := server.asked.Load(); n != asked {
		t.Errorf("unknown keys have asked the server %d times", n-asked)
	}
	c.at.Add(11)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := k.Verify(t.Context(), later.sign(t, good())); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := server.asked.Load(); n != asked+1 {
		t.Errorf("20 tokens at once have asked the server %d times", n-asked)
	}
}

func TestWithoutKeysNothingIsDecided(t *testing.T) {
	es := newSigner(t, "es", jwt.SigningMethodES256)
	server := newKeyServer(t, nil)
	server.say(http.StatusServiceUnavailable, []byte("hunter2"))
	k, _, out := running(t, func(c *jwks.Config) { c.URLs, c.TLS = []string{server.URL + "/?secret=hunter2"}, server.tls() })
	eventually(t, "the server is asked", func() bool { return strings.Contains(out.String(), "cannot be used") })
	if err := k.Verify(t.Context(), es.sign(t, good())); !errors.Is(err, jwks.ErrUndecided) || k.NotReady() == "" {
		t.Errorf("got %v, %q", err, k.NotReady())
	}
	server.say(http.StatusOK, keySet(t, es))
	ready(t, k)
	if err := k.Verify(t.Context(), es.sign(t, good())); err != nil {
		t.Error(err)
	}
	if strings.Contains(out.String(), "hunter2") {
		t.Errorf("a secret is in the log: %s", out)
	}
}

// A server that hands over to another one is not followed there.
func TestRedirectsAreNotFollowed(t *testing.T) {
	es := newSigner(t, "es", jwt.SigningMethodES256)
	other := newKeyServer(t, keySet(t, es))
	first := httptest.NewTLSServer(http.RedirectHandler(other.URL, http.StatusFound))
	defer first.Close()
	k, _, out := running(t, func(c *jwks.Config) { c.URLs, c.TLS = []string{first.URL}, other.tls() })
	eventually(t, "the answer is refused", func() bool { return strings.Contains(out.String(), "cannot be used") })
	if other.asked.Load() != 0 || k.NotReady() == "" {
		t.Error("the other server was asked")
	}
}

// Half of the keys are not the keys: tokens of the other half would be refused.
func TestEverySourceIsNeeded(t *testing.T) {
	es := newSigner(t, "es", jwt.SigningMethodES256)
	server := newKeyServer(t, keySet(t, es))
	gone := httptest.NewTLSServer(http.NotFoundHandler())
	gone.Close()
	k, _, out := running(t, func(c *jwks.Config) {
		c.URLs, c.TLS = []string{server.URL, gone.URL + "/?secret=hunter2"}, server.tls()
	})
	eventually(t, "one is read and one is not", func() bool {
		return strings.Contains(out.String(), "have been read") && strings.Contains(out.String(), "cannot be used")
	})
	if err := k.Verify(t.Context(), es.sign(t, good())); !errors.Is(err, jwks.ErrUndecided) {
		t.Errorf("got %v", err)
	}
	if strings.Contains(out.String(), "hunter2") {
		t.Errorf("a secret is in the log: %s", out)
	}
}

func TestUnusableAnswersChangeNothing(t *testing.T) {
	es := newSigner(t, "es", jwt.SigningMethodES256)
	for name, say := range map[string]struct {
		status int
		text   string
	}{
		"an error":     {500, "x"},
		"a redirect":   {302, "x"},
		"no JSON":      {200, "<html>"},
		"no keys":      {200, `{"keys":[]}`},
		"other JSON":   {200, `{"error":"x"}`},
		"a secret key": {200, `{"keys":[{"kty":"oct","kid":"es","k":"aHVudGVyMg"}]}`},
		"too large":    {200, strings.Repeat(" ", 1<<20) + `{"keys":[]}`},
	} {
		t.Run(name, func(t *testing.T) {
			server := newKeyServer(t, keySet(t, es))
			k, _, out := running(t, func(c *jwks.Config) { c.URLs, c.TLS = []string{server.URL}, server.tls() })
			ready(t, k)
			server.say(say.status, []byte(say.text))
			if k.Verify(t.Context(), newSigner(t, "unknown", jwt.SigningMethodES256).sign(t, good())) == nil {
				t.Error("an unknown key verifies")
			}
			eventually(t, "it is logged", func() bool { return strings.Contains(out.String(), "cannot be used") })
			if err := k.Verify(t.Context(), es.sign(t, good())); err != nil || k.NotReady() != "" {
				t.Errorf("the keys of before are gone: %v", err)
			}
		})
	}
}

func TestKeysThatAreNotForThis(t *testing.T) {
	es := newSigner(t, "es", jwt.SigningMethodES256)
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weak := signer{id: "weak", method: jwt.SigningMethodRS256, secret: short, public: short.Public()}
	text := string(keySet(t, es, weak))
	encryption := strings.Replace(text, `"kid":"es"`, `"kid":"es2"`, 1)
	encryption = strings.Replace(encryption, `"use":"sig"`, `"use":"enc"`, 1)
	path := filepath.Join(t.TempDir(), "keys.json")
	all := strings.TrimSuffix(text, "]}") + "," + strings.TrimPrefix(encryption, `{"keys":[`)
	if err := os.WriteFile(path, []byte(all), 0o600); err != nil {
		t.Fatal(err)
	}
	k, _, _ := running(t, func(c *jwks.Config) { c.Files = []string{path} })
	ready(t, k)
	if err := k.Verify(t.Context(), es.sign(t, good())); err != nil {
		t.Error(err)
	}
	if k.Verify(t.Context(), weak.sign(t, good())) == nil {
		t.Error("a key of 1,024 bits verifies")
	}
	es.id = "es2"
	if k.Verify(t.Context(), es.sign(t, good())) == nil {
		t.Error("a key for encryption verifies")
	}
}

func TestFilesAreReadAgain(t *testing.T) {
	first, second := newSigner(t, "1", jwt.SigningMethodES256), newSigner(t, "2", jwt.SigningMethodES256)
	path := filepath.Join(t.TempDir(), "keys.json")
	write := func(text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(keySet(t, first))
	k, _, out := running(t, func(c *jwks.Config) { c.Files = []string{path} })
	ready(t, k)
	write([]byte("half"))
	eventually(t, "the broken file is seen", func() bool { return strings.Contains(out.String(), "cannot be used") })
	if err := k.Verify(t.Context(), first.sign(t, good())); err != nil {
		t.Errorf("while the file is broken: %v", err)
	}
	write(keySet(t, second))
	eventually(t, "the new key is known", func() bool { return k.Verify(t.Context(), second.sign(t, good())) == nil })
	if k.Verify(t.Context(), first.sign(t, good())) == nil {
		t.Error("the old key still verifies")
	}
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := jwks.New(jwks.Config{Refresh: 1}); err == nil {
		t.Error("no source is accepted")
	}
	if _, err := jwks.New(jwks.Config{Files: []string{"x"}}); err == nil {
		t.Error("no interval is accepted")
	}
}
