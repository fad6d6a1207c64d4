// Package clients knows who may use the control API, and what each may do.
//
// Clients stand in the configuration or in the hub; one of the configuration
// counts before one of the same name in the hub. Secrets are kept as bcrypt
// alone, and whoever guesses is slowed down.
package clients

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/time/rate"

	"revocation-adapter/config/throttle"
)

// Entry is a client as it is configured.
type Entry struct {
	ID         string
	SecretHash string // bcrypt
	Roles      []string
	Limits
}

// Limits are what a client may ask for; 0: the registry's own.
type Limits struct {
	RequestsPerSecond int
	MaxBody           int // bytes
}

// Config says who is known.
type Config struct {
	Clients []Entry // of the configuration
	Limits          // of those that name none; 0 requests: no limit
}

// Client is who has shown its secret.
type Client struct {
	Entry
	limit *rate.Limiter // nil: none
	right atomic.Pointer[[sha256.Size]byte]
	waits *atomic.Int32 // shared by all that had this name
}

// Has says whether the client has a role.
func (c *Client) Has(role string) bool { return slices.Contains(c.Roles, role) }

// Allow says whether the client may ask for something more now.
func (c *Client) Allow() bool { return c.limit == nil || c.limit.Allow() }

// MaxWaits is how many calls of a client may wait for gateways at the same time: while
// one of those is held back, each has every replica asked once a second.
const MaxWaits = 512

// Wait says whether one more call of the client may wait for gateways. That calls done
// when it has waited.
func (c *Client) Wait() (done func(), ok bool) {
	if c.waits.Add(1) > MaxWaits {
		c.waits.Add(-1)
		return func() {}, false
	}
	return func() { c.waits.Add(-1) }, true
}

// Registry is the clients that are known. Any number of goroutines may use it.
type Registry struct {
	cfg     Config
	file    map[string]*Client
	hub     atomic.Pointer[map[string]*Client]
	failing *throttle.Failures // by address and client
	secret  [sha256.Size]byte  // of this process: makes secrets comparable in constant time

	mu      sync.Mutex
	bearers map[string]*Client // by name

	// Held while bcrypt computes: one at a time, so that guessing costs one core at
	// most. Names that nobody has do not hold up those that somebody has.
	checking, checkingStrangers sync.Mutex
	waiting                     atomic.Int32 // for checkingStrangers
}

// New returns a registry of the configuration's clients.
func New(cfg Config) (*Registry, error) {
	r := &Registry{cfg: cfg, file: map[string]*Client{}, bearers: map[string]*Client{}, failing: throttle.New()}
	_, _ = rand.Read(r.secret[:]) // it never fails
	for _, e := range cfg.Clients {
		if r.file[e.ID] != nil {
			return nil, fmt.Errorf("two clients are called %q", e.ID)
		}
		r.file[e.ID] = r.client(e)
	}
	r.Replace(nil)
	return r, nil
}

func (r *Registry) client(e Entry) *Client {
	if e.RequestsPerSecond == 0 {
		e.RequestsPerSecond = r.cfg.RequestsPerSecond
	}
	if e.MaxBody == 0 {
		e.MaxBody = r.cfg.MaxBody
	}
	c := &Client{Entry: e, waits: &atomic.Int32{}}
	if n := e.RequestsPerSecond; n > 0 {
		c.limit = rate.NewLimiter(rate.Limit(n), 2*n)
	}
	return c
}

// Replace takes the clients of the hub in place of those it had. Who is the same
// need not show that its secret is right again.
func (r *Registry) Replace(stored []Entry) {
	before, now := r.hub.Load(), make(map[string]*Client, len(stored))
	for _, e := range stored {
		c := r.client(e)
		if before != nil && (*before)[e.ID] != nil {
			c.follow((*before)[e.ID])
		}
		now[e.ID] = c
	}
	r.hub.Store(&now)
}

// follow takes over what counts on of the client that had the name before.
func (c *Client) follow(old *Client) {
	c.waits = old.waits
	if old.RequestsPerSecond == c.RequestsPerSecond {
		c.limit = old.limit
	}
	if old.SecretHash == c.SecretHash {
		c.right.Store(old.right.Load())
	}
}

