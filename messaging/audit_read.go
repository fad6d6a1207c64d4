package messaging

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// AuditQuery says which entries are asked for. Its zero value asks for all.
type AuditQuery struct {
	Since  time.Time // zero: the newest comes first; else the oldest that was stored since then
	Before uint64    // only those of a lower sequence; 0: all
	Actor  string    // empty: of anybody; what it did for others is its own
	Action string
	Target string
}

// ActingFor stands in an actor between the client and for whom it says that it acts.
// No client has a space in its id.
const ActingFor = " for "

// How many entries are read at a time, the first time and at most.
const (
	firstAuditPage = 128
	maxAuditPage   = 8192
)

// AuditEntries yields the entries that there are when it begins, until the caller
// has enough. One that cannot be read is an error with its sequence, after which
// others may follow.
func AuditEntries(ctx context.Context, conn *nats.Conn, q AuditQuery) iter.Seq2[AuditEntry, error] {
	return func(yield func(AuditEntry, error) bool) {
		s, err := auditStream(ctx, conn)
		if err != nil {
			yield(AuditEntry{}, err)
			return
		}
		r := auditReader{stream: s, AuditQuery: q, subject: auditSubjects}
		if q.Action != "" {
			if err := checkAction(q.Action); err != nil {
				yield(AuditEntry{}, err)
				return
			}
			r.subject = "audit." + q.Action
		}
		state := s.CachedInfo().State
		last := state.LastSeq
		if q.Before > 0 {
			last = min(last, (q.Before-1)/entriesPerMessage)
		}
		if q.Since.IsZero() {
			err = r.backward(ctx, max(1, state.FirstSeq), last, yield)
		} else {
			err = r.forward(ctx, last, yield)
		}
		if err != nil && !errors.Is(err, errEnough) {
			yield(AuditEntry{}, err)
		}
	}
}

// entriesPerMessage is how many entries one message of the stream may hold. The
// sequence of an entry is that of its message times so many, and its place there.
const entriesPerMessage = 1000

// errEnough means that the caller has enough.
var errEnough = errors.New("enough")

func auditStream(ctx context.Context, conn *nats.Conn) (jetstream.Stream, error) {
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, err
	}
	s, err := js.Stream(ctx, AuditStream)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", AuditStream, err)
	}
	return s, nil
}

// auditReader reads the entries of a query.
type auditReader struct {
	AuditQuery
	stream  jetstream.Stream
	subject string
}

// backward reads pages from the newest entry to the oldest.
func (r auditReader) backward(ctx context.Context, first, last uint64, yield func(AuditEntry, error) bool) error {
	for size := uint64(firstAuditPage); last >= first; size = min(2*size, maxAuditPage) {
		from := max(first, last-min(last, size)+1)
		var page []auditRead
		start := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from}
		if err := r.each(ctx, start, last, func(lines []auditRead) error {
			page = append(page, lines...)
			return nil
		}); err != nil {
			return err
		}
		for _, one := range slices.Backward(page) {
			if err := r.tell(one, yield); err != nil {
				return err
			}
		}
		last = from - 1
	}
	return nil
}

// forward reads from a time on.
func (r auditReader) forward(ctx context.Context, last uint64, yield func(AuditEntry, error) bool) error {
	start := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &r.Since}
	return r.each(ctx, start, last, func(lines []auditRead) error {
		for _, one := range lines {
			if err := r.tell(one, yield); err != nil {
				return err
			}
		}
		return nil
	})
}

// auditRead is an entry as it was read, or why it could not be.
type auditRead struct {
	AuditEntry
	err error
}

// tell yields an entry that is asked for.
func (r auditReader) tell(one auditRead, yield func(AuditEntry, error) bool) error {
	if r.Before > 0 && one.Sequence >= r.Before {
		return nil
	}
	by := one.Actor == r.Actor || strings.HasPrefix(one.Actor, r.Actor+ActingFor)
	asked := (r.Actor == "" || by) && (r.Target == "" || r.Target == one.Target)
	if (asked || one.err != nil) && !yield(one.AuditEntry, one.err) {
		return errEnough
	}
	return nil
}

// each calls do for the entries of every message from a start on, up to a sequence of
// the stream.
func (r auditReader) each(ctx context.Context, start jetstream.OrderedConsumerConfig, last uint64, do func([]auditRead) error) error {
	start.FilterSubjects = []string{r.subject}
	cons, err := r.stream.OrderedConsumer(ctx, start)
	if err != nil {
		return fmt.Errorf("read the audit: %w", err)
	}
	if cons.CachedInfo().NumPending == 0 {
		return nil
	}
	messages, err := cons.Messages()
	if err != nil {
		return fmt.Errorf("read the audit: %w", err)
	}
	defer messages.Stop()
	for {
		msg, err := messages.Next(jetstream.NextMaxWait(time.Second))
		if errors.Is(err, nats.ErrTimeout) {
			info, err := cons.Info(ctx)
			if err != nil {
				return fmt.Errorf("read the audit: %w", err)
			}
			if info.NumPending == 0 { // what was to come has been discarded
				return nil
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("read the audit: %w", err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("read the audit: %w", err)
		}
		if meta.Sequence.Stream > last {
			return nil
		}
		if err := do(readLines(msg.Data(), meta.Sequence.Stream*entriesPerMessage)); err != nil {
			return err
		}
		if meta.Sequence.Stream == last || meta.NumPending == 0 {
			return nil
		}
	}
}

// readLines reads the entries of a message, of which the first has a sequence.
func readLines(data []byte, sequence uint64) (all []auditRead) {
	for line := range bytes.SplitSeq(data, []byte{'\n'}) {
		all = append(all, readAudit(line, sequence))
		sequence++
	}
	return all
}

func readAudit(data []byte, sequence uint64) auditRead {
	one := auditRead{}
	if err := json.Unmarshal(data, &one.AuditEntry); err != nil {
		one = auditRead{err: fmt.Errorf("entry %d of the audit cannot be read", sequence)}
	}
	one.Sequence = sequence
	return one
}
