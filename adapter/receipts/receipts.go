// Package receipts tells which gateways are known to enforce a version of the
// log, over all replicas.
//
// A gateway's receipt is its newest ACK. The package joins what package xds knows
// of the gateways that hold a stream here with what the other replicas answer, and
// with the gateways that were seen lately and are gone. An ACK proves that a
// gateway has received a version; our enforcer gives it only after its set has it.
package receipts

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
	"revocation-adapter/xds"
)

// Query asks who enforces a version. Parts are what was changed up to it: a
// gateway is concerned if any of them is for it.
type Query struct {
	Version uint64 `json:"version"`
	Parts   []Part `json:"parts"`
}

// Part is one sort of what was changed.
type Part struct {
	Series revocation.Series `json:"series"`
	State  revocation.State  `json:"state"`
	// Tenants are those of what was changed. Without any, or with "" among them, it
	// is for every gateway.
	Tenants []string `json:"tenants,omitempty"`
}

// Receipt is how gateways stand to a version. Every gateway that is known counts in
// exactly one of the five figures.
type Receipt struct {
	Version      uint64        `json:"version"`
	Enforced     int           `json:"enforced"`      // have ACKed the version
	NotConcerned int           `json:"not_concerned"` // are not told of it: it is of other tenants, or of a type they do not ask for
	Cannot       int           `json:"cannot"`        // speak a protocol that cannot carry it
	Pending      []string      `json:"pending"`       // are connected and have not ACKed it, sorted; never nil
	Unreachable  []string      `json:"unreachable"`   // were seen lately and are gone, or their replica does not answer; sorted; never nil
	Took         time.Duration `json:"took_ns"`
}

// Gateway is how one gateway is.
type Gateway struct {
	Name      string    `json:"name"`
	Address   string    `json:"address"`
	Replica   string    `json:"replica"`
	Protocols []string  `json:"protocols"`
	Types     []string  `json:"types"`
	Version   uint64    `json:"version"` // newest that it ACKed; 0: none, or it is not connected
	Lag       uint64    `json:"lag"`     // versions that it is behind its replica
	Since     time.Time `json:"since"`
	NACKs     uint64    `json:"nacks"`
	LastNACK  string    `json:"last_nack,omitempty"`
	Tenants   []string  `json:"tenants,omitempty"` // none: all
	Connected bool      `json:"connected"`
}

// Overview is every gateway of every replica.
type Overview struct {
	Replicas []string  `json:"replicas"`
	Gateways []Gateway `json:"gateways"`
}

// ErrNotReady means that it is not known yet which replicas and gateways there are.
var ErrNotReady = messaging.ErrPresence

// Config says what is joined.
type Config struct {
	Hub    *messaging.Hub
	Server *xds.Server
	Name   string        // of this replica, as messaging.ReplicaName makes one
	Memory time.Duration // how long a gateway is known after it has gone

	Log logrus.FieldLogger
}

// Receipts gathers receipts.
type Receipts struct {
	cfg      Config
	replicas *messaging.Replicas

	mu      sync.Mutex
	changes uint64            // of the server, at which present was made
	present map[string][]byte // never changed in place
}

// The questions: the first two are for replicas, the others for the command line.
const (
	askStanding = "standing"
	askStatus   = "status"
	askReceipt  = "receipt"
	askOverview = "gateways"
)

// maxWait bounds how long anybody waits for a receipt, and answerWithin how much
// longer for a replica that does not answer. A replica answers when none of its
// gateways is pending: where one is that has moved to another replica, they are
// asked again.
const (
	maxWait      = time.Minute
	answerWithin = time.Second
	askAgain     = time.Second
)

