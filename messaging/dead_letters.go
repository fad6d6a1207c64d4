package messaging

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Headers of a dead letter.
const (
	headerReason  = "Dead-Letter-Reason"
	headerSubject = "Dead-Letter-Subject" // to which the event was published
)

// headerCame is when the event of a dead letter, or one that is replayed, first
// came. It may be given for any event, and makes it no later than it is.
const headerCame = "Event-Came"

// onlyBeginning ends the reason of a dead letter whose event was too large.
const onlyBeginning = " (only its beginning is kept)"

// headerRoom is kept free for the headers of a dead letter, in bytes: an event
// may be as large as a message can be.
const headerRoom = 4096

// DeadLetter is an event that could not be understood or stored.
type DeadLetter struct {
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
	Subject  string    `json:"subject"`
	Reason   string    `json:"reason"`
	Event    []byte    `json:"event,omitempty"` // as it came, but without an opaque token

	came time.Time // when the hub first got the event
}

// bury stores an event as a dead letter, with its reason.
func (h *Hub) bury(ctx context.Context, d DeadLetter) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	data, reason := redact(d.Event), d.Reason
	if d.Subject == SubjectIssued {
		data = redactIssued(d.Event)
	}
	if room := max(0, int(h.conn.MaxPayload())-headerRoom); len(data) > room {
		data, reason = data[:room], reason+onlyBeginning
	}
	msg := &nats.Msg{Subject: "deadletter." + d.Subject, Data: data, Header: nats.Header{}}
	msg.Header.Set(headerReason, strings.ToValidUTF8(strings.ReplaceAll(reason, "\n", " "), "?"))
	msg.Header.Set(headerSubject, d.Subject)
	msg.Header.Set(headerCame, d.came.Format(time.RFC3339Nano))
	if _, err := h.js.PublishMsg(ctx, msg, jetstream.WithExpectStream(DeadLetterStream)); err != nil {
		return fmt.Errorf("store a dead letter: %w", err)
	}
	return nil
}

// cameAt is when an event first came that was stored at a time, or earlier, as
// its header says.
func cameAt(h nats.Header, stored time.Time) time.Time {
	at, err := time.Parse(time.RFC3339Nano, h.Get(headerCame))
	if err != nil || at.UnixMicro() <= 0 || at.After(stored) {
		return stored
	}
	return at
}

// ErrNoDeadLetter means that there is none of that sequence.
var ErrNoDeadLetter = errors.New("no such dead letter")

// ErrIncomplete means that the event of a dead letter was too large to be kept
// whole.
var ErrIncomplete = errors.New("only the beginning of the event is kept")

// DeadLetters yields the dead letters that there are when it begins, the oldest
// first. They may be replayed or removed meanwhile.
func DeadLetters(ctx context.Context, conn *nats.Conn) iter.Seq2[DeadLetter, error] {
	return func(yield func(DeadLetter, error) bool) {
		s, err := deadLetterStream(ctx, conn)
		if err != nil {
			yield(DeadLetter{}, err)
			return
		}
		last := s.CachedInfo().State.LastSeq
		for next := uint64(1); next <= last; {
			msg, err := s.GetMsg(ctx, next, jetstream.WithGetMsgSubject(deadLetterSubjects))
			switch {
			case errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && msg.Sequence > last:
				return
			case err != nil:
				yield(DeadLetter{}, err)
				return
			case !yield(deadLetterOf(msg), nil):
				return
			}
			next = msg.Sequence + 1
		}
	}
}

// CountDeadLetters is how many there are.
func CountDeadLetters(ctx context.Context, conn *nats.Conn) (int, error) {
	s, err := deadLetterStream(ctx, conn)
	if err != nil {
		return 0, err
	}
	return int(s.CachedInfo().State.Msgs), nil
}

// FindDeadLetter returns the dead letter of a sequence.
func FindDeadLetter(ctx context.Context, conn *nats.Conn, sequence uint64) (DeadLetter, error) {
	s, err := deadLetterStream(ctx, conn)
	if err != nil {
		return DeadLetter{}, err
	}
	msg, err := s.GetMsg(ctx, sequence)
	if sequence == 0 || errors.Is(err, jetstream.ErrMsgNotFound) {
		return DeadLetter{}, fmt.Errorf("%w: %d", ErrNoDeadLetter, sequence)
	}
	if err != nil {
		return DeadLetter{}, err
	}
	return deadLetterOf(msg), nil
}

// Replay publishes the event of a dead letter again, to the subject on which it
// first came, and removes the dead letter when the hub has stored the event in
// INGEST, with the sequence that it returns. The event keeps the time at which it
// first came, so that it does not overturn what came since. An event that is
// still not understood becomes a new dead letter.
func Replay(ctx context.Context, conn *nats.Conn, d DeadLetter) (sequence uint64, err error) {
	if strings.HasSuffix(d.Reason, onlyBeginning) {
		return 0, fmt.Errorf("replay dead letter %d: %w", d.Sequence, ErrIncomplete)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return 0, err
	}
	msg := &nats.Msg{Subject: d.Subject, Data: d.Event, Header: nats.Header{}}
	msg.Header.Set(headerCame, d.came.Format(time.RFC3339Nano))
	ack, err := js.PublishMsg(ctx, msg, jetstream.WithExpectStream(IngestStream))
	if err != nil {
		return 0, fmt.Errorf("replay dead letter %d: publish to %s: %w", d.Sequence, d.Subject, err)
	}
	return ack.Sequence, RemoveDeadLetter(ctx, conn, d.Sequence)
}

// RemoveDeadLetter removes the dead letter of a sequence for good.
func RemoveDeadLetter(ctx context.Context, conn *nats.Conn, sequence uint64) error {
	s, err := deadLetterStream(ctx, conn)
	if err != nil {
		return err
	}
	if err := s.SecureDeleteMsg(ctx, sequence); err != nil {
		return fmt.Errorf("remove dead letter %d: %w", sequence, err)
	}
	return nil
}

// PurgeDeadLetters removes for good the dead letters that were stored before a
// time, all that there are if it is zero, and returns how many.
func PurgeDeadLetters(ctx context.Context, conn *nats.Conn, before time.Time) (removed int, err error) {
	var last uint64
	for d, err := range DeadLetters(ctx, conn) {
		if err != nil {
			return 0, err
		}
		if !before.IsZero() && !d.Time.Before(before) {
			break
		}
		removed, last = removed+1, d.Sequence
	}
	if removed == 0 {
		return 0, nil
	}
	s, err := deadLetterStream(ctx, conn)
	if err != nil {
		return 0, err
	}
	return removed, s.Purge(ctx, jetstream.WithPurgeSequence(last+1))
}

func deadLetterStream(ctx context.Context, conn *nats.Conn) (jetstream.Stream, error) {
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, err
	}
	return js.Stream(ctx, DeadLetterStream)
}

func deadLetterOf(msg *jetstream.RawStreamMsg) DeadLetter {
	return DeadLetter{
		Sequence: msg.Sequence, Time: msg.Time, Event: msg.Data,
		Subject: msg.Header.Get(headerSubject), Reason: msg.Header.Get(headerReason),
		came: cameAt(msg.Header, msg.Time),
	}
}
