package messaging

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"revocation-adapter/revocation"
)

// Record is what the hub's log says of one key.
type Record struct {
	revocation.Revocation
	Version uint64    // of the record: its sequence
	Stored  time.Time // when the hub stored it
}

// ErrNoRecord means that the hub's log says nothing of a key.
var ErrNoRecord = errors.New("the log says nothing of it")

// Record reads the record of a key from the leader of the hub's log, with all that
// is known of its events. One that has expired may still be there.
func (h *Hub) Record(ctx context.Context, d revocation.Domain, digest revocation.Digest) (Record, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	return recordIn(ctx, h.log, subjectOf(d, digest))
}

// FindRecord is Hub.Record for who has a connection alone.
func FindRecord(ctx context.Context, conn *nats.Conn, d revocation.Domain, digest revocation.Digest) (Record, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	js, err := jetstream.New(conn)
	if err != nil {
		return Record{}, err
	}
	log, err := js.Stream(ctx, LogStream)
	if err != nil {
		return Record{}, fmt.Errorf("read the record: %w", err)
	}
	return recordIn(ctx, log, subjectOf(d, digest))
}

func recordIn(ctx context.Context, log jetstream.Stream, subject string) (Record, error) {
	msg, err := log.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return Record{}, ErrNoRecord
	}
	if err != nil {
		return Record{}, fmt.Errorf("read the record: %w", err)
	}
	r, err := decodeRecord(msg.Data)
	if err != nil {
		return Record{}, fmt.Errorf("read the record: %w", err)
	}
	return Record{Revocation: r, Version: msg.Sequence, Stored: msg.Time}, nil
}
