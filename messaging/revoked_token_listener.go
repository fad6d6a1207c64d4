package messaging

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"

	"revocation-adapter/revocation"
)

// Listener takes events out of INGEST, in turn with the other replicas, and
// writes them into the log.
type Listener struct {
	hub     *Hub
	writer  *Writer
	log     logrus.FieldLogger
	metrics *metrics
}

// The durable consumer of INGEST that all replicas share.
const (
	ingestConsumer = "adapter"
	ackWait        = 5 * time.Second // after a crash, what it had fetched waits as long
	maxAckPending  = 4000
	maxGathered    = 256 // events written together
	nakDelay       = time.Second
	stopTimeout    = 2 * time.Second // to finish an event; then the hub delivers it again
	fullDelay      = time.Second     // between two looks at whether the log has room again

	// A request for events that the consumer's leader does not know, for it is new,
	// is missed after two of these; by default events would wait for 30 s.
	pullHeartbeat = time.Second
)

// NewListener returns a listener of hub whose replica knows what log says.
func NewListener(hub *Hub, log *revocation.Log, m *Metrics) *Listener {
	return &Listener{hub: hub, writer: NewWriter(hub, log), log: hub.cfg.Log, metrics: (*metrics)(m)}
}

// Run handles events until ctx ends. An event that was taken is finished first.
func (l *Listener) Run(ctx context.Context) error {
	cons, err := l.hub.openConsumer(ctx)
	if err != nil {
		return fmt.Errorf("consumer of %s: %w", IngestStream, err)
	}
	messages, err := cons.Messages(jetstream.PullMaxMessages(maxAckPending/4),
		jetstream.PullHeartbeat(pullHeartbeat), jetstream.WithMessagesErrOnMissingHeartbeat(false))
	if err != nil {
		return fmt.Errorf("consumer of %s: %w", IngestStream, err)
	}
	defer giveBack(messages)
	finishing, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopTimeout, giveUp) })()
	var workers sync.WaitGroup
	defer workers.Wait()
	events := make(chan jetstream.Msg, maxGathered)
	defer close(events)
	for range l.hub.cfg.Workers {
		workers.Go(func() {
			for msg := range events {
				l.handle(finishing, gather(msg, events))
			}
		})
	}
	return l.read(ctx, messages, events)
}

func (l *Listener) read(ctx context.Context, messages jetstream.MessagesContext, events chan<- jetstream.Msg) error {
	for ctx.Err() == nil {
		if !l.waitForRoom(ctx) {
			break
		}
		msg, err := messages.Next(jetstream.NextContext(ctx))
		switch {
		case err == nil:
			select {
			case events <- msg:
			case <-ctx.Done():
				_ = msg.Nak() // if it is lost, ackWait brings the event back
			}
		case ctx.Err() != nil:
		case errors.Is(err, jetstream.ErrMsgIteratorClosed), errors.Is(err, jetstream.ErrConsumerDeleted):
			return fmt.Errorf("consumer of %s: %w", IngestStream, err)
		default:
			l.log.WithError(err).Warn("Events do not arrive, trying again")
		}
	}
	return ctx.Err()
}

// giveBack returns what was fetched and not begun, so that it need not wait for
// ackWait: a restart would hold back hundreds of revocations.
func giveBack(messages jetstream.MessagesContext) {
	messages.Drain()
	for {
		msg, err := messages.Next(jetstream.NextMaxWait(time.Second))
		if err != nil {
			return // all are back, or ackWait will bring them
		}
		_ = msg.Nak() // as above
	}
}

// waitForRoom holds the events back while the log is full: INGEST fills, and
// publishers get an error. Nothing is evicted.
func (l *Listener) waitForRoom(ctx context.Context) bool {
	for said := false; ; said = true {
		counts := l.writer.log.Snapshot().Counts()
		if counts.Revoked()+counts.Approved < l.hub.cfg.Limits.MaxLive {
			l.metrics.full.Set(0)
			return true
		}
		l.metrics.full.Set(1)
		if !said {
			l.log.WithField("max_live", l.hub.cfg.Limits.MaxLive).
				Error("The log is full: events wait in the hub until revocations expire or max_live is raised")
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(fullDelay):
		}
	}
}

// gather returns msg and what else is at hand: under load many events are written
// together, a lone one never waits.
func gather(msg jetstream.Msg, events <-chan jetstream.Msg) []jetstream.Msg {
	msgs := []jetstream.Msg{msg}
	for len(msgs) < maxGathered {
		select {
		case more, open := <-events:
			if !open {
				return msgs
			}
			msgs = append(msgs, more)
		default:
			return msgs
		}
	}
	return msgs
}

// understood is an event that is to be stored.
type understood struct {
	msg        jetstream.Msg
	meta       *jetstream.MsgMetadata
	kind       string
	revocation revocation.Revocation
}

