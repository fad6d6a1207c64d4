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

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"

	"revocation-adapter/revocation"
)

// The streams, and the subjects that they capture.
const (
	IngestStream     = "INGEST"
	LogStream        = "REVOCATIONS"
	DeadLetterStream = "DEADLETTER"
	GrantsStream     = "GRANTS"
	AuditStream      = "AUDIT"
	ClientsBucket    = "CLIENTS" // its stream is KV_CLIENTS
	AnswersBucket    = "ANSWERS" // its stream is KV_ANSWERS

	SubjectRevocation = "tokenRevocation"
	SubjectApproval   = "tokenApproval"
	SubjectIssued     = "tokenIssued"

	logSubjects        = "revoked.>"
	deadLetterSubjects = "deadletter.>"
	grantSubjects      = "grants.>"
	auditSubjects      = "audit.>"
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

// grantsConfig: one message per token that was issued, the newest; the server
// forgets it when its TTL ends. Reads come from the leader, so that a grant that
// was acknowledged at one replica is found at every other.
func grantsConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:               GrantsStream,
		Subjects:           []string{grantSubjects},
		MaxMsgsPerSubject:  1,
		AllowMsgTTL:        true,
		AllowAtomicPublish: true,
		DenyDelete:         true,
		DenyPurge:          true,
		Duplicates:         100 * time.Millisecond,
	}
}

// auditStreamConfig: what was done, for a time, and as long as there is room; then
// the oldest goes. Nobody can remove an entry.
func auditStreamConfig(l AuditLimits) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:               AuditStream,
		Subjects:           []string{auditSubjects},
		MaxAge:             cmp.Or(l.MaxAge, DefaultAuditAge),
		MaxBytes:           cmp.Or(l.MaxBytes, DefaultAuditBytes),
		AllowAtomicPublish: true,
		DenyDelete:         true,
		DenyPurge:          true,
		Duplicates:         100 * time.Millisecond,
	}
}

// bucketConfig is a bucket of keys and values as NATS makes it, but that reads
// come from the leader.
func bucketConfig(name string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              "KV_" + name,
		Subjects:          []string{"$KV." + name + ".>"},
		MaxMsgsPerSubject: 1,
		Discard:           jetstream.DiscardNew,
		AllowRollup:       true,
		DenyDelete:        true,
	}
}

func clientsConfig() jetstream.StreamConfig {
	cfg := bucketConfig(ClientsBucket)
	cfg.MaxBytes = maxClientBytes
	return cfg
}

// answersConfig: an answer is kept for a day. A bucket that is full refuses more.
func answersConfig() jetstream.StreamConfig {
	cfg := bucketConfig(AnswersBucket)
	cfg.MaxAge, cfg.MaxBytes = answerLife, maxAnswersBytes
	return cfg
}

// openStream returns the stream of cfg, created if it is missing. It never
// changes one that exists. A hub that cannot answer yet is asked until ctx ends.
func (h *Hub) openStream(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	return patiently(ctx, h.cfg.Log.WithField("stream", cfg.Name), func(ctx context.Context) (jetstream.Stream, error) {
		return h.tryStream(ctx, cfg)
	})
}

// patiently asks the hub until it answers, or ctx ends.
func patiently[T any](ctx context.Context, log logrus.FieldLogger, ask func(context.Context) (T, error)) (T, error) {
	for {
		tryCtx, cancel := context.WithTimeout(ctx, apiTimeout)
		answer, err := ask(tryCtx)
		cancel()
		if err == nil || !worthAnotherTry(err) || ctx.Err() != nil {
			return answer, err
		}
		log.WithError(err).Warn("The hub is not ready, trying again")
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// worthAnotherTry: a cluster without a leader answers nobody, or with an error
// that says so.
func worthAnotherTry(err error) bool {
	if errors.Is(err, ErrStreamDiffers) || errors.Is(err, ErrUnreadable) || errors.Is(err, ErrRebasing) || errors.Is(err, nats.ErrConnectionClosed) {
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
	if cfg.Name == AuditStream {
		return h.limitAudit(ctx, s, cfg)
	}
	if diff := difference(cfg, s.CachedInfo().Config); diff != "" {
		return nil, fmt.Errorf("%w: %s", ErrStreamDiffers, diff)
	}
	return s, nil
}

// limitAudit gives the audit the bounds of this adapter: an operator may keep it
// longer or shorter, and nothing that counts depends on it.
func (h *Hub) limitAudit(ctx context.Context, s jetstream.Stream, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	is := s.CachedInfo().Config
	was := cfg
	was.MaxAge, was.MaxBytes = is.MaxAge, is.MaxBytes
	if diff := difference(was, is); diff != "" {
		return nil, fmt.Errorf("%w: %s", ErrStreamDiffers, diff)
	}
	if is.MaxAge == cfg.MaxAge && is.MaxBytes == cfg.MaxBytes {
		return s, nil
	}
	is.MaxAge, is.MaxBytes = cfg.MaxAge, cfg.MaxBytes
	return h.js.UpdateStream(ctx, is)
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
