package messaging

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"revocation-adapter/revocation"
)

// Headers of a dead letter.
const (
	headerReason  = "Dead-Letter-Reason"
	headerSubject = "Dead-Letter-Subject" // to which the event was published
)

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
}

// bury stores an event as a dead letter, with its reason.
func (h *Hub) bury(ctx context.Context, subject string, event []byte, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	data := redact(event)
	if room := max(0, int(h.conn.MaxPayload())-headerRoom); len(data) > room {
		data, reason = data[:room], reason+" (only its beginning is kept)"
	}
	msg := &nats.Msg{Subject: "deadletter." + subject, Data: data, Header: nats.Header{}}
	msg.Header.Set(headerReason, strings.ToValidUTF8(strings.ReplaceAll(reason, "\n", " "), "?"))
	msg.Header.Set(headerSubject, subject)
	if _, err := h.js.PublishMsg(ctx, msg, jetstream.WithExpectStream(DeadLetterStream)); err != nil {
		return fmt.Errorf("store a dead letter: %w", err)
	}
	return nil
}

// redact replaces what may be an opaque token by its digest, if the envelope
// parses. Only the fields that an event has are kept then: another could hold
// the token as well. An event that does not parse is kept as it is.
func redact(event []byte) []byte {
	p, err := payloadOf(event)
	if err != nil {
		return event
	}
	kept := payload{}
	for _, name := range []string{"eventId", "revokedToken", "ttl", "expiryTime", "type", "tenantId", "status"} {
		if raw, ok := p[name]; ok {
			kept[name] = raw
		}
	}
	if token, err := p.text("revokedToken", 0); err != nil || !shownWhole(p, token) {
		kept["revokedToken"] = digestOfRaw(p["revokedToken"], token)
	}
	redacted, err := json.Marshal(map[string]any{"event": map[string]any{"payloadData": kept}})
	if err != nil {
		return event
	}
	return redacted
}

// shownWhole says whether the type promises that revokedToken is no secret. A
// whole JWT in place of a jti is one.
func shownWhole(p payload, token string) bool {
	typ, err := p.text("type", 0)
	if err != nil || token == "" {
		return err == nil
	}
	switch strings.ToUpper(typ) {
	case TypeJWT, TypeAPIKey:
		return strings.Count(token, ".") < 2
	case "CONSUMER_APP_REVOCATION_EVENT", "SUBJECT_ENTITY_REVOCATION_EVENT", "TOKEN_REVOCATION_BATCH":
		return true // base64 of a rule
	}
	return false
}

func digestOfRaw(raw json.RawMessage, token string) json.RawMessage {
	if token == "" {
		token = string(raw)
	}
	text, err := json.Marshal(revocation.NamePrefix + OpaqueDigest(token).String())
	if err != nil {
		return nil
	}
	return text
}

// ErrNoDeadLetter means that there is none of that sequence.
var ErrNoDeadLetter = errors.New("no such dead letter")

// DeadLetters yields the dead letters, the oldest first.
func DeadLetters(ctx context.Context, conn *nats.Conn) iter.Seq2[DeadLetter, error] {
	return func(yield func(DeadLetter, error) bool) {
		s, err := deadLetterStream(ctx, conn)
		if err != nil {
			yield(DeadLetter{}, err)
			return
		}
		for next := uint64(1); ; {
			msg, err := s.GetMsg(ctx, next, jetstream.WithGetMsgSubject(deadLetterSubjects))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				return
			}
			if err != nil {
				yield(DeadLetter{}, err)
				return
			}
			if !yield(deadLetterOf(msg), nil) {
				return
			}
			next = msg.Sequence + 1
		}
	}
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
	}
}
