package messaging

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"revocation-adapter/revocation"
)

// Metadata of a REVOCATIONS that a rebase has made.
const (
	metadataRebasing = "rebasing" // it does not hold everything yet
	metadataRebased  = "rebased"  // when it was whole
)

// While a rebase runs, the records are in a stream of their own.
const (
	rebaseStream   = "REBASE"
	rebasePrefix   = "rebase."
	rebaseComplete = "rebase.complete" // stored last: the copy is whole
	fencedSubject  = "rebase-fenced.>" // of the old log: nobody writes it any more
)

// ErrRebasing means that a rebase was begun and did not end.
var ErrRebasing = errors.New("the log is being written anew: run adapter hub rebase to the end")

// beingRebased keeps a replica that starts from making an empty log while the
// old one is gone and the new one is not there.
func (h *Hub) beingRebased(ctx context.Context, name string) error {
	if name != LogStream {
		return nil
	}
	_, err := h.js.Stream(ctx, rebaseStream)
	switch {
	case err == nil:
		return ErrRebasing
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil
	}
	return err
}

// Rebase writes the live records of the hub's log into a new one, whose versions
// are all beyond those that were ever shown: the remedy for a log that went back.
// Replicas begin again with it by themselves, and gateways get the whole set. It
// may be interrupted at any moment and run again: what it holds is in a stream of
// its own until the new log is whole. Meanwhile events wait in INGEST. It returns
// how many records the new log has.
func Rebase(ctx context.Context, conn *nats.Conn, cfg Config, opts RebaseOptions) (done Rebased, err error) {
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(apiTimeout))
	if err != nil {
		return done, err
	}
	r := rebase{Hub: &Hub{cfg: cfg, conn: conn, js: js, batches: make(chan struct{}, maxBatches)}, opts: opts}
	if err := r.begin(ctx); err != nil {
		return done, err
	}
	if err := r.renew(ctx); err != nil {
		return done, err
	}
	if done.Records, err = r.fill(ctx); err != nil {
		return done, err
	}
	done.Dropped = r.dropped
	return done, r.end(ctx)
}

// RebaseOptions says what a rebase may do. The zero value loses nothing.
type RebaseOptions struct {
	DropUnreadable bool // give up what the hub cannot read, or nobody understands
}

// Rebased is what a rebase did.
type Rebased struct{ Records, Dropped int }

// ErrRecordsLost means that the hub has records that it does not deliver.
var ErrRecordsLost = errors.New("the hub cannot read all its records")

// rebase is one on its way. Its steps find out what was done already.
type rebase struct {
	*Hub
	opts     RebaseOptions
	replicas int // of the log's stream
	dropped  int // records of the old log, unless it was copied by another run
}

// begin copies the old log, after which nobody writes it any more.
func (r *rebase) begin(ctx context.Context) error {
	kept, err := r.js.Stream(ctx, rebaseStream)
	if err == nil {
		_, err = kept.GetLastMsgForSubject(ctx, rebaseComplete)
		if err == nil {
			r.replicas = kept.CachedInfo().Config.Replicas
			return nil
		}
		if !errors.Is(err, jetstream.ErrMsgNotFound) {
			return fmt.Errorf("stream %s: %w", rebaseStream, err)
		}
		if err = r.js.DeleteStream(ctx, rebaseStream); err != nil { // half a copy
			return fmt.Errorf("stream %s: %w", rebaseStream, err)
		}
	} else if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("stream %s: %w", rebaseStream, err)
	}
	old, err := r.js.Stream(ctx, LogStream)
	if err != nil {
		return fmt.Errorf("stream %s: %w", LogStream, err)
	}
	nothing := func(jetstream.Msg, revocation.Revocation) error { return nil }
	if err := r.eachOld(ctx, old, nothing); err != nil {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	if last, now := old.CachedInfo().State.LastSeq, uint64(r.cfg.Now().UnixMicro()); last >= now { // after 1970
		return fmt.Errorf("nothing was changed: the log ends at %d, and this machine's clock says %d: set it", last, now)
	}
	before := old.CachedInfo().Config
	fenced := before
	fenced.Subjects, fenced.Metadata = []string{fencedSubject}, nil
	if _, err = r.js.UpdateStream(ctx, fenced); err != nil {
		return fmt.Errorf("stream %s: %w", LogStream, err)
	}
	err = r.copyOf(ctx, old)
	if errors.Is(err, ErrRecordsLost) || errors.Is(err, ErrRecord) || errors.Is(err, ErrNewerFormat) { // written since
		return fmt.Errorf("nothing was changed: %w", errors.Join(err, r.undo(ctx, before)))
	}
	return err
}

