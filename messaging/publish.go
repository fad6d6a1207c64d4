package messaging

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// The headers of an atomic batch; the last message of it carries the commit, and
// gets the answer.
const (
	headerBatchID       = "Nats-Batch-Id"
	headerBatchSequence = "Nats-Batch-Sequence"
	headerBatchCommit   = "Nats-Batch-Commit"
)

// expect has a message stored only if the newest of its subject has a sequence; 0
// means that there is none.
func expect(msg *nats.Msg, last uint64) {
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(last, 10))
}

// publish stores messages of one stream, several as an atomic batch: all or none.
// It takes one of slots for a batch, because the hub takes a bounded number of them
// per stream. It returns the sequence of the last; those before it have the numbers
// before.
func (h *Hub) publish(ctx context.Context, slots chan struct{}, msgs ...*nats.Msg) (sequence uint64, err error) {
	if len(msgs) > 1 {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		if err := h.beginBatch(msgs); err != nil {
			return 0, err
		}
	}
	ack, err := h.js.PublishMsg(ctx, msgs[len(msgs)-1])
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// beginBatch sends all messages but the last, which is made the commit.
func (h *Hub) beginBatch(msgs []*nats.Msg) error {
	id := nuid.Next()
	for i, msg := range msgs {
		msg.Header.Set(headerBatchID, id)
		msg.Header.Set(headerBatchSequence, strconv.Itoa(i+1))
		if i == len(msgs)-1 {
			msg.Header.Set(headerBatchCommit, "1")
		} else if err := h.conn.PublishMsg(msg); err != nil {
			return fmt.Errorf("write a batch: %w", err)
		}
	}
	return nil
}

// ended says whether another try is of no use to anybody.
func ended(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, nats.ErrConnectionClosed)
}

// conflict says whether another writer changed a subject meanwhile.
func conflict(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// Faults that have the code of a bad request, and are none.
const (
	codeAccountFull     jetstream.ErrorCode = 10002
	codeBatchIncomplete jetstream.ErrorCode = 10176 // a message of it did not reach the hub
)

// permanent says whether another try cannot help. An outage is none: a
// revocation that waits in INGEST is worth more than one among the dead letters.
func permanent(err error) bool {
	if errors.Is(err, ErrRecord) || errors.Is(err, nats.ErrMaxPayload) {
		return true
	}
	var api *jetstream.APIError
	return errors.As(err, &api) && api.Code == 400 && !conflict(err) &&
		api.ErrorCode != codeAccountFull && api.ErrorCode != codeBatchIncomplete
}
