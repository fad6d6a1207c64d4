// Package history records what a run published and what its gateways received,
// and judges it.
//
// Check is a pure function of a History: it does no I/O and reads no clock. It
// knows the adapter's merge rule from package revocation, and nothing else of
// the adapter.
package history

import (
	"time"

	"revocation-adapter/revocation"
)

// History is all that was seen from outside. Its times are since it began.
type History struct {
	Began time.Time // on the wall clock, to which expiries refer
	End   time.Duration
	Grace time.Duration // that the adapter adds to expiries

	Gateways  []Gateway
	Events    []Event
	Responses []Response // of each gateway in the order in which it got them
	Faults    []Fault
	Hub       map[string]revocation.State // what the hub says of every jti at the end
}

// Gateway is a client of the adapter that fails over between replicas.
type Gateway struct {
	Name  string
	Delta bool // else state of the world, which can only add
}

// Event is one event of which its publisher wanted an acknowledgement. Of one
// jti a publisher begins the next event when it has that of the last.
type Event struct {
	JTI    string
	ID     string // the same for a repeat
	State  revocation.State
	Expiry int64         // milliseconds since the epoch
	Sent   time.Duration // for the first time
	Acked  time.Duration // 0: never, so that nobody knows whether it is stored

	Enforced int           // gateways, as the receipt has it
	Told     time.Duration // when the receipt came
}

// Response is what a gateway got and acknowledged.
type Response struct {
	Gateway int // index in History.Gateways
	Replica int
	At      time.Duration
	Version uint64
	Added   []string
	Removed []string
}

// Fault is what was broken, until all was as before.
type Fault struct {
	Kind     string
	From, To time.Duration
}
