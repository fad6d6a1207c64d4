package messaging

import (
	"context"
	"errors"
	"fmt"
	"reflect"
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
// off: a read must come from the leader.
func logConfig(now time.Time) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:               LogStream,
		Subjects:           []string{logSubjects},
		MaxMsgsPerSubject:  1,
		AllowMsgTTL:        true,
		AllowAtomicPublish: true,
		DenyDelete:         true,
		DenyPurge:          true,
		FirstSeq:           uint64(now.UnixMicro()), //nolint:gosec // after 1970
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
// changes one that exists.
func (h *Hub) openStream(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, 4*apiTimeout)
	defer cancel()
	for {
		s, err := h.tryStream(ctx, cfg)
		if err == nil || errors.Is(err, ErrStreamDiffers) || !worthAnotherTry(err) || ctx.Err() != nil {
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
	var api jetstream.JetStreamError
	if !errors.As(err, &api) || api.APIError() == nil {
		return true
	}
	return api.APIError().Code == 503
}

func (h *Hub) tryStream(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	s, err := h.js.Stream(ctx, cfg.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s, err = h.js.CreateStream(ctx, cfg)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another replica was first
			s, err = h.js.Stream(ctx, cfg.Name)
		}
	}
	if err != nil {
		return nil, err
	}
	if diff := difference(cfg, s.CachedInfo().Config); diff != "" {
		return nil, fmt.Errorf("%w: %s", ErrStreamDiffers, diff)
	}
	return s, nil
}

// difference names the settings of got that are not as we set them. FirstSeq is
// left out: it is the time of creation.
func difference(want, got jetstream.StreamConfig) string {
	var diffs []string
	w, g := reflect.ValueOf(want), reflect.ValueOf(got)
	for i := range w.NumField() {
		name := w.Type().Field(i).Name
		set := !w.Field(i).IsZero() || name == "AllowDirect" || name == "Discard" || name == "Retention" || name == "Storage"
		if set && name != "FirstSeq" && !reflect.DeepEqual(w.Field(i).Interface(), g.Field(i).Interface()) {
			diffs = append(diffs, fmt.Sprintf("%s is %v, must be %v", name, g.Field(i), w.Field(i)))
		}
	}
	return strings.Join(diffs, "; ")
}

// subjectOf is where the record of a key is stored.
func subjectOf(d revocation.Domain, digest revocation.Digest) string {
	return "revoked." + d.String() + "." + digest.String()
}
