// Package throttle stops guessing: an address that was wrong too often is not
// looked at for a while.
package throttle

import (
	"math"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"golang.org/x/time/rate"
)

// How often an address may be wrong.
const (
	failuresPerSecond = 0.2
	failuresAtOnce    = 5
	maxFailing        = 4096 // addresses that are remembered
)

// Failures remembers addresses that were wrong. Any number of goroutines may use it.
type Failures struct {
	mu        sync.Mutex
	byAddress map[string]*rate.Limiter
}

// New returns Failures that remember nobody.
func New() *Failures { return &Failures{byAddress: map[string]*rate.Limiter{}} }

// Wait is for how many seconds an address is not looked at; 0: it is.
func (f *Failures) Wait(from string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	limiter := f.byAddress[from]
	if limiter == nil || limiter.Tokens() >= 1 {
		return 0
	}
	return int(math.Ceil((1 - limiter.Tokens()) / failuresPerSecond))
}

// Add notes that an address was wrong.
func (f *Failures) Add(from string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byAddress[from] == nil {
		if len(f.byAddress) == maxFailing {
			clear(f.byAddress)
		}
		f.byAddress[from] = rate.NewLimiter(failuresPerSecond, failuresAtOnce)
	}
	f.byAddress[from].Allow()
}

// Network is whom an address counts for: itself, and of IPv6 the network of 64 bits
// that one host may have.
func Network(from string) string {
	ip, err := netip.ParseAddr(from)
	if err != nil {
		return from
	}
	if ip = ip.Unmap().WithZone(""); ip.Is6() {
		if network, err := ip.Prefix(64); err == nil {
			return network.String()
		}
	}
	return ip.String()
}

// From is the address that a request comes from, without its port.
func From(r *http.Request) string {
	from, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return from
}
