package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"revocation-adapter/integration/chaos/history"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// What is published, and how long one try may take.
const (
	publishers    = 4                      // into the hub
	callers       = 2                      // of the control API
	publishEvery  = 100 * time.Millisecond // by each of them
	publishPause  = 200 * time.Millisecond
	eventsPerKey  = 4 // whose ids a record keeps; after that a repeat counts as new
	recentTokens  = 200
	longLife      = time.Hour
	shortLife     = 10 * time.Second // and up to twice that
	finalLifetime = 10 * time.Minute
)

// publisher publishes events of its own tokens, one after another, and tries
// each again until it is acknowledged.
type publisher struct {
	number int
	way    way
	random *rand.Rand
	record *recorder
	tokens []*published // the newest
	made   int
}

// published is a token and its events so far.
type published struct {
	jti    string
	kind   string
	expiry time.Time
	events []history.Event // without repeats
	stray  bool            // a revocation without an id was tried again: the first try may arrive yet
}

// way is how events get to the hub.
type way interface {
	// send returns without an error when the event is acknowledged.
	send(ctx context.Context, kind string, e history.Event) (receipt, error)
	named() bool // events carry their id, so that a copy counts as one
	close()
}

// receipt is what an acknowledgement says of gateways, if it was asked for.
type receipt struct {
	Enforced int
	at       time.Duration
}

func newPublisher(number int, seed uint64, w way, record *recorder) *publisher {
	return &publisher{number: number, way: w, record: record, random: rand.New(rand.NewPCG(seed, uint64(1+number)))}
}

// run publishes until stop is closed. An event that was begun is finished, as
// long as ctx lives.
func (p *publisher) run(ctx context.Context, stop <-chan struct{}) {
	beat := time.NewTicker(publishEvery)
	defer beat.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-beat.C:
			p.next(ctx)
		}
	}
}

// next chooses: mostly a new revocation, else something about a recent token.
func (p *publisher) next(ctx context.Context) {
	choice := p.random.IntN(100)
	if len(p.tokens) == 0 || choice < 60 {
		p.begin()
		p.change(ctx, p.tokens[len(p.tokens)-1], revocation.Revoked)
		return
	}
	t := p.tokens[p.random.IntN(len(p.tokens))]
	switch last := t.events[len(t.events)-1]; {
	case time.Now().After(t.expiry): // nothing of it matters any more
	case t.stray || !p.way.named() && len(t.events) == eventsPerKey:
	case p.way.named() && (choice < 75 || len(t.events) == eventsPerKey):
		p.repeat(ctx, t, t.events[p.random.IntN(len(t.events))])
	case last.State == revocation.Revoked:
		p.change(ctx, t, revocation.Approved)
	default:
		p.change(ctx, t, revocation.Revoked)
	}
}

// begin makes a token. One in six expires during the run.
func (p *publisher) begin() {
	p.made++
	life := longLife
	if p.random.IntN(6) == 0 {
		life = shortLife + time.Duration(p.random.Int64N(int64(shortLife)))
	}
	t := &published{jti: p.uuid(), kind: messaging.TypeJWT, expiry: time.Now().Add(life)}
	if p.random.IntN(4) == 0 {
		t.jti, t.kind = fmt.Sprintf("key-%d-%d", p.number, p.made), messaging.TypeAPIKey
	}
	p.tokens = append(p.tokens, t)
	p.tokens = p.tokens[max(0, len(p.tokens)-recentTokens):]
}

func (p *publisher) uuid() string {
	a, b := p.random.Uint64(), p.random.Uint64()
	return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", a>>32, a>>16&0xffff, a&0xffff, b>>48, b&0xffffffffffff)
}

func (p *publisher) change(ctx context.Context, t *published, state revocation.State) {
	e := history.Event{
		JTI: t.jti, ID: fmt.Sprintf("%d-%d-%d", p.number, p.made, p.random.Uint32()), State: state, Expiry: t.expiry.UnixMilli(),
	}
	e, retries := p.publish(ctx, t.kind, e)
	t.events = append(t.events, e)
	t.stray = t.stray || !p.way.named() && retries > 0 && state == revocation.Revoked
}

// repeat publishes an event once more, under the id that it has.
func (p *publisher) repeat(ctx context.Context, t *published, e history.Event) {
	p.publish(ctx, t.kind, e)
}

// publish tries until the hub has stored the event, or ctx ends.
func (p *publisher) publish(ctx context.Context, kind string, e history.Event) (sent history.Event, retries int) {
	e.Sent, e.Acked = p.record.now(), 0
	for ; ctx.Err() == nil; retries++ {
		got, err := p.way.send(ctx, kind, e)
		if err == nil {
			e.Acked = p.record.now()
			e.Enforced, e.Told = got.Enforced, got.at
			break
		}
		select {
		case <-time.After(publishPause):
		case <-ctx.Done():
		}
	}
	p.record.event(e, retries)
	return e, retries
}

// last publishes one more revocation: a gateway that has it has all before it.
func (p *publisher) last(ctx context.Context) (jti string, acked bool) {
	jti = p.uuid()
	e, _ := p.publish(ctx, messaging.TypeJWT, history.Event{
		JTI: jti, ID: "last", State: revocation.Revoked, Expiry: time.Now().Add(finalLifetime).UnixMilli(),
	})
	return jti, e.Acked > 0
}