// Find returns the client of a name, nil if there is none.
func (r *Registry) Find(id string) *Client {
	if c := r.file[id]; c != nil {
		return c
	}
	return (*r.hub.Load())[id]
}

// Bearer is somebody who has shown a token in place of a secret. All that go by one
// name share what they may ask for, which is none of what a client of that name may.
func (r *Registry) Bearer(e Entry) *Client {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.bearers[e.ID]; c != nil {
		return c
	}
	if len(r.bearers) >= maxBearers {
		clear(r.bearers)
	}
	c := r.client(e)
	r.bearers[e.ID] = c
	return c
}

// maxBearers is how many are remembered.
const maxBearers = 4096

// Len is how many clients there are.
func (r *Registry) Len() int { return len(r.file) + len(*r.hub.Load()) }

// ErrWrong means that nobody has these credentials.
var ErrWrong = errors.New("unknown client, or wrong secret")

// TooManyError means that wrong credentials came too often.
type TooManyError struct{ Seconds int } // until it may be tried again

func (e TooManyError) Error() string {
	return fmt.Sprintf("too many wrong secrets for this client from this address: try again in %d s", e.Seconds)
}

// noHash is compared with where there is no such client, so that it takes as long.
const noHash = "$2a$10$n3FGfNOtBUR3E4mjo3BwR.W7cDP9G9ofG0Mo4MQFM3O2fUrXXQ/oC"

// maxWaiting bounds how many names that nobody has are looked at, one by one.
const maxWaiting = 32

// Authenticate returns the client of these credentials, which came from an
// address. The secret may be given in more than one reading, of which one must be
// right. Its error is ErrWrong or a TooManyError.
func (r *Registry) Authenticate(from, id string, readings ...string) (*Client, error) {
	c := r.Find(id)
	if r.remembers(c, readings) {
		return c, nil
	}
	network := r.digest(throttle.Network(from), id) // names may be long
	who := string(network[:])
	if wait := r.failing.Wait(who); wait > 0 {
		return nil, TooManyError{wait}
	}
	lane := &r.checking
	if c == nil {
		lane = &r.checkingStrangers
		defer r.waiting.Add(-1)
		if r.waiting.Add(1) > maxWaiting {
			return nil, TooManyError{1}
		}
	}
	lane.Lock()
	defer lane.Unlock()
	if r.remembers(c, readings) { // somebody else has shown it meanwhile
		return c, nil
	}
	if wait := r.failing.Wait(who); wait > 0 {
		return nil, TooManyError{wait}
	}
	hash := noHash
	if c != nil {
		hash = c.SecretHash
	}
	for _, secret := range readings {
		if bcrypt.CompareHashAndPassword([]byte(hash), []byte(secret)) == nil && c != nil {
			given := r.digest(id, secret)
			c.right.Store(&given)
			return c, nil
		}
	}
	r.failing.Add(who)
	return nil, ErrWrong
}

// remembers says whether one of the readings is the secret that was right before:
// bcrypt is slow on purpose.
func (r *Registry) remembers(c *Client, readings []string) bool {
	if c == nil || c.right.Load() == nil {
		return false
	}
	right := c.right.Load()
	return slices.ContainsFunc(readings, func(secret string) bool {
		given := r.digest(c.ID, secret)
		return hmac.Equal(given[:], right[:])
	})
}

func (r *Registry) digest(id, secret string) (sum [sha256.Size]byte) {
	mac := hmac.New(sha256.New, r.secret[:])
	mac.Write([]byte(id + "\x00" + secret))
	mac.Sum(sum[:0])
	return sum
}

// NewSecret makes a secret, 256 random bits as text, and bcrypt of it.
func NewSecret() (secret, hash string, err error) {
	text := rand.Text() + rand.Text()
	sum, err := bcrypt.GenerateFromPassword([]byte(text), bcrypt.DefaultCost)
	return text, string(sum), err
}
