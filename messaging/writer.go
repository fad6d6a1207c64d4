package messaging

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"revocation-adapter/revocation"
)

// ErrConflict means that other writers were faster, every time.
var ErrConflict = errors.New("other writers were faster")

// maxTries bounds how often a write is tried against other writers of the same
// key; each try that fails means that another one succeeded.
const maxTries = 16

// writer is the one door into the log.
type writer struct {
	hub *Hub
	log *revocation.Log // what this replica knows already
}

// put merges r into the record of its key by compare-and-set. Changed is false
// where the record says all of it already: then nothing was written and no
// version taken.
func (w writer) put(ctx context.Context, r revocation.Revocation) (changed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	subject := subjectOf(r.Domain, r.Digest)
	_, _, known := w.log.Find(r.Domain, r.Key, r.Digest)
	for range maxTries {
		merged, last := r, uint64(0)
		if known {
			old, seq, err := w.read(ctx, subject)
			if err != nil {
				return false, fmt.Errorf("read the record: %w", err)
			}
			if seq > 0 {
				merged, last = revocation.Merge(old, r), seq
				if revocation.Equal(merged, old) {
					return false, nil
				}
			}
		}
		err = w.publish(ctx, subject, merged, last)
		if !conflict(err) {
			return err == nil, err
		}
		known = true
	}
	return false, ErrConflict
}

// read returns the stored record of a subject and its sequence, 0 where there
// is none.
func (w writer) read(ctx context.Context, subject string) (revocation.Revocation, uint64, error) {
	msg, err := w.hub.log.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return revocation.Revocation{}, 0, nil
	}
	if err != nil {
		return revocation.Revocation{}, 0, err
	}
	r, err := decodeRecord(msg.Data)
	return r, msg.Sequence, err
}

// publish writes r, if last is still the newest sequence of its subject.
func (w writer) publish(ctx context.Context, subject string, r revocation.Revocation, last uint64) error {
	data, err := encodeRecord(r)
	if err != nil {
		return fmt.Errorf("encode the record: %w", err)
	}
	msg := &nats.Msg{Subject: subject, Data: data, Header: nats.Header{}}
	if ttl := r.TTL(w.hub.cfg.Now(), w.hub.cfg.Grace); ttl > 0 {
		msg.Header.Set(jetstream.MsgTTLHeader, strconv.FormatInt(ttl, 10))
	}
	// Headers are stored with the record and read by every replica that starts:
	// no more than needed.
	_, err = w.hub.js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequencePerSubject(last))
	if err != nil {
		return fmt.Errorf("write the record: %w", err)
	}
	return nil
}

// conflict says whether another writer changed the subject meanwhile.
func conflict(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}