// New checks the configuration. Nothing is known before Run.
func New(cfg Config) (*Receipts, error) {
	if cfg.Server == nil || cfg.Log == nil {
		return nil, errors.New("receipts need the server of the gateways, and a log")
	}
	r := &Receipts{cfg: cfg}
	var err error
	r.replicas, err = messaging.NewReplicas(cfg.Hub, messaging.ReplicasConfig{
		Name: cfg.Name, Memory: cfg.Memory, Present: r.presence, Log: cfg.Log,
		Questions: map[string]messaging.Question{
			askStanding: r.standAnswer, askStatus: r.gatewaysAnswer,
			askReceipt: r.receiptAnswer, askOverview: r.overviewAnswer,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("receipts: %w", err)
	}
	return r, nil
}

// Run makes this replica and its gateways known to the others, and answers them,
// until ctx ends.
func (r *Receipts) Run(ctx context.Context) error { return r.replicas.Run(ctx) }

// presence is what others are told of the gateways that hold a stream here: all
// but what every ACK changes.
func (r *Receipts) presence() map[string][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	changes := r.cfg.Server.Changes() // before: what changes meanwhile is seen next time
	if r.present != nil && changes == r.changes {
		return r.present
	}
	present := map[string][]byte{}
	for _, g := range r.cfg.Server.Gateways() {
		g.Version, g.Behind, g.NACKs, g.LastNACK = 0, 0, 0, ""
		if data, err := json.Marshal(g); err == nil { // it always can be
			present[g.Name] = data
		}
	}
	r.present, r.changes = present, changes
	return present
}

// Await returns when no gateway is pending on any replica, or wait is over: with a
// wait of 0 how it stands now. Where a replica does not answer, it takes a second
// longer. A wait is a minute at most.
func (r *Receipts) Await(ctx context.Context, q Query, wait time.Duration) (Receipt, error) {
	began := time.Now()
	wait = min(maxWait, max(0, wait))
	left := xds.Standing{}
	for {
		again := time.After(askAgain)
		rest := max(0, wait-time.Since(began))
		standing, open, err := r.standing(ctx, q, min(rest, askAgain))
		if err != nil {
			return Receipt{}, fmt.Errorf("ask for receipts: %w", err)
		}
		remember(left, standing)
		if !open || rest <= askAgain {
			receipt := count(q.Version, standing)
			receipt.Took = time.Since(began)
			return receipt, nil
		}
		select {
		case <-again: // over already, unless too many wait for a replica to keep this one
		case <-ctx.Done():
			return Receipt{}, fmt.Errorf("ask for receipts: %w", ctx.Err())
		}
	}
}

// standing is how every gateway stands after a wait at most, and whether that may
// get better: one is pending, or a replica does not answer.
func (r *Receipts) standing(ctx context.Context, q Query, wait time.Duration) (all xds.Standing, open bool, err error) {
	data, err := json.Marshal(question{q, wait.Milliseconds()})
	if err != nil {
		return nil, false, err
	}
	asked, cancel := context.WithTimeout(ctx, wait+answerWithin)
	defer cancel()
	standings, silent, err := ask[xds.Standing](asked, r, askStanding, data)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, false, err
	}
	all = join(standings, r.replicas.Gateways(), q.concern())
	for _, figure := range all {
		open = open || figure == xds.Pending
	}
	return all, open || len(silent) > 0, nil
}

// remember has those that left while somebody waited stand as gone, until they are
// back.
func remember(left, standing xds.Standing) {
	for name, figure := range standing {
		if figure == xds.Gone {
			left[name] = figure
		}
	}
	for name, figure := range left {
		standing[name] = better(standing[name], figure)
	}
}

// Gateways are those of every replica and those that have gone lately, by name.
func (r *Receipts) Gateways(ctx context.Context) ([]Gateway, error) {
	asked, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	answers, _, err := ask[[]xds.GatewayStatus](asked, r, askStatus, nil)
	if err != nil {
		return nil, fmt.Errorf("ask for gateways: %w", err)
	}
	all := map[string]Gateway{}
	for replica, gateways := range answers {
		for _, g := range gateways {
			if old, known := all[g.Name]; !known || g.Version > old.Version {
				all[g.Name] = connected(g, replica)
			}
		}
	}
	for name, seen := range r.replicas.Gateways() {
		if _, known := all[name]; !known {
			all[name] = gone(name, seen)
		}
	}
	list := slices.AppendSeq(make([]Gateway, 0, len(all)), maps.Values(all)) // never nil
	slices.SortFunc(list, func(a, b Gateway) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

func connected(g xds.GatewayStatus, replica string) Gateway {
	return Gateway{
		Name: g.Name, Address: g.Address, Replica: replica, Protocols: g.Protocols, Types: g.Types,
		Version: g.Version, Lag: g.Behind, Since: g.Since, NACKs: g.NACKs, LastNACK: g.LastNACK,
		Tenants: g.Tenants, Connected: true,
	}
}

// gone is a gateway as it was when it was seen last.
func gone(name string, seen messaging.Seen) Gateway {
	var was xds.GatewayStatus
	_ = json.Unmarshal(seen.Data, &was) // of a newer adapter: its name is known all the same
	g := connected(was, seen.Replica)
	g.Name, g.Connected = name, false
	return g
}

// Replicas are the replicas that are known, this one included, by name.
func (r *Receipts) Replicas() []string { return r.replicas.Known() }
