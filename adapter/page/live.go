package page

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"

	"revocation-adapter/adapter/receipts"
)

// How much of the past the page shows.
const (
	keptChanges    = 50
	keptDeliveries = 120
	keptGone       = 4096 // gateways that are no longer there
)

// live is what the page shows now, at one position that rises with every update.
// A stream is a position in it: who is slow gets what changed since, once.
type live struct {
	mu         sync.Mutex
	position   uint64
	dirty      bool
	next       chan struct{} // closed at the next update
	values     map[string]value
	changes    []change   // the oldest first
	deliveries []delivery // the oldest first
	listed     uint64     // the position at which gateways were told first; 0: not yet
	gateways   map[string]row
	gone       []goneGateway // the oldest first
	forgotten  uint64        // up to which position gone is not complete
}

// value is a part of what the page shows that is sent whole.
type value struct {
	text json.RawMessage
	at   uint64 // the position at which it became so
}

// change is what became of one key.
type change struct {
	Version uint64 `json:"version"`
	Name    string `json:"name"` // as it is outside
	Domain  string `json:"domain"`
	State   string `json:"state"`
	Expires int64  `json:"expires_at,omitempty"` // milliseconds since the epoch; 0: never
	Tenant  string `json:"tenant,omitempty"`
	Seen    int64  `json:"seen,omitempty"` // when this replica learnt of it, likewise; 0: before the page was there
	at      uint64
}

// delivery is how long a version took to the last gateway.
type delivery struct {
	Time        int64   `json:"time"` // at which it began, milliseconds since the epoch
	Version     uint64  `json:"version"`
	Took        float64 `json:"took_ms"`
	Enforced    int     `json:"enforced"`
	Pending     int     `json:"pending"` // after Took
	Unreachable int     `json:"unreachable"`
	at          uint64
}

type row struct {
	receipts.Gateway
	at    uint64
	whole uint64 // the position at which more changed than its version
}

type goneGateway struct {
	key string
	at  uint64
}

func newLive() *live {
	return &live{next: make(chan struct{}), values: map[string]value{}, gateways: map[string]row{}}
}

// publish makes what was put visible, as one update.
func (l *live) publish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.dirty {
		return
	}
	l.dirty = false
	l.position++
	close(l.next)
	l.next = make(chan struct{})
}

// mark returns the position of what is put now, and wants the lock held.
func (l *live) mark() uint64 {
	l.dirty = true
	return l.position + 1
}

// put shows a value that is sent whole when it changes.
func (l *live) put(name string, what any) error {
	text, err := json.Marshal(what)
	if err != nil {
		return fmt.Errorf("show %s: %w", name, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !bytes.Equal(l.values[name].text, text) {
		l.values[name] = value{text, l.mark()}
	}
	return nil
}

func (l *live) addChanges(list []change) {
	if len(list) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.mark()
	for _, c := range list {
		c.at = at
		l.changes = append(l.changes, c)
	}
	l.changes = lastOf(l.changes, keptChanges)
}

func (l *live) addDelivery(d delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d.at = l.mark()
	l.deliveries = lastOf(append(l.deliveries, d), keptDeliveries)
}

// lastOf copies, so that what was cut off is not held.
func lastOf[T any](list []T, n int) []T {
	if len(list) <= n {
		return list
	}
	return slices.Clone(list[len(list)-n:])
}

// setGateways shows the gateways that there are.
func (l *live) setGateways(list []receipts.Gateway) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listed == 0 {
		l.listed = l.mark()
	}
	there := make(map[string]bool, len(list))
	for _, g := range list {
		key := keyOf(g)
		there[key] = true
		if old, known := l.gateways[key]; !known || !same(old.Gateway, g) {
			l.gateways[key] = row{Gateway: g, at: l.mark(), whole: l.mark()}
		} else if old.Version != g.Version || old.Lag != g.Lag {
			l.gateways[key] = row{Gateway: g, at: l.mark(), whole: old.whole}
		}
	}
	for key := range maps.Keys(l.gateways) {
		if !there[key] {
			delete(l.gateways, key)
			l.gone = append(l.gone, goneGateway{key, l.mark()})
		}
	}
	if over := len(l.gone) - keptGone; over > 0 {
		l.forgotten = l.gone[over-1].at
		l.gone = slices.Clone(l.gone[over:])
	}
}

// same says whether nothing is different but how far they are.
func same(a, b receipts.Gateway) bool {
	a.Version, a.Lag = b.Version, b.Lag
	return reflect.DeepEqual(a, b)
}

// keyOf tells gateways apart: one may be at two replicas while it moves.
func keyOf(g receipts.Gateway) string { return g.Name + "\x00" + g.Replica }
