package messaging

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"revocation-adapter/revocation"
)

// The ways in, as records name them.
const (
	SourceNATS     = "nats"
	SourceAMQP     = "amqp"
	SourceNotify   = "notify"
	SourceFullSync = "full-sync"
)

// Intake is the one door for what publishers send, whichever way it came. It
// decodes and dates events, drops those that have expired, writes the others into
// the log, buries what is not understood, and counts. Any number of goroutines
// may use it.
type Intake struct {
	// Reload is called when a publisher says that everything should be read
	// again, and must not block. It is set before anything is taken; nil: there is
	// nothing to read from.
	Reload func()

	hub     *Hub
	writer  *Writer
	grants  *Grants
	log     logrus.FieldLogger
	metrics *metrics
}

// NewIntake returns the door into hub, for a replica that knows what log says.
func NewIntake(hub *Hub, log *revocation.Log, m *Metrics) *Intake {
	return &Intake{hub: hub, writer: NewWriter(hub, log), grants: NewGrants(hub), log: hub.cfg.Log, metrics: (*metrics)(m)}
}

// Message is what a publisher sent, in the envelope that DecodeEvent reads.
type Message struct {
	Source     string // SourceNATS or another
	Subject    string // to which it was published: SubjectRevocation, SubjectApproval
	Data       []byte
	At         time.Time // when it was stored or received: an expiry that is not known is dated from here
	Came       time.Time // when it came first, if that was earlier; else zero
	Deliveries uint64    // how often it was delivered, this time included; 0: not known
	Working    func()    // called now and then while a large message is stored; may be nil
}

// Fate is what became of a message, in the words of the metrics.
type Fate string

// The fates. Of a message all but FateRetry are final: it is to be acknowledged.
const (
	FateStored    Fate = "stored"
	FateDuplicate Fate = "duplicate"   // the log said all of it already
	FateExpired   Fate = "expired"     // nothing of it counts any more
	FateReload    Fate = "reload"      // it said that everything should be read again
	FateDead      Fate = "dead_letter" // not understood, or not to be stored: it is buried
	FateRetry     Fate = "retried"     // not stored: it must be delivered again
	FateFailed    Fate = "failed"      // not known to be stored, and whoever waited for it was told
)

// Result is what became of a message. Err is the reason of FateDead, for which
// errors.Is(Err, ErrEvent) where it was not understood, and of FateRetry.
type Result struct {
	Fate Fate
	Err  error
}

// Take handles messages together and answers each, by its index, as soon as is
// known what became of it: those that are not understood after the others. All
// are answered when it returns.
func (in *Intake) Take(ctx context.Context, messages []Message, answer func(int, Result)) {
	var accepted, issued, malformed []*taken
	for i, m := range messages {
		t := &taken{Message: m}
		t.answer = func(r Result) {
			in.metrics.count(m.Source, m.Subject, t.kind, r.Fate)
			answer(i, r)
		}
		switch t.err = in.accept(t); {
		case t.err != nil:
			malformed = append(malformed, t)
		case m.Subject == SubjectIssued:
			issued = append(issued, t)
		default:
			accepted = append(accepted, t)
		}
	}
	in.write(ctx, accepted)
	in.takeIssued(ctx, issued)
	for i, t := range malformed {
		if err := in.bury(ctx, t, t.err); err != nil {
			for _, t := range malformed[i+1:] { // they would fail as well
				t.answer(Result{FateRetry, err})
			}
			return
		}
	}
}

// taken is a message on its way into the log.
type taken struct {
	Message
	kind        string
	grant       Grant // of a token that was issued
	reload      bool
	revocations []revocation.Revocation // those that count
	open        int                     // of them, how many are not known to be in the log
	changed     bool
	err         error
	answer      func(Result)
}

// accept decides what of a message is to be stored. An error means that it is
// not understood.
func (in *Intake) accept(t *taken) error {
	if t.Subject == SubjectIssued {
		return in.acceptIssued(t)
	}
	call, err := in.handleTokenRevocation(t.Message)
	if err != nil {
		return err
	}
	t.kind, t.reload = kindOf(call), call.Reload
	for _, e := range call.Events {
		r := e.Revocation(in.dating(t.Message))
		if !r.Expired(in.hub.cfg.Now(), in.hub.cfg.Grace) {
			t.revocations = append(t.revocations, r)
		}
	}
	t.open = len(t.revocations)
	return nil
}

func (in *Intake) dating(m Message) Dating {
	d := Dating{
		State: revocation.Revoked, Source: m.Source, At: m.At, Came: m.Came,
		UnknownLife: in.hub.cfg.UnknownLife, Rules: in.hub.cfg.Rules,
	}
	if m.Subject == SubjectApproval {
		d.State = revocation.Approved
	}
	if d.Came.IsZero() {
		d.Came = m.At
	}
	return d
}

// piece is one revocation of a message.
type piece struct {
	of *taken
	revocation.Revocation
}

// write stores messages in batches, the small ones first, and answers each when
// all of it is stored or some of it cannot be: what is stored by then is a
// duplicate when it comes again.
func (in *Intake) write(ctx context.Context, messages []*taken) {
	slices.SortStableFunc(messages, func(a, b *taken) int { return cmp.Compare(a.open, b.open) })
	var pieces []piece
	for _, t := range messages {
		for _, r := range t.revocations {
			pieces = append(pieces, piece{t, r})
		}
		switch {
		case t.reload:
			in.readAgain()
			t.answer(Result{Fate: FateReload})
		case t.open == 0:
			t.answer(Result{Fate: FateExpired})
		}
	}
	for batch := range slices.Chunk(pieces, MaxBatch) {
		in.put(ctx, slices.DeleteFunc(batch, func(p piece) bool { return p.of.err != nil }))
		for _, t := range messages {
			if t.open > 0 && t.err == nil && t.Working != nil {
				t.Working()
			}
		}
	}
}

