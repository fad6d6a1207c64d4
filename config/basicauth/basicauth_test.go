package basicauth_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/bcrypt"

	"revocation-adapter/config/basicauth"
)

// try asks once from an address, and returns the status.
func try(g *basicauth.Guard, from, user, password string) int {
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/secret", nil)
	r.RemoteAddr = net.JoinHostPort(from, "1")
	if user != "" {
		r.SetBasicAuth(user, password)
	}
	if g.Admits(w, r) {
		return http.StatusOK
	}
	return w.Code
}

func TestGuard(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("hunter2"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for way, c := range map[string]basicauth.Credentials{
		"password": {Username: "u", Password: "hunter2"}, "hash": {Username: "u", PasswordHash: string(hash)},
	} {
		var out bytes.Buffer
		log := logrus.New()
		log.SetOutput(&out)
		g := basicauth.New(c, "realm", log)
		for range 2 {
			if code := try(g, "10.0.0.1", "u", "hunter2"); code != http.StatusOK {
				t.Errorf("%s: known: %d", way, code)
			}
		}
		for _, wrong := range [][2]string{{"", ""}, {"u", "hunter3"}, {"U", "hunter2"}, {"", "u\x00hunter2"}, {"u", ""}} {
			if code := try(g, "10.0.0.2", wrong[0], wrong[1]); code != http.StatusUnauthorized {
				t.Errorf("%s: %q: %d", way, wrong, code)
			}
		}
		if code := try(g, "10.0.0.2", "u", "hunter2"); code != http.StatusTooManyRequests {
			t.Errorf("%s: after five guesses: %d", way, code)
		}
		if code := try(g, "10.0.0.1", "u", "hunter2"); code != http.StatusOK {
			t.Errorf("%s: another address: %d", way, code)
		}
		if strings.Contains(out.String(), "hunter") || !strings.Contains(out.String(), "path=/secret") {
			t.Errorf("%s: log: %s", way, &out)
		}
	}
}

// One host has a whole IPv6 network: all of it has the guesses of one address.
func TestGuardCountsANetworkAsOne(t *testing.T) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	g := basicauth.New(basicauth.Credentials{Username: "u", Password: "hunter2"}, "realm", log)
	for i := range 5 {
		if code := try(g, fmt.Sprintf("2001:db8::%x", i+1), "u", "guess"); code != http.StatusUnauthorized {
			t.Errorf("guess %d: %d", i, code)
		}
	}
	if code := try(g, "2001:db8::99", "u", "guess"); code != http.StatusTooManyRequests {
		t.Errorf("one more: %d", code)
	}
	if code := try(g, "2001:db8:0:1::1", "u", "hunter2"); code != http.StatusOK {
		t.Errorf("another network: %d", code)
	}
}
