package messaging

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"revocation-adapter/revocation"
)

// The faults of grants.
var (
	ErrNoGrant      = errors.New("the registry knows no such token")
	ErrGrant        = errors.New("not a grant")
	ErrGrantExpired = errors.New("the access token has expired, the grant is not kept")
	ErrGrantsFull   = errors.New("the registry of grants is full")
	ErrGrantsMany   = fmt.Errorf("more than %d access tokens live of one refresh token", MaxAccess)
)

// MaxAccess is how many access tokens of one refresh token are kept at a time.
const MaxAccess = 64

// DefaultMaxGrants is how many tokens the registry holds, access and refresh.
const DefaultMaxGrants = 2_000_000

// grantBatches bounds the atomic batches in flight, of this registry.
const grantBatches = 8

// Grants is the registry of tokens that were issued: which access tokens live of a
// refresh token, and whose they are. It holds digests and jtis, no token. Replicas
// share it: what was put at one is found at all. Any number of goroutines may use
// it.
type Grants struct {
	hub     *Hub
	writer  *Writer
	slots   chan struct{} // one entry per atomic batch in flight
	writing chan struct{} // one entry while a caller of Put writes

	mu      sync.Mutex  // guards what follows
	queue   []*granting // of callers of Put, that nobody writes yet
	seen    seenGrants
	tokens  uint64    // in the registry, as it was counted last
	counted time.Time // when; zero: never
}

// NewGrants returns the registry that hub keeps.
func NewGrants(hub *Hub) *Grants {
	return &Grants{
		hub: hub, writer: NewWriter(hub, revocation.NewLog(hub.cfg.Grace)),
		slots: make(chan struct{}, grantBatches), writing: make(chan struct{}, 1),
	}
}

// Put adds a grant, or what it says that is new, and returns when it is found at
// every replica. The first ever takes a second. After an error nobody knows
// whether it is there, and it may be put again; but for ErrGrant, ErrGrantExpired,
// ErrGrantsFull and ErrGrantsMany, with which nothing was stored.
func (g *Grants) Put(ctx context.Context, grant Grant) error {
	if err := g.putTogether(ctx, grant); err != nil {
		return err
	}
	return g.settled(ctx)
}

// Access returns the grant of an access token, or ErrNoGrant.
func (g *Grants) Access(ctx context.Context, d revocation.Domain, digest revocation.Digest) (Grant, error) {
	data, err := g.find(ctx, accessSubject(d, digest))
	if err != nil {
		return Grant{}, err
	}
	return decodeAccessGrant(data)
}

// Refresh returns what was issued with a refresh token and lives, or ErrNoGrant.
func (g *Grants) Refresh(ctx context.Context, digest revocation.Digest) (RefreshGrant, error) {
	data, err := g.find(ctx, refreshSubject(digest))
	if err != nil {
		return RefreshGrant{}, err
	}
	grant, err := decodeRefreshGrant(data)
	grant.Access = g.living(grant.Access)
	return grant, err
}

// find reads from the leader, unless nothing was ever put.
func (g *Grants) find(ctx context.Context, subject string) (data []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	if empty, err := g.empty(ctx); err != nil || empty {
		return nil, cmp.Or(err, ErrNoGrant)
	}
	data, _, err = g.read(ctx, subject)
	return data, err
}

func (g *Grants) read(ctx context.Context, subject string) (data []byte, sequence uint64, err error) {
	msg, err := g.hub.grants.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, 0, ErrNoGrant
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read a grant: %w", err)
	}
	return msg.Data, msg.Sequence, nil
}

// living are the tokens that still count.
func (g *Grants) living(tokens []GrantToken) (live []GrantToken) {
	now := g.hub.cfg.Now()
	for _, t := range tokens {
		if !t.expired(now, g.hub.cfg.Grace) {
			live = append(live, t)
		}
	}
	return live
}

func (t GrantToken) expired(now time.Time, grace time.Duration) bool {
	return revocation.Revocation{Expiry: t.Expiry}.Expired(now, grace)
}

func accessSubject(d revocation.Domain, digest revocation.Digest) string {
	return "grants.access." + d.String() + "." + digest.String()
}

func refreshSubject(digest revocation.Digest) string { return "grants.refresh." + digest.String() }