// readAgain has everything read again, where there is something to read from.
func (in *Intake) readAgain() {
	if in.Reload == nil {
		in.log.Warn("A publisher lists no tokens: there is no control plane to read them from")
		return
	}
	in.Reload()
}

// put stores one batch.
func (in *Intake) put(ctx context.Context, batch []piece) {
	revocations := make([]revocation.Revocation, 0, len(batch))
	for _, p := range batch {
		revocations = append(revocations, p.Revocation)
	}
	outcomes := in.writer.Put(ctx, revocations...)
	for i, o := range outcomes {
		if t := batch[i].of; t.err == nil {
			in.settle(ctx, t, o)
		}
	}
	if i := slices.IndexFunc(outcomes, func(o Outcome) bool { return o.Err != nil }); i >= 0 {
		in.log.WithError(outcomes[i].Err).WithField("events", len(batch)).
			Warn("Events are not stored, they will be delivered again")
	}
}

// settle notes what became of a part of a message, and answers the message if
// that decides it.
func (in *Intake) settle(ctx context.Context, t *taken, o Outcome) {
	t.open, t.changed, t.err = t.open-1, t.changed || o.Changed, o.Err
	switch {
	case permanent(o.Err) && t.Deliveries >= in.hub.cfg.MaxDeliveries:
		in.log.WithError(o.Err).WithField("deliveries", t.Deliveries).Error("Event cannot be stored")
		_ = in.bury(ctx, t, fmt.Errorf("not stored after %d deliveries: %w", t.Deliveries, o.Err)) // it is answered
	case o.Err != nil:
		t.answer(Result{FateRetry, o.Err})
	case t.open > 0:
	case t.changed:
		t.answer(Result{Fate: FateStored})
	default:
		t.answer(Result{Fate: FateDuplicate})
	}
}

// bury makes a message a dead letter, and answers it.
func (in *Intake) bury(ctx context.Context, t *taken, reason error) error {
	d := DeadLetter{Subject: t.Subject, Event: t.Data, Reason: reason.Error(), came: in.dating(t.Message).Came}
	t.kind = ""
	if err := in.hub.bury(ctx, d); err != nil {
		in.log.WithError(err).Error("Event cannot be buried, it will be delivered again")
		t.answer(Result{FateRetry, err})
		return err
	}
	t.answer(Result{FateDead, reason})
	return nil
}

// Decoded is what a source has decoded itself.
type Decoded struct {
	Source string
	State  revocation.State
	Events []Event
	At     time.Time // when it was received
	// Came is when the events happened. Zero is not known: what such events say
	// creates and extends, and overturns nothing.
	Came time.Time
}

// Tally is how many events came to each end.
type Tally struct{ Stored, Duplicate, Expired int }

// ErrFull means that the log holds as much as it may.
var ErrFull = errors.New("the log is full")

// Store writes what a source has decoded itself into the log, in batches. After
// an error the rest is not stored; storing all of it again is safe.
func (in *Intake) Store(ctx context.Context, d Decoded) (Tally, error) {
	var tally Tally
	dating := Dating{
		State: d.State, Source: d.Source, At: d.At, Came: d.Came,
		UnknownLife: in.hub.cfg.UnknownLife, Rules: in.hub.cfg.Rules,
	}
	for events := range slices.Chunk(d.Events, MaxBatch) {
		if in.Full() {
			return tally, ErrFull
		}
		if err := in.storeBatch(ctx, dating, events, &tally); err != nil {
			return tally, err
		}
	}
	return tally, nil
}

func (in *Intake) storeBatch(ctx context.Context, dating Dating, events []Event, tally *Tally) error {
	count := func(e Event, n *int, fate Fate) {
		*n++
		in.metrics.count(dating.Source, SubjectRevocation, kindOf(Call{Events: []Event{e}}), fate)
	}
	var put []revocation.Revocation
	var of []Event
	for _, e := range events {
		r := e.Revocation(dating)
		if r.Expired(in.hub.cfg.Now(), in.hub.cfg.Grace) {
			count(e, &tally.Expired, FateExpired)
			continue
		}
		put, of = append(put, r), append(of, e)
	}
	var failed error
	for i, o := range in.writer.Put(ctx, put...) {
		switch {
		case o.Err != nil:
			failed = o.Err
		case o.Changed:
			count(of[i], &tally.Stored, FateStored)
		default:
			count(of[i], &tally.Duplicate, FateDuplicate)
		}
	}
	return failed
}

// Full says whether the log holds as much as it may: then nothing new is stored,
// and nothing is evicted.
func (in *Intake) Full() bool { return in.metrics.isFull(in.writer.log, in.hub.cfg.Limits) }

// waitForRoom holds events back while the log is full: where they wait it fills
// too, and publishers learn of it.
func (in *Intake) waitForRoom(ctx context.Context) bool {
	for said := false; in.Full(); said = true {
		if !said {
			in.log.WithField("max_live", in.hub.cfg.Limits.MaxLive).
				Error("The log is full: events wait in the hub until revocations expire or max_live is raised")
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(fullDelay):
		}
	}
	return true
}
