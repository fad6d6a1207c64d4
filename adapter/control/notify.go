package control

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"sync"

	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/time/rate"
)

// Notify is the endpoint at which key managers announce revocations.
type Notify struct {
	Username     string
	Password     string // either this
	PasswordHash string // or bcrypt of it
	// Take stores what a body says, and returns when it is stored. An error that
	// wraps ErrNotUnderstood is the sender's, every other one ours.
	Take func(ctx context.Context, body []byte) error
}

// ErrNotUnderstood means that a body makes no revocation. The sender is told the
// whole error.
var ErrNotUnderstood = errors.New("the notification is not understood")

const (
	notifyPath       = "/internal/data/v1/notify"
	keyManagerHeader = "X-WSO2-KEY-MANAGER"
	maxNotify        = 4 << 20 // bytes of a body
	retryAfter       = "2"     // seconds, when the hub cannot take it

	// How often an address may be wrong about the password.
	failuresPerSecond = 0.2
	failuresAtOnce    = 5
	maxFailing        = 4096 // addresses that are remembered
)

// notifier serves Notify.
type notifier struct {
	cfg    Notify
	log    logrus.FieldLogger
	secret [sha256.Size]byte // of this process: makes user and password comparable in constant time

	checking sync.Mutex // held while credentials that are not remembered are looked at

	mu      sync.Mutex
	right   [sha256.Size]byte        // of what was right last: bcrypt is slow on purpose
	failing map[string]*rate.Limiter // by address
}

func newNotifier(cfg Notify, log logrus.FieldLogger) *notifier {
	n := &notifier{cfg: cfg, log: log, failing: map[string]*rate.Limiter{}}
	_, _ = rand.Read(n.secret[:]) // it never fails
	if cfg.PasswordHash == "" {
		n.right = n.digest(cfg.Username, cfg.Password)
	}
	return n
}

// ServeHTTP answers 200 when the log has what the body says, 4xx to what cannot
// be taken from this sender, and 503 to what another try may store.
func (n *notifier) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !n.authorised(w, r) {
		return
	}
	if r.Header.Get(keyManagerHeader) == "" {
		n.refuse(w, http.StatusBadRequest, "the header "+keyManagerHeader+" is missing")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxNotify))
	if err != nil {
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			n.refuse(w, http.StatusRequestEntityTooLarge, "the body is larger than "+strconv.Itoa(maxNotify)+" bytes")
		} else {
			n.refuse(w, http.StatusBadRequest, "the body does not end")
		}
		return
	}
	switch err := n.cfg.Take(r.Context(), body); {
	case err == nil:
		w.WriteHeader(http.StatusOK)
	case errors.Is(err, ErrNotUnderstood):
		n.refuse(w, http.StatusBadRequest, err.Error())
	default:
		n.log.WithError(err).Warn("A notification is not stored, its sender must try again")
		w.Header().Set("Retry-After", retryAfter)
		n.refuse(w, http.StatusServiceUnavailable, "it is not stored: try again")
	}
}

// authorised checks the credentials, and answers those that are wrong. Who was
// wrong too often is not checked at all for a while.
func (n *notifier) authorised(w http.ResponseWriter, r *http.Request) bool {
	from, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		from = r.RemoteAddr
	}
	if wait := n.wait(from); wait > 0 {
		n.tooMany(w, wait)
		return false
	}
	user, password, _ := r.BasicAuth()
	if n.remembers(user, password) {
		return true
	}
	n.checking.Lock() // one at a time: a wrong one counts before the next is looked at
	defer n.checking.Unlock()
	if wait := n.wait(from); wait > 0 {
		n.tooMany(w, wait)
		return false
	}
	if n.known(user, password) {
		return true
	}
	n.failed(from)
	n.log.WithField("from", from).Warn("A notification has wrong credentials")
	w.Header().Set("WWW-Authenticate", `Basic realm="revocation-adapter", charset="UTF-8"`)
	n.refuse(w, http.StatusUnauthorized, "wrong credentials")
	return false
}

func (n *notifier) tooMany(w http.ResponseWriter, wait int) {
	w.Header().Set("Retry-After", strconv.Itoa(wait))
	n.refuse(w, http.StatusTooManyRequests, "too many wrong credentials from this address")
}

// remembers says whether these are the credentials that were right before.
func (n *notifier) remembers(user, password string) bool {
	given := n.digest(user, password)
	n.mu.Lock()
	right := n.right
	n.mu.Unlock()
	return hmac.Equal(given[:], right[:])
}

func (n *notifier) known(user, password string) bool {
	if n.cfg.PasswordHash == "" {
		return n.remembers(user, password)
	}
	given := n.digest(user, password)
	wrong := bcrypt.CompareHashAndPassword([]byte(n.cfg.PasswordHash), []byte(password))
	u, want := n.digest(user, ""), n.digest(n.cfg.Username, "")
	if !hmac.Equal(u[:], want[:]) || wrong != nil {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.right = given
	return true
}

func (n *notifier) digest(user, password string) (sum [sha256.Size]byte) {
	mac := hmac.New(sha256.New, n.secret[:])
	mac.Write([]byte(user + "\x00" + password))
	mac.Sum(sum[:0])
	return sum
}

// wait is for how many seconds an address is not checked.
func (n *notifier) wait(from string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	limiter := n.failing[from]
	if limiter == nil || limiter.Tokens() >= 1 {
		return 0
	}
	return int(math.Ceil((1 - limiter.Tokens()) / failuresPerSecond))
}

func (n *notifier) failed(from string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failing[from] == nil {
		if len(n.failing) == maxFailing {
			clear(n.failing)
		}
		n.failing[from] = rate.NewLimiter(failuresPerSecond, failuresAtOnce)
	}
	n.failing[from].Allow()
}

func (n *notifier) refuse(w http.ResponseWriter, code int, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(map[string]string{"error": reason}); err != nil {
		n.log.WithError(err).Debug("An answer could not be sent")
	}
}
