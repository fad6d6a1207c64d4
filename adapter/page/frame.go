package page

import (
	"encoding/json"
	"slices"

	"revocation-adapter/adapter/receipts"
)

// frame is one update of a stream: what changed since its last.
type frame struct {
	Whole      bool                       `json:"whole,omitempty"` // the first: everything there is
	Values     map[string]json.RawMessage `json:"values,omitempty"`
	Changes    []change                   `json:"changes,omitempty"`
	Deliveries []delivery                 `json:"deliveries,omitempty"`
	Gateways   *gatewaysDiff              `json:"gateways,omitempty"`
}

// gatewaysDiff is what changed of the gateways. A gateway is sent whole when it is
// new, and only how far it is when nothing else is different.
type gatewaysDiff struct {
	Whole bool           `json:"whole,omitempty"` // set is all there are
	Set   []keyedGateway `json:"set,omitempty"`
	Moved []movedGateway `json:"moved,omitempty"`
	Gone  []string       `json:"gone,omitempty"` // keys
}

type keyedGateway struct {
	Key string `json:"key"`
	receipts.Gateway
}

type movedGateway struct {
	Key     string `json:"key"`
	Version uint64 `json:"version"`
	Lag     uint64 `json:"lag"`
}

// since returns what changed after a position, the position that it leads to, and
// what is closed at the next update. Since 0 it is everything.
func (l *live) since(position uint64) (f frame, now uint64, next <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.Whole = position == 0
	f.Values = l.valuesSince(position)
	f.Changes = afterPosition(l.changes, func(c change) bool { return l.shown(c.at, position) })
	f.Deliveries = afterPosition(l.deliveries, func(d delivery) bool { return l.shown(d.at, position) })
	f.Gateways = l.gatewaysSince(position)
	return f, l.position, l.next
}

// shown says whether what was put at a position is new to who is at since. What
// was put and not published comes with the update that publishes it.
func (l *live) shown(at, since uint64) bool { return at > since && at <= l.position }

func (l *live) valuesSince(position uint64) map[string]json.RawMessage {
	all := map[string]json.RawMessage{}
	for name, v := range l.values {
		if l.shown(v.at, position) {
			all[name] = v.text
		}
	}
	return all
}

func (l *live) gatewaysSince(position uint64) *gatewaysDiff {
	if l.listed == 0 || l.listed > l.position {
		return nil
	}
	d := gatewaysDiff{Whole: position < l.listed || position < l.forgotten}
	if d.Whole {
		position = 0
	}
	for key, r := range l.gateways {
		switch {
		case l.shown(r.whole, position):
			d.Set = append(d.Set, keyedGateway{key, r.Gateway})
		case l.shown(r.at, position):
			d.Moved = append(d.Moved, movedGateway{key, r.Version, r.Lag})
		}
	}
	for _, g := range l.gone {
		_, back := l.gateways[g.key]
		if !d.Whole && !back && l.shown(g.at, position) {
			d.Gone = append(d.Gone, g.key)
		}
	}
	if !d.Whole && d.Set == nil && d.Moved == nil && d.Gone == nil {
		return nil
	}
	return &d
}

func afterPosition[T any](list []T, keep func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(list), func(one T) bool { return !keep(one) })
}
