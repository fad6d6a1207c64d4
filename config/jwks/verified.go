package jwks

import (
	"crypto/sha256"
	"sync"
	"time"
)

const (
	rememberAtMost = 5 * time.Minute // a token that was verified
	maxVerified    = 16_384          // tokens in each of two generations, about 100 bytes each
)

// verified remembers tokens that were verified with one set of keys, by their
// SHA-256, until they expire. With other keys it is another one.
type verified struct {
	mu         sync.Mutex
	young, old map[[sha256.Size]byte]time.Time // until when
}

// has says whether a token was verified and is still in force.
func (v *verified) has(token [sha256.Size]byte, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	until, found := v.young[token]
	if !found {
		if until, found = v.old[token]; found {
			v.put(token, until) // it is in use
		}
	}
	return found && now.Before(until)
}

// add remembers a token until it expires; the zero time is never.
func (v *verified) add(token [sha256.Size]byte, now, expiry time.Time) {
	until := now.Add(rememberAtMost)
	if !expiry.IsZero() && expiry.Before(until) {
		until = expiry
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.put(token, until)
}

// put drops the older generation when the younger one is full.
func (v *verified) put(token [sha256.Size]byte, until time.Time) {
	if len(v.young) >= maxVerified || v.young == nil {
		v.young, v.old = map[[sha256.Size]byte]time.Time{}, v.young
	}
	v.young[token] = until
}
