package page

import (
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"revocation-adapter/config/throttle"
)

// How often an address may try to sign in. Who gets in begins anew.
const (
	triesPerSecond = 0.2
	triesAtOnce    = 5
	maxTrying      = 4096 // addresses that are told apart
	maxChecking    = 2    // credentials that are checked at a time: bcrypt is slow on purpose
)

// guesses limits how fast secrets are guessed, by address.
type guesses struct {
	now func() time.Time

	mu     sync.Mutex
	trying map[string]*rate.Limiter
}

func newGuesses(now func() time.Time) *guesses {
	return &guesses{now: now, trying: map[string]*rate.Limiter{}}
}

// try takes one try of an address, and returns after how many seconds the next is
// due if it has none; else 0.
func (g *guesses) try(address string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	limiter, now := g.limiter(throttle.Network(address)), g.now()
	if limiter.AllowN(now, 1) {
		return 0
	}
	return max(1, int(math.Ceil((1-limiter.TokensAt(now))/triesPerSecond)))
}

// limiter wants the lock held. Addresses beyond the bound share one: forgetting
// some would give whoever has many addresses as many tries.
func (g *guesses) limiter(address string) *rate.Limiter {
	if l := g.trying[address]; l != nil {
		return l
	}
	if len(g.trying) >= maxTrying {
		g.forgetIdle()
	}
	if len(g.trying) >= maxTrying {
		address = ""
	}
	if g.trying[address] == nil {
		g.trying[address] = rate.NewLimiter(triesPerSecond, triesAtOnce)
	}
	return g.trying[address]
}

func (g *guesses) forgetIdle() {
	now := g.now()
	for address, l := range g.trying {
		if l.TokensAt(now) >= triesAtOnce {
			delete(g.trying, address)
		}
	}
}

func (g *guesses) succeeded(address string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.trying, throttle.Network(address))
}
