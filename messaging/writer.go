package messaging

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"revocation-adapter/revocation"
)

// ErrConflict means that other writers were faster, every time.
var ErrConflict = errors.New("other writers were faster")

// How the log is written.
const (
	// maxTries bounds how often a write is tried against other writers of the
	// same key; each try that fails means that another one succeeded.
	maxTries = 16
	// writeTimeout bounds the tries while the hub does not answer.
	writeTimeout = 10 * time.Second
	// MaxBatch is how many messages the hub takes in one atomic batch.
	MaxBatch = 1000
	// minBatch is from how many on a batch, for which the hub makes files, is
	// faster than as many messages at the same time (measured, synced).
	minBatch = 16
	// maxBatches bounds the batches in flight; the hub takes 50 per stream, from
	// all replicas together.
	maxBatches = 8
	// maxRequests bounds how many records are read or written at the same time.
	maxRequests = 32

	firstPause = 50 * time.Millisecond // between two tries, doubled each time
)

// Writer is the one door into the log. Any number of goroutines may use it.
type Writer struct {
	hub *Hub
	log *revocation.Log // what this replica knows already
}

// NewWriter returns a writer for a replica that knows what log says.
func NewWriter(hub *Hub, log *revocation.Log) *Writer { return &Writer{hub, log} }

// Outcome is what became of a revocation that was put into the log.
type Outcome struct {
	Changed bool             // false: the log said all of it already
	Version uint64           // of the record that says it now; 0 with an Err
	Was     revocation.State // of the record before; 0: there was none
	Wider   bool             // tenants are told of it that were not told of the record before
	Tenant  string           // of that record, whoever else is told of it; "": everybody is
	Err     error            // not nil: it is not known to be in the log; putting it again is safe
}

// Put merges revocations into the records of their keys by compare-and-set, many
// in one atomic batch, and returns what became of each. What the log says already
// is not written again, and takes no version. While the hub does not answer it
// tries again, for ten seconds per batch: a write that was stored though its
// answer was lost is found there.
func (w *Writer) Put(ctx context.Context, rs ...revocation.Revocation) []Outcome {
	outcomes := make([]Outcome, len(rs))
	keys, of := group(rs)
	for _, k := range keys {
		_, _, k.stored = w.log.Find(k.want.Domain, k.want.Key, k.want.Digest)
	}
	for batch := range slices.Chunk(keys, MaxBatch) {
		w.put(ctx, batch)
	}
	for i, at := range of {
		outcomes[i] = at.write.Outcome
		outcomes[i].Changed = outcomes[i].Changed && at.adds
	}
	return outcomes
}

