package messaging

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"revocation-adapter/revocation"
)

// ErrNotStored means that an event was handled and the log does not say what it
// asked for: it was not understood, or is overturned by a later one.
var ErrNotStored = errors.New("the log does not say what the event asked for")

// Published is an event that INGEST has stored, and whose key is known.
type Published struct {
	Sequence uint64 // in INGEST
	EventID  string
	State    revocation.State // that it asks for
	Domain   revocation.Domain
	Digest   revocation.Digest
}

// storedEvery is how often it is looked whether an event is in the log.
const storedEvery = 20 * time.Millisecond

// AwaitStored returns the record that an event has come to, and its version, as the
// log's leader has them: the record lists the event, or the event is handled and
// changed nothing. The hub's operator may ask.
func AwaitStored(ctx context.Context, conn *nats.Conn, p Published) (record revocation.Revocation, version uint64, err error) {
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(apiTimeout))
	if err != nil {
		return record, 0, err
	}
	s := &storing{Published: p}
	if s.ingest, err = js.Stream(ctx, IngestStream); err == nil {
		s.log, err = js.Stream(ctx, LogStream)
	}
	if err != nil {
		return record, 0, fmt.Errorf("look for the event: %w", err)
	}
	again := time.NewTicker(storedEvery)
	defer again.Stop()
	for {
		record, version, err = s.look(ctx)
		if err != nil || version > 0 {
			return record, version, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return record, 0, fmt.Errorf("look for the event: %w", ctx.Err())
		}
	}
}

// storing is an event on its way into the log.
type storing struct {
	Published
	ingest, log jetstream.Stream
}

// look returns the record once the event is in it, else a version of 0. Whether the
// event waits is asked first: what is handled is in the log by then.
func (s *storing) look(ctx context.Context) (record revocation.Revocation, version uint64, err error) {
	_, err = s.ingest.GetMsg(ctx, s.Sequence)
	handled := errors.Is(err, jetstream.ErrMsgNotFound)
	if err != nil && !handled {
		return record, 0, fmt.Errorf("look for the event: %w", err)
	}
	msg, err := s.log.GetLastMsgForSubject(ctx, subjectOf(s.Domain, s.Digest))
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound) && handled:
		return record, 0, ErrNotStored
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return record, 0, nil
	case err != nil:
		return record, 0, fmt.Errorf("look for the event: %w", err)
	}
	if record, err = decodeRecord(msg.Data); err != nil {
		return record, 0, fmt.Errorf("read the record: %w", err)
	}
	listed := slices.ContainsFunc(record.Events, func(e revocation.Event) bool { return e.ID == s.EventID })
	switch {
	case (listed || handled) && record.State != s.State:
		return record, 0, ErrNotStored
	case listed || handled:
		return record, msg.Sequence, nil
	}
	return record, 0, nil
}