// undo lets the old log be written again.
func (r *rebase) undo(ctx context.Context, cfg jetstream.StreamConfig) error {
	cfg.Subjects = []string{logSubjects} // it may have been fenced by another run
	_, err := r.js.UpdateStream(ctx, cfg)
	return errors.Join(r.js.DeleteStream(ctx, rebaseStream), err)
}

func (r *rebase) copyOf(ctx context.Context, old jetstream.Stream) error {
	r.replicas = old.CachedInfo().Config.Replicas
	_, err := r.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: rebaseStream, Subjects: []string{rebasePrefix + ">"}, Replicas: r.replicas, AllowMsgTTL: true,
	})
	if err != nil {
		return fmt.Errorf("stream %s: %w", rebaseStream, err)
	}
	var acks []jetstream.PubAckFuture
	flush := func() error {
		for _, ack := range acks {
			select {
			case <-ack.Ok():
			case err := <-ack.Err():
				return fmt.Errorf("copy a record: %w", err)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		acks = acks[:0]
		return nil
	}
	err = r.eachOld(ctx, old, func(msg jetstream.Msg, rec revocation.Revocation) error {
		copied := &nats.Msg{Subject: rebasePrefix + msg.Subject(), Data: msg.Data(), Header: nats.Header{}}
		if ttl := rec.TTL(r.cfg.Now(), r.cfg.Grace); ttl > 0 {
			copied.Header.Set(jetstream.MsgTTLHeader, strconv.FormatInt(ttl, 10))
		}
		ack, err := r.js.PublishMsgAsync(copied)
		if err != nil {
			return fmt.Errorf("copy a record: %w", err)
		}
		if acks = append(acks, ack); len(acks) == MaxBatch {
			return flush()
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	if err == nil {
		_, err = r.js.Publish(ctx, rebaseComplete, nil)
	}
	return err
}

// renew puts a new log in the place of the old one.
func (r *rebase) renew(ctx context.Context) error {
	old, err := r.js.Stream(ctx, LogStream)
	switch {
	case err == nil:
		if _, ours := old.CachedInfo().Config.Metadata[metadataRebasing]; ours {
			r.log = old // interrupted while it was filled
			return nil
		}
		if subjects := old.CachedInfo().Config.Subjects; len(subjects) != 1 || subjects[0] != fencedSubject {
			return fmt.Errorf("stream %s is neither the old log nor the new one: a person must look; stream %s holds a copy", LogStream, rebaseStream)
		}
		if err := r.js.DeleteStream(ctx, LogStream); err != nil {
			return fmt.Errorf("stream %s: %w", LogStream, err)
		}
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return fmt.Errorf("stream %s: %w", LogStream, err)
	}
	cfg := logConfig(r.cfg.Now())
	cfg.Replicas, cfg.Metadata = r.replicas, map[string]string{metadataRebasing: "true"}
	if r.log, err = r.js.CreateStream(ctx, cfg); err != nil {
		return fmt.Errorf("stream %s: %w", LogStream, err)
	}
	return nil
}

// fill writes the copy into the new log, merging with what replicas write there.
func (r *rebase) fill(ctx context.Context) (records int, err error) {
	kept, err := r.js.Stream(ctx, rebaseStream)
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", rebaseStream, err)
	}
	writer := NewWriter(r.Hub, revocation.NewLog(r.cfg.Grace))
	var batch []revocation.Revocation
	flush := func() error {
		for _, o := range writer.Put(ctx, batch...) {
			if o.Err != nil {
				return fmt.Errorf("write a record: %w", o.Err)
			}
		}
		records, batch = records+len(batch), batch[:0]
		return nil
	}
	err = eachRecord(ctx, kept, rebasePrefix+logSubjects, func(rec revocation.Revocation) error {
		if batch = append(batch, rec); len(batch) == MaxBatch {
			return flush()
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	return records, err
}

// end gives the copy up and declares the new log whole, upon which the replicas
// begin again with it.
func (r *rebase) end(ctx context.Context) error {
	if err := r.js.DeleteStream(ctx, rebaseStream); err != nil {
		return fmt.Errorf("stream %s: %w", rebaseStream, err)
	}
	cfg := r.log.CachedInfo().Config
	cfg.Metadata = map[string]string{metadataRebased: r.cfg.Now().UTC().Format(time.RFC3339Nano)}
	if _, err := r.js.UpdateStream(ctx, cfg); err != nil {
		return fmt.Errorf("stream %s: %w", LogStream, err)
	}
	return nil
}

// eachOld calls do for every record of the old log. One that cannot be understood
// or read ends it, unless it may be dropped.
func (r *rebase) eachOld(ctx context.Context, old jetstream.Stream, do func(jetstream.Msg, revocation.Revocation) error) error {
	before, err := old.Info(ctx)
	if err != nil {
		return fmt.Errorf("stream %s: %w", LogStream, err)
	}
	dropped, last := 0, before.State.LastSeq
	var ends []time.Time // of what was read; zero: it never ends
	err = eachMessage(ctx, old, logSubjects, func(msg jetstream.Msg, sequence uint64) error {
		last, ends = max(last, sequence), append(ends, endOf(msg))
		rec, err := decodeRecord(msg.Data())
		if errors.Is(err, ErrRecord) && r.opts.DropUnreadable {
			dropped++
			return nil
		}
		if err != nil {
			return fmt.Errorf("record %d: %w", sequence, err)
		}
		return do(msg, rec)
	})
	if err != nil {
		return err
	}
	lost, err := missing(ctx, old, last, ends)
	if err != nil {
		return err
	}
	if lost > 0 && !r.opts.DropUnreadable {
		return fmt.Errorf("%w: %d", ErrRecordsLost, lost)
	}
	r.dropped = dropped + lost
	return nil
}

// endOf is when the hub forgets a message.
func endOf(msg jetstream.Msg) (end time.Time) {
	ttl := msg.Headers().Get(jetstream.MsgTTLHeader)
	life, err := time.ParseDuration(ttl)
	if seconds, ours := strconv.ParseInt(ttl, 10, 64); ours == nil {
		life, err = time.Duration(min(seconds, math.MaxInt64/int64(time.Second)))*time.Second, nil
	}
	if meta, bad := msg.Metadata(); err == nil && bad == nil {
		end = meta.Timestamp.Add(life)
	}
	return end
}

// missing is how many messages up to last the hub counts and did not deliver. What
// was read and has not ended it still counts; what has ended it removes a little
// later, so that it is asked for a while.
func missing(ctx context.Context, s jetstream.Stream, last uint64, ends []time.Time) (int, error) {
	least := math.MaxInt
	for range 100 {
		info, err := s.Info(ctx)
		if err != nil {
			return 0, fmt.Errorf("stream %s: %w", LogStream, err)
		}
		more := int(info.State.Msgs) - int(max(info.State.LastSeq, last)-last) // what came since
		for _, end := range ends {
			if end.IsZero() || end.After(info.TimeStamp) {
				more--
			}
		}
		if least = min(least, more); least <= 0 {
			return 0, nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return least, nil
}

// eachRecord calls do for every record that is stored under subjects, in order.
// A record that cannot be understood ends it: it must not get lost.
func eachRecord(ctx context.Context, s jetstream.Stream, subjects string, do func(revocation.Revocation) error) error {
	return eachMessage(ctx, s, subjects, func(msg jetstream.Msg, sequence uint64) error {
		rec, err := decodeRecord(msg.Data())
		if err != nil {
			return fmt.Errorf("record %d: %w", sequence, err)
		}
		return do(rec)
	})
}

// eachMessage calls do for every message that is stored under subjects, in order,
// until the leader says that there are no more.
func eachMessage(ctx context.Context, s jetstream.Stream, subjects string, do func(msg jetstream.Msg, sequence uint64) error) error {
	cons, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{FilterSubjects: []string{subjects}})
	if err != nil {
		return fmt.Errorf("read the records: %w", err)
	}
	messages, err := cons.Messages()
	if err != nil {
		return fmt.Errorf("read the records: %w", err)
	}
	defer messages.Stop()
	for last, pending := uint64(0), uint64(0); ; {
		if pending == 0 {
			_, err := s.GetMsg(ctx, last+1, jetstream.WithGetMsgSubject(subjects))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("read the records: %w", err)
			}
		}
		msg, err := messages.Next(jetstream.NextMaxWait(time.Second))
		if errors.Is(err, nats.ErrTimeout) && ctx.Err() == nil { // what was to come has expired
			pending = 0
			continue
		}
		if err != nil {
			return fmt.Errorf("read the records: %w", err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("read the records: %w", err)
		}
		if err := do(msg, meta.Sequence.Stream); err != nil {
			return err
		}
		last, pending = meta.Sequence.Stream, meta.NumPending
	}
}
