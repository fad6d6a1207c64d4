package messaging

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"
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
	maxGathered    = 256 // events written together
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
		if !l.intake.waitForRoom(ctx) {
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

// openConsumer returns the durable consumer, created if it is missing.
func (h *Hub) openConsumer(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	return h.ingest.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: ingestConsumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait,
		MaxDeliver: -1, MaxAckPending: maxAckPending, MaxWaiting: 512,
	})
}
