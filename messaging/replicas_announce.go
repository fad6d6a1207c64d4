package messaging

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

// announcer keeps the bucket at what this replica has.
type announcer struct {
	*Replicas
	bucket jetstream.KeyValue
	stored map[string]announced // gateways that the bucket has of this replica
	beaten time.Time
}

// announced is what was stored of a gateway.
type announced struct {
	data []byte
	at   time.Time
}

// announcers is how many entries are written at the same time.
const announcers = 8

// announce says that this replica is there and which gateways it has, until ctx
// ends. Then it says that it is gone, if it can.
func (r *Replicas) announce(ctx context.Context, bucket jetstream.KeyValue) error {
	a := &announcer{Replicas: r, bucket: bucket, stored: map[string]announced{}}
	tick := time.NewTicker(presentEvery)
	defer tick.Stop()
	failed := false
	for {
		err := a.look(ctx, time.Now())
		if err != nil && !failed && ctx.Err() == nil {
			r.cfg.Log.WithError(err).Warn("The presence of gateways cannot be stored, trying again")
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			a.goodbye(ctx)
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// look stores what has changed since the last time.
func (a *announcer) look(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	if now.Sub(a.beaten) >= beatEvery {
		if err := a.put(ctx, replicaKeys+a.cfg.Name, presence{Replica: a.cfg.Name}); err != nil {
			return err
		}
		a.beaten = now
		a.prune(now)
	}
	changed := a.changed(a.cfg.Present(), now)
	if len(changed) == 0 {
		return nil
	}
	return a.store(ctx, changed, now)
}

// changed are the gateways that the bucket does not have as they are, or not for
// long any more.
func (a *announcer) changed(present map[string][]byte, now time.Time) (all []presence) {
	for name, data := range present {
		old, known := a.stored[name]
		if !known || !bytes.Equal(old.data, data) || now.Sub(old.at) > a.cfg.Memory/2 || a.leftElsewhere(name) {
			all = append(all, presence{Replica: a.cfg.Name, Gateway: name, Data: data})
		}
	}
	for name, old := range a.stored {
		if _, here := present[name]; !here && a.has(name) {
			all = append(all, presence{Replica: a.cfg.Name, Gateway: name, Data: old.data, Left: true})
		} else if !here {
			delete(a.stored, name)
		}
	}
	return all
}

// has says whether this replica had the gateway last: another one may have it
// since.
func (a *announcer) has(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	g, known := a.gateways[name]
	return !known || g.Replica == a.cfg.Name
}

// leftElsewhere says whether the bucket has it that the gateway left another
// replica, which came to it later than that it is here.
func (a *announcer) leftElsewhere(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.gateways[name]
	return g.Left && g.Replica != a.cfg.Name
}

func (a *announcer) store(ctx context.Context, changed []presence, now time.Time) error {
	done := make([]bool, len(changed))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(announcers)
	for i, p := range changed {
		group.Go(func() error {
			err := a.put(ctx, gatewayKey(p.Gateway), p)
			done[i] = err == nil
			return err
		})
	}
	err := group.Wait()
	for i, p := range changed {
		switch {
		case !done[i]:
		case p.Left:
			delete(a.stored, p.Gateway)
		default:
			a.stored[p.Gateway] = announced{p.Data, now}
		}
	}
	return err
}

// gatewayKey is a gateway's in the bucket: its name may hold anything.
func gatewayKey(name string) string {
	sum := sha256.Sum256([]byte(name))
	return gatewayKeys + base64.RawURLEncoding.EncodeToString(sum[:16])
}

func (a *announcer) put(ctx context.Context, key string, p presence) error {
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("presence of %s: %w", key, err)
	}
	if _, err := a.bucket.Put(ctx, key, data); err != nil {
		return fmt.Errorf("store the presence: %w", err)
	}
	return nil
}

// goodbyeTimeout bounds how long a replica that stops tries to say so.
const goodbyeTimeout = time.Second

func (a *announcer) goodbye(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTimeout)
	defer cancel()
	_ = a.bucket.Delete(ctx, replicaKeys+a.cfg.Name) // else it is missed after a while
}
