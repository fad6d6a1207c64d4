// Package basicauth checks user name and password of whoever uses an endpoint.
//
// It compares in constant time, and stops guessing: an address, or a network of IPv6,
// that was wrong too often is not checked for a while.
package basicauth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"

	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/bcrypt"

	"revocation-adapter/config/throttle"
)

// Credentials are those that are admitted.
type Credentials struct {
	Username     string
	Password     string // either this
	PasswordHash string // or bcrypt of it
}

// Guard admits who knows the credentials.
type Guard struct {
	cfg    Credentials
	realm  string
	log    logrus.FieldLogger
	secret [sha256.Size]byte // of this process: makes user and password comparable in constant time

	checking sync.Mutex // held while credentials that are not remembered are looked at

	failing *throttle.Failures

	mu    sync.Mutex
	right [sha256.Size]byte // of what was right last: bcrypt is slow on purpose
}

// New returns a Guard. The realm is what a browser shows.
func New(cfg Credentials, realm string, log logrus.FieldLogger) *Guard {
	g := &Guard{cfg: cfg, realm: realm, log: log, failing: throttle.New()}
	_, _ = rand.Read(g.secret[:]) // it never fails
	if cfg.PasswordHash == "" {
		g.right = g.digest(cfg.Username, cfg.Password)
	}
	return g
}

// Admits checks the credentials of a request, and answers those that are wrong. Who was
// wrong too often is not checked at all for a while.
func (g *Guard) Admits(w http.ResponseWriter, r *http.Request) bool {
	from := throttle.From(r)
	network := throttle.Network(from)
	if wait := g.failing.Wait(network); wait > 0 {
		g.tooMany(w, wait)
		return false
	}
	user, password, _ := r.BasicAuth()
	if g.remembers(user, password) {
		return true
	}
	g.checking.Lock() // one at a time: a wrong one counts before the next is looked at
	defer g.checking.Unlock()
	if wait := g.failing.Wait(network); wait > 0 {
		g.tooMany(w, wait)
		return false
	}
	if g.known(user, password) {
		return true
	}
	g.failing.Add(network)
	g.log.WithFields(logrus.Fields{"from": from, "path": r.URL.Path}).Warn("A request has wrong credentials")
	w.Header().Set("WWW-Authenticate", `Basic realm="`+g.realm+`", charset="UTF-8"`)
	g.refuse(w, http.StatusUnauthorized, "wrong credentials")
	return false
}

func (g *Guard) tooMany(w http.ResponseWriter, wait int) {
	w.Header().Set("Retry-After", strconv.Itoa(wait))
	g.refuse(w, http.StatusTooManyRequests, "too many wrong credentials from this address")
}

// remembers says whether these are the credentials that were right before.
func (g *Guard) remembers(user, password string) bool {
	given := g.digest(user, password)
	g.mu.Lock()
	right := g.right
	g.mu.Unlock()
	return hmac.Equal(given[:], right[:])
}

func (g *Guard) known(user, password string) bool {
	if g.cfg.PasswordHash == "" {
		return g.remembers(user, password)
	}
	given := g.digest(user, password)
	wrong := bcrypt.CompareHashAndPassword([]byte(g.cfg.PasswordHash), []byte(password))
	u, want := g.digest(user, ""), g.digest(g.cfg.Username, "")
	if !hmac.Equal(u[:], want[:]) || wrong != nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.right = given
	return true
}

func (g *Guard) digest(user, password string) (sum [sha256.Size]byte) {
	mac := hmac.New(sha256.New, g.secret[:])
	mac.Write([]byte(user + "\x00" + password))
	mac.Sum(sum[:0])
	return sum
}

func (g *Guard) refuse(w http.ResponseWriter, code int, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(map[string]string{"error": reason}); err != nil {
		g.log.WithError(err).Debug("An answer could not be sent")
	}
}
