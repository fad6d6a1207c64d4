// Package page is the operator's page on the adapter's control port.
//
// It serves a page of plain HTML, CSS and JavaScript modules, embedded in the
// process, to clients with the role of an operator. It keeps their sessions, and
// streams to them what changes, at most four times a second whatever the rate of
// revocations. It changes nothing by itself: what an operator does, the page's
// script asks of the control API, which accepts the session (Principal).
package page

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/sirupsen/logrus"

	"revocation-adapter/adapter/receipts"
	"revocation-adapter/config/process"
	"revocation-adapter/revocation"
)

// RoleOperator is the role without which nobody gets in.
const RoleOperator = "operator"

// Config says what the page shows, and who may see it. Functions may be called by
// any number of goroutines.
type Config struct {
	Revocations *revocation.Log
	Status      func() any // as /readyz tells it: ready, reason and the like
	Sources     func() any // as /sources tells it

	// DeadLetters counts them. Nil: the page shows no count.
	DeadLetters func(ctx context.Context) (int, error)
	// Gateways and Await are those of package receipts.
	Gateways func(ctx context.Context) ([]receipts.Gateway, error)
	Await    func(ctx context.Context, q receipts.Query, wait time.Duration) (receipts.Receipt, error)

	// Stored is when the hub stored what became of a key, with which the time to the
	// last gateway begins. Nil: it begins with the publication on this replica.
	Stored func(ctx context.Context, c revocation.Change) (time.Time, error)

	// Authenticate returns the roles of a client. An error means that id or secret
	// is wrong, unless it wraps ErrCannotTell. From is the address that asks.
	Authenticate func(ctx context.Context, from, id, secret string) (roles []string, err error)
	// Operator says, from memory, whether a client that has signed in is still an
	// operator. It is asked at every request of a session, and every second. Nil:
	// for as long as the session lasts.
	Operator func(id string) bool
	// Secret is, from memory, something that changes when the secret of a client does:
	// its sessions end then. Nil: they do not.
	Secret func(id string) string

	Log  logrus.FieldLogger
	Now  func() time.Time // nil: time.Now
	Idle time.Duration    // after which a session ends; 0: DefaultIdle
}

// DefaultIdle is how long a session lasts in which nobody does anything.
const DefaultIdle = 15 * time.Minute

// ErrCannotTell means that credentials cannot be checked now.
var ErrCannotTell = errors.New("credentials cannot be checked now")

// Page is the operator's page. Any number of requests may use it.
type Page struct {
	cfg      Config
	assets   map[string]asset
	sessions *sessions
	guesses  *guesses
	checking chan struct{} // holds one value per credentials that are being checked
	slots    chan struct{} // holds one value per open stream
	looked   chan struct{} // holds a value when somebody has begun to look
	live     *live
	stopped  chan struct{} // closed when Run ends
}

// New checks the configuration and starts nothing.
func New(cfg Config) (*Page, error) {
	if err := check(cfg); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Idle == 0 {
		cfg.Idle = DefaultIdle
	}
	all, err := loadAssets()
	if err != nil {
		return nil, err
	}
	return &Page{
		cfg: cfg, assets: all,
		sessions: newSessions(cfg.Now, cfg.Idle), guesses: newGuesses(cfg.Now),
		checking: make(chan struct{}, maxChecking), slots: make(chan struct{}, maxStreams),
		looked: make(chan struct{}, 1), live: newLive(), stopped: make(chan struct{}),
	}, nil
}

func check(cfg Config) error {
	for name, missing := range map[string]bool{
		"Revocations": cfg.Revocations == nil, "Status": cfg.Status == nil, "Sources": cfg.Sources == nil,
		"Gateways": cfg.Gateways == nil, "Await": cfg.Await == nil, "Authenticate": cfg.Authenticate == nil,
		"Log": cfg.Log == nil,
	} {
		if missing {
			return fmt.Errorf("page: %s is missing", name)
		}
	}
	if cfg.Idle < 0 {
		return fmt.Errorf("page: a session cannot end after %s", cfg.Idle)
	}
	return nil
}

// Register adds the page and what it needs to mux: GET / and all below /page/.
func (p *Page) Register(mux *http.ServeMux) {
	for pattern, handle := range map[string]http.HandlerFunc{
		"GET /{$}":                p.index,
		"GET /page/assets/{name}": p.asset,
		"GET /page/session":       p.whoIsIt,
		"POST /page/session":      p.signIn,
		"DELETE /page/session":    p.signOut,
		"GET /page/events":        p.events,
		"GET /page/receipts":      p.followReceipt,
	} {
		mux.Handle(pattern, Secure(handle))
	}
}

// Run keeps what the page shows up to date, and ends sessions when their time is
// over. All streams end when it does. It is called once.
func (p *Page) Run(ctx context.Context) error {
	defer close(p.stopped)
	return process.Together(ctx, p.follow, p.watchGateways, p.measure)
}