// put writes up to MaxBatch records. Each has its outcome then.
func (w *Writer) put(ctx context.Context, batch []*write) {
	if w.hub.wentBack.Load() {
		fail(batch, ErrWentBack)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	w.writeAll(ctx, batch)
}

// write is the record of one key on its way into the log.
type write struct {
	subject string
	want    revocation.Revocation // all that was given for the key
	record  revocation.Revocation // want merged with what is stored at last
	last    uint64                // sequence that the record must replace; 0: there is none
	stored  bool                  // something is, or may be: read it first
	same    bool                  // what is stored says all of want
	decided bool                  // want is later than what it overturns, whatever the clocks say
	anew    time.Duration         // of decided: a date in place of an unknown expiry that is later by more is written
	keep    time.Duration         // how long beyond its expiry the hub keeps it, if that is more than the grace
	Outcome
}

// given says where a revocation went.
type given struct {
	write *write
	adds  bool // it says more than those of the same key before it
}

// group joins what is of the same key.
func group(rs []revocation.Revocation) ([]*write, []given) {
	var keys []*write
	of := make([]given, 0, len(rs))
	bySubject := make(map[string]*write, len(rs))
	for _, r := range rs {
		subject := subjectOf(r.Domain, r.Digest)
		k, known := bySubject[subject]
		if !known {
			k = &write{subject: subject, want: r}
			bySubject[subject], keys = k, append(keys, k)
			of = append(of, given{k, true})
			continue
		}
		merged := revocation.Merge(k.want, r)
		of = append(of, given{k, !revocation.Equal(merged, k.want)})
		k.want = merged
	}
	return keys, of
}

// writeAll writes as one batch, or what is few one by one.
func (w *Writer) writeAll(ctx context.Context, batch []*write) {
	if len(batch) == 1 || len(batch) >= minBatch {
		w.write(ctx, batch)
		return
	}
	each(batch, func(k *write) { w.write(ctx, []*write{k}) })
}

// each calls do for each write, many at the same time.
func each[T any](batch []T, do func(T)) {
	var group errgroup.Group
	group.SetLimit(maxRequests)
	for _, k := range batch {
		group.Go(func() error {
			do(k)
			return nil
		})
	}
	_ = group.Wait() // each write has its own error
}

// write puts a batch, in halves where it is refused whole for one of its writes.
func (w *Writer) write(ctx context.Context, batch []*write) {
	pause := firstPause
	for try := 1; ; try++ {
		batch = w.read(ctx, batch)
		if len(batch) == 0 {
			return
		}
		last, err := w.publish(ctx, batch)
		if err == nil {
			first := last - uint64(len(batch)-1)
			for i, k := range batch {
				k.Changed, k.Version, k.Tenant = true, first+uint64(i), k.record.Tenant
			}
			return
		}
		for _, k := range batch {
			k.stored = true // by another writer, or by this one if only the answer was lost
		}
		switch {
		case len(batch) > 1 && (conflict(err) || permanent(err)):
			half := len(batch) / 2
			w.writeAll(ctx, batch[:half])
			w.writeAll(ctx, batch[half:])
			return
		case permanent(err) || ended(ctx, err):
			fail(batch, err)
			return
		case !conflict(err):
			pause = wait(ctx, pause)
		case try == maxTries:
			fail(batch, ErrConflict)
			return
		}
	}
}

func fail(batch []*write, err error) {
	for _, k := range batch {
		k.Err = err
	}
}

// wait waits before another try, and returns how long to wait before the next.
func wait(ctx context.Context, pause time.Duration) time.Duration {
	select {
	case <-time.After(pause):
	case <-ctx.Done():
	}
	return min(2*pause, time.Second)
}

// read merges each write with what is stored, and returns those that would
// change it.
func (w *Writer) read(ctx context.Context, batch []*write) []*write {
	each(batch, func(k *write) {
		k.record, k.last, k.same, k.Was, k.Wider = k.want, 0, false, 0, false
		if k.stored {
			w.merge(ctx, k)
		}
	})
	return slices.DeleteFunc(slices.Clone(batch), func(k *write) bool {
		return k.Err != nil || k.same
	})
}

// merge reads what is stored and merges it into the write.
func (w *Writer) merge(ctx context.Context, k *write) {
	var old revocation.Revocation
	pause := firstPause
	for {
		msg, err := w.hub.log.GetLastMsgForSubject(ctx, k.subject)
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			return
		case err == nil:
			if old, err = decodeRecord(msg.Data); err != nil {
				k.Err = fmt.Errorf("read the record: %w", err)
				return
			}
			k.over(old, msg.Sequence)
			return
		case ended(ctx, err):
			k.Err = fmt.Errorf("read the record: %w", err)
			return
		}
		pause = wait(ctx, pause)
	}
}

// over merges the write with the record that is stored at a sequence.
func (k *write) over(old revocation.Revocation, sequence uint64) {
	want := k.want
	if k.decided {
		want = want.After(old)
	}
	k.last, k.record, k.Was = sequence, revocation.Merge(old, want), old.State
	k.Wider = k.record.Tenant != old.Tenant
	k.same = revocation.Equal(k.record, old) || k.decided && k.repeats(old)
	if k.same {
		k.Version, k.Tenant = sequence, k.record.Tenant
	}
}

// repeats says whether gateways would learn nothing from the record that old has not
// told them: who decides once more what holds already changes nothing. The date in
// place of an expiry that nobody knows is counted anew when that is worth a write.
func (k *write) repeats(old revocation.Revocation) bool {
	merged := k.record
	guessed := old.Lifetime == revocation.Unknown && merged.Lifetime == revocation.Unknown
	longer := merged.Expiry != old.Expiry && (!guessed || merged.Expiry-old.Expiry > k.anew.Milliseconds())
	return !longer && merged.State == old.State && merged.Lifetime == old.Lifetime && merged.Before == old.Before &&
		merged.Tenant == old.Tenant && merged.Kind == old.Kind
}

// publish writes a batch whole or not at all: each record only if the sequence
// that it was merged with is still the newest of its subject. It returns the
// sequence of the last; those before it have the numbers before.
func (w *Writer) publish(ctx context.Context, batch []*write) (sequence uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	msgs := make([]*nats.Msg, 0, len(batch))
	for _, k := range batch {
		msg, err := w.message(k)
		if err != nil {
			return 0, err
		}
		msgs = append(msgs, msg)
	}
	if sequence, err = w.hub.publish(ctx, w.hub.batches, msgs...); err != nil {
		return 0, fmt.Errorf("write the record: %w", err)
	}
	return sequence, nil
}

// message is a record as it is stored. Headers are stored with it and read by
// every replica that starts: no more than needed.
func (w *Writer) message(k *write) (*nats.Msg, error) {
	data, err := encodeRecord(k.record)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	msg := &nats.Msg{Subject: k.subject, Data: data, Header: nats.Header{}}
	expect(msg, k.last)
	if ttl := k.record.TTL(w.hub.cfg.Now(), max(w.hub.cfg.Grace, k.keep)); ttl > 0 {
		msg.Header.Set(jetstream.MsgTTLHeader, strconv.FormatInt(ttl, 10))
	}
	return msg, nil
}
