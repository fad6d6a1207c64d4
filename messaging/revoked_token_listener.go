package messaging

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/semaphore"
)

// Listener takes events out of INGEST, in turn with the other replicas, and
// writes them into the log.
type Listener struct {
	Report *Report // set before Run; nil: nobody asks

	intake *Intake
	hub    *Hub
	log    logrus.FieldLogger
}

// The durable consumer of INGEST that all replicas share.
const (
	ingestConsumer = "adapter"
	ackWait        = 5 * time.Second // after a crash, what it had fetched waits as long
	maxAckPending  = 4000
	maxGathered    = 256     // events written together
	maxHeld        = 4 << 20 // bytes of events that are fetched, and of those that are begun, at least two
	nakDelay       = time.Second
	stopTimeout    = 2 * time.Second // to finish an event; then the hub delivers it again
	fullDelay      = time.Second     // between two looks at whether the log has room again

	// A request for events that the consumer's leader does not know, for it is new,
	// is missed after two of these; by default events would wait for 30 s.
	pullHeartbeat = time.Second
)

// NewListener returns a listener of the hub to which intake is the door.
func NewListener(intake *Intake) *Listener {
	return &Listener{intake: intake, hub: intake.hub, log: intake.log}
}

// Run handles events until ctx ends. An event that was taken is finished first.
func (l *Listener) Run(ctx context.Context) error {
	cons, err := l.hub.openConsumer(ctx)
	if err != nil {
		return fmt.Errorf("consumer of %s: %w", IngestStream, err)
	}
	held := max(maxHeld, 2*int(l.hub.conn.MaxPayload()))
	messages, err := cons.Messages(jetstream.PullMaxMessagesWithBytesLimit(maxAckPending/4, held),
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
	begun := inbox{make(chan jetstream.Msg, maxGathered), semaphore.NewWeighted(int64(held))}
	defer close(begun.events)
	for range l.hub.cfg.Workers {
		workers.Go(func() {
			for msg := range begun.events {
				msgs := gather(msg, begun.events)
				l.handle(finishing, msgs)
				begun.room.Release(bytesOf(msgs...))
			}
		})
	}
	return l.read(ctx, messages, begun)
}

// inbox holds the events that are begun. Its room is in bytes: of large events
// few are decoded at the same time, and none waits so long that the hub delivers
// it again.
type inbox struct {
	events chan jetstream.Msg
	room   *semaphore.Weighted
}

func (b inbox) put(ctx context.Context, msg jetstream.Msg) {
	if b.room.Acquire(ctx, bytesOf(msg)) == nil {
		select {
		case b.events <- msg:
			return
		case <-ctx.Done():
		}
	}
	_ = msg.Nak() // if it is lost, ackWait brings the event back
}

func bytesOf(msgs ...jetstream.Msg) (size int64) {
	for _, msg := range msgs {
		size += int64(len(msg.Data()))
	}
	return size
}

func (l *Listener) read(ctx context.Context, messages jetstream.MessagesContext, begun inbox) error {
	for ctx.Err() == nil {
		if !l.intake.waitForRoom(ctx) {
			break
		}
		msg, err := messages.Next(jetstream.NextContext(ctx))
		switch {
		case err == nil:
			begun.put(ctx, msg)
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

// gather returns msg and what else is at hand: under load many events are written
// together, a lone one never waits.
func gather(msg jetstream.Msg, events <-chan jetstream.Msg) []jetstream.Msg {
	msgs := []jetstream.Msg{msg}
	for bytes := bytesOf(msg); len(msgs) < maxGathered && bytes < maxHeld/4; bytes += bytesOf(msgs[len(msgs)-1]) {
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

// handle hands events to the intake and answers each: not stored → delivered
// again; a dead letter → terminated; stored, known or expired → acknowledged.
func (l *Listener) handle(ctx context.Context, msgs []jetstream.Msg) {
	var messages []Message
	var of []jetstream.Msg
	for _, msg := range msgs {
		meta, err := msg.Metadata()
		if err != nil {
			l.log.WithError(err).Error("An event has no metadata")
			continue // delivered again after ackWait
		}
		of = append(of, msg)
		messages = append(messages, Message{
			Source: SourceNATS, Subject: msg.Subject(), Data: msg.Data(), Deliveries: meta.NumDelivered,
			At: meta.Timestamp, Came: cameAt(msg.Headers(), meta.Timestamp),
			Working: func() { _ = msg.InProgress() }, // if it is lost, the event comes twice
		})
	}
	if len(messages) == 0 {
		return
	}
	stored, n := l.Report.Begin(messages[0].At), 0
	l.intake.Take(ctx, messages, func(i int, r Result) {
		if r.Err == nil {
			n++
		}
		l.Report.Failed(r.Err)
		l.answer(of[i], r)
	})
	stored(n)
}

// answer tells the hub what became of an event. An answer that cannot be sent
// means that the event will come again, and change nothing.
func (l *Listener) answer(msg jetstream.Msg, r Result) {
	var err error
	switch r.Fate {
	case FateRetry:
		err = msg.NakWithDelay(nakDelay)
	case FateDead:
		err = msg.TermWithReason("dead letter")
	default:
		err = msg.Ack()
	}
	if err != nil {
		l.log.WithError(err).Warn("An event could not be answered, it will be delivered again")
	}
}

// handleTokenRevocation reads what a publisher sent, whichever way it came, and
// logs it. An error means that it is not understood.
func (in *Intake) handleTokenRevocation(m Message) (Call, error) {
	call, err := in.decode(m)
	if err != nil {
		in.log.WithFields(logrus.Fields{"subject": m.Subject, "reason": err}).Error("Event goes to the dead letters")
		return Call{}, err
	}
	in.log.Info("Event ", call.Type, " is received")
	in.log.Debug("RevokedToken: ", masked, ", Token Type: ", call.Type)
	return call, nil
}

// masked stands for every token that a log line mentions, whatever its length.
const masked = "********"

func (in *Intake) decode(m Message) (Call, error) {
	var call Call
	var err error
	switch m.Subject {
	case SubjectRevocation:
		call, err = DecodeEvent(m.Data, StatusRevoked, in.hub.cfg.Rules)
	case SubjectApproval:
		call, err = DecodeEvent(m.Data, StatusApproved, in.hub.cfg.Rules)
	default:
		err = malformed("events on %s are not handled yet", m.Subject)
	}
	if err != nil {
		return Call{}, err
	}
	for _, e := range call.Events {
		if err := e.Check(m.At); err != nil {
			return Call{}, err
		}
	}
	return call, nil
}

// openConsumer returns the durable consumer, created if it is missing. A cluster
// that has lost its leader since the streams were opened is waited for.
func (h *Hub) openConsumer(ctx context.Context) (jetstream.Consumer, error) {
	return patiently(ctx, h.cfg.Log.WithField("stream", IngestStream), func(ctx context.Context) (jetstream.Consumer, error) {
		return h.ingest.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
			Durable: ingestConsumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait,
			MaxDeliver: -1, MaxAckPending: maxAckPending, MaxWaiting: 512,
		})
	})
}