// handle stores events and answers each: not stored → delivered again; stored →
// acknowledged; not understood → dead letter and terminated, after the others.
func (l *Listener) handle(ctx context.Context, msgs []jetstream.Msg) {
	var events []understood
	var revocations []revocation.Revocation
	var malformed []func() error
	for _, msg := range msgs {
		e, err := l.handleTokenRevocation(msg)
		switch {
		case err != nil:
			malformed = append(malformed, func() error { return l.bury(ctx, msg, e.meta, err) })
		case e.msg != nil:
			events, revocations = append(events, e), append(revocations, e.revocation)
		}
	}
	defer func() { // after the others, which must not wait for it
		for _, bury := range malformed {
			if bury() != nil {
				return // the rest would fail as well: ackWait brings them back
			}
		}
	}()
	outcomes := l.writer.Put(ctx, revocations...)
	for i, outcome := range outcomes {
		l.answer(ctx, events[i], outcome)
	}
	if i := slices.IndexFunc(outcomes, func(o Outcome) bool { return o.Err != nil }); i >= 0 {
		l.log.WithError(outcomes[i].Err).WithField("events", len(events)).
			Warn("Events are not stored, they will be delivered again")
	}
}

// handleTokenRevocation decides what becomes of one event: not understood → an
// error; expired → acknowledged and dropped; else it is to be stored.
func (l *Listener) handleTokenRevocation(msg jetstream.Msg) (e understood, err error) {
	meta, err := msg.Metadata()
	if err != nil {
		l.log.WithError(err).Error("An event has no metadata")
		return e, nil // delivered again after ackWait
	}
	state, event, err := decode(msg)
	if err != nil {
		l.log.WithFields(logrus.Fields{"subject": msg.Subject(), "reason": err}).Error("Event goes to the dead letters")
		return understood{meta: meta}, err
	}
	l.log.Info("Event ", event.Type, " is received")
	l.log.Debug("RevokedToken: ", masked, ", Token Type: ", event.Type)
	r := event.Revocation(state, meta.Timestamp, l.hub.cfg.UnknownLife)
	backdate(&r, cameAt(msg.Headers(), meta.Timestamp))
	if r.Expired(l.hub.cfg.Now(), l.hub.cfg.Grace) {
		l.finish(msg, event.Type, outcomeExpired, msg.Ack())
		return e, nil
	}
	return understood{msg, meta, event.Type, r}, nil
}

// backdate gives what is replayed the time at which its event first came. The
// date in place of an unknown expiry stays as it is: an earlier one could end a
// revocation early, and anybody may say that an event came long ago.
func backdate(r *revocation.Revocation, came time.Time) {
	r.Time = came.UnixMicro()
	for i := range r.Events {
		r.Events[i].Time = r.Time
	}
}

func (l *Listener) answer(ctx context.Context, e understood, o Outcome) {
	switch {
	case permanent(o.Err) && e.meta.NumDelivered >= l.hub.cfg.MaxDeliveries:
		l.log.WithError(o.Err).WithField("deliveries", e.meta.NumDelivered).Error("Event cannot be stored")
		_ = l.bury(ctx, e.msg, e.meta, fmt.Errorf("not stored after %d deliveries: %w", e.meta.NumDelivered, o.Err))
	case o.Err != nil:
		l.finish(e.msg, e.kind, outcomeRetried, e.msg.NakWithDelay(nakDelay))
	case !o.Changed:
		l.finish(e.msg, e.kind, outcomeDuplicate, e.msg.Ack())
	default:
		l.finish(e.msg, e.kind, outcomeStored, e.msg.Ack())
	}
}

// masked stands for every token that a log line mentions, whatever its length.
const masked = "********"

func decode(msg jetstream.Msg) (revocation.State, Event, error) {
	switch msg.Subject() {
	case SubjectRevocation:
		e, err := DecodeEvent(msg.Data(), StatusRevoked)
		return revocation.Revoked, e, err
	case SubjectApproval:
		e, err := DecodeEvent(msg.Data(), StatusApproved)
		return revocation.Approved, e, err
	}
	return 0, Event{}, malformed("events on %s are not handled yet", msg.Subject())
}

func (l *Listener) bury(ctx context.Context, msg jetstream.Msg, meta *jetstream.MsgMetadata, reason error) error {
	d := DeadLetter{
		Subject: msg.Subject(), Event: msg.Data(), Reason: reason.Error(),
		came: cameAt(msg.Headers(), meta.Timestamp),
	}
	if err := l.hub.bury(ctx, d); err != nil {
		l.log.WithError(err).Error("Event cannot be buried, it will be delivered again")
		l.finish(msg, "", outcomeRetried, msg.NakWithDelay(nakDelay))
		return err
	}
	l.finish(msg, "", outcomeDead, msg.TermWithReason("dead letter"))
	return nil
}

// finish counts what became of an event and reports an answer that could not be
// sent: the event will come again, and change nothing.
func (l *Listener) finish(msg jetstream.Msg, kind, outcome string, err error) {
	l.metrics.count(msg.Subject(), kind, outcome)
	if err != nil {
		l.log.WithError(err).Warn("An event could not be answered, it will be delivered again")
	}
}

// openConsumer returns the durable consumer, created if it is missing.
func (h *Hub) openConsumer(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	return h.ingest.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: ingestConsumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait,
		MaxDeliver: -1, MaxAckPending: maxAckPending, MaxWaiting: 512,
	})
}
