package messaging

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"revocation-adapter/revocation"
)

// The streams, and the subjects that they capture.
const (
	IngestStream     = "INGEST"
	LogStream        = "REVOCATIONS"
	DeadLetterStream = "DEADLETTER"

	SubjectRevocation = "tokenRevocation"
	SubjectApproval   = "tokenApproval"
	SubjectIssued     = "tokenIssued"

	logSubjects        = "revoked.>"
	deadLetterSubjects = "deadletter.>"
)

// ErrStreamDiffers means that a stream exists with other settings than ours.
var ErrStreamDiffers = errors.New("the stream exists with other settings; nothing was changed")

// ErrUnreadable means that the store holds a stream that the server could not
// read. To create it anew would destroy it.
var ErrUnreadable = errors.New("the store holds the stream, but it cannot be read; nothing was changed")

// ingestConfig: a work queue that holds the raw event until REVOCATIONS has it.
// Full, it refuses what is new and overwrites nothing.
func ingestConfig(l Limits) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:      IngestStream,
		Subjects:  []string{SubjectRevocation, SubjectApproval, SubjectIssued},
		Retention: jetstream.WorkQueuePolicy,
		Discard:   jetstream.DiscardNew,
		MaxMsgs:   l.MaxPending,
		MaxBytes:  l.MaxPendingBytes,
	}
}

// logConfig: one message per key, the newest; the server forgets it when its
// TTL ends. The first sequence is the creation time in microseconds, so that
// the versions of a store that was wiped are never used again. AllowDirect is
// off: a read must come from the leader. No message has an id, and a hub that
// starts reads everything within the window for duplicates: it is the shortest.
func logConfig(now time.Time) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:               LogStream,
		Subjects:           []string{logSubjects},
		MaxMsgsPerSubject:  1,
		AllowMsgTTL:        true,
		AllowAtomicPublish: true,
		DenyDelete:         true,
		DenyPurge:          true,
		Duplicates:         100 * time.Millisecond,
		FirstSeq:           uint64(now.UnixMicro()), // after 1970
	}
}

// maxDeadLetters bounds what anybody who may publish can make us keep; beyond
// it the oldest go. The metric of their number alerts long before.
const (
	maxDeadLetters     = 1_000_000
	maxDeadLetterBytes = 1 << 30
)

func deadLetterConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:     DeadLetterStream,
		Subjects: []string{deadLetterSubjects},
		MaxMsgs:  maxDeadLetters,
		MaxBytes: maxDeadLetterBytes,
	}
}

// openStream returns the stream of cfg, created if it is missing. It never
// changes one that exists. A hub that cannot answer yet is asked until ctx ends.
func (h *Hub) openStream(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	for {
		tryCtx, cancel := context.WithTimeout(ctx, apiTimeout)
		s, err := h.tryStream(tryCtx, cfg)
		cancel()
		if err == nil || !worthAnotherTry(err) || ctx.Err() != nil {
			return s, err
		}
		h.cfg.Log.WithError(err).WithField("stream", cfg.Name).Warn("The hub is not ready, trying again")
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// worthAnotherTry: a cluster without a leader answers nobody, or with an error
// that says so.
func worthAnotherTry(err error) bool {
	if errors.Is(err, ErrStreamDiffers) || errors.Is(err, ErrUnreadable) || errors.Is(err, ErrRebasing) {
		return false
	}
	var api jetstream.JetStreamError
	if !errors.As(err, &api) || api.APIError() == nil {
		return true
	}
	// Not found: it is being made by another replica, and not yet known everywhere.
	return api.APIError().Code == 503 || api.APIError().Code == 404
}

func (h *Hub) tryStream(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	s, err := h.js.Stream(ctx, cfg.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if err := h.server.unreadable(cfg.Name); err != nil {
			return nil, err
		}
		if err := h.beingRebased(ctx, cfg.Name); err != nil {
			return nil, err
		}
		s, err = h.js.CreateStream(ctx, cfg)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another replica was first
			s, err = h.js.Stream(ctx, cfg.Name)
		}
	}
	if err != nil {
		return nil, err
	}
	if slices.Equal(s.CachedInfo().Config.Subjects, []string{fencedSubject}) {
		return nil, ErrRebasing
	}
	if diff := difference(cfg, s.CachedInfo().Config); diff != "" {
		return nil, fmt.Errorf("%w: %s", ErrStreamDiffers, diff)
	}
	return s, nil
}

// difference names the settings of got that are not as we set them, or leave
// them: an age limit, for one, would un-revoke. FirstSeq is the time of
// creation; the others that are left out are the operator's.
func difference(want, got jetstream.StreamConfig) string {
	free := []string{"FirstSeq", "Description", "Metadata", "Placement", "Compression", "Duplicates"}
	want.MaxConsumers, want.MaxMsgSize = cmp.Or(want.MaxConsumers, -1), cmp.Or(want.MaxMsgSize, -1)
	want.MaxMsgs, want.MaxBytes = cmp.Or(want.MaxMsgs, -1), cmp.Or(want.MaxBytes, -1)
	want.MaxMsgsPerSubject = cmp.Or(want.MaxMsgsPerSubject, -1)
	var diffs []string
	w, g := reflect.ValueOf(want), reflect.ValueOf(got)
	for i := range w.NumField() {
		name := w.Type().Field(i).Name
		if !slices.Contains(free, name) && !reflect.DeepEqual(w.Field(i).Interface(), g.Field(i).Interface()) {
			diffs = append(diffs, fmt.Sprintf("%s is %v, must be %v", name, g.Field(i), w.Field(i)))
		}
	}
	return strings.Join(diffs, "; ")
}

// subjectOf is where the record of a key is stored.
func subjectOf(d revocation.Domain, digest revocation.Digest) string {
	return "revoked." + d.String() + "." + digest.String()
}
