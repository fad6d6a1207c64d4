package messaging

import "github.com/nats-io/nats.go/jetstream"

// withinBatch says whether more of msg's batch is to come, though nothing may be
// pending: the hub delivers while it still stores. It keeps the headers of a
// batch with its messages. Should the last one be gone before it was delivered,
// what it was waited for is published with what comes next, or when the leader
// is asked.
func withinBatch(msg jetstream.Msg) bool {
	h := msg.Headers()
	return h.Get(headerBatchID) != "" && h.Get(headerBatchCommit) == ""
}
