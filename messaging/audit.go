package messaging

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"revocation-adapter/revocation"
)

// AuditEntry says who did what, and what came of it. It holds no token.
type AuditEntry struct {
	Sequence uint64    `json:"sequence,omitempty"` // what it is paged by, where it was read: later entries have greater ones
	ID       string    `json:"id"`                 // empty: Add makes one
	Time     time.Time `json:"time"`               // zero: Add sets it
	Actor    string    `json:"actor"`              // the client
	Action   string    `json:"action"`             // small letters, digits, "_" and "-"
	Target   string    `json:"target,omitempty"`   // sha256:… of a secret, a jti, or the key of a rule
	Outcome  string    `json:"outcome"`
	Status   int       `json:"status,omitempty"` // of the answer
	From     string    `json:"from,omitempty"`   // address of the client
	Replica  string    `json:"replica,omitempty"`
	EventID  string    `json:"event_id,omitempty"`
	Version  uint64    `json:"version,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Count    int       `json:"count,omitempty"`
}

// AuditLimits bound what is kept of the audit. Zero values are the defaults. They
// are settings of the stream, which takes those of the adapter that started last.
type AuditLimits struct {
	MaxAge   time.Duration
	MaxBytes int64
}

// The defaults of AuditLimits.
const (
	DefaultAuditAge         = 90 * 24 * time.Hour
	DefaultAuditBytes int64 = 1 << 30
)

// How entries are kept.
const (
	auditTimeout   = 4 * time.Second // of Add
	maxAuditWaits  = 20_000          // entries that wait
	maxAuditText   = 512             // bytes of a text; the rest is cut off
	maxAuditTarget = revocation.MaxKey
	maxAuditAction = 64
)

// The faults of Add.
var (
	ErrAudit        = errors.New("not an entry of the audit")
	ErrAuditBusy    = errors.New("too many entries of the audit wait")
	ErrAuditDenied  = errors.New("these credentials may not write the audit")
	ErrAuditStopped = errors.New("the audit is not written: the adapter stops")
)

// AuditConfig is what an Audit needs beside the hub.
type AuditConfig struct {
	Lines io.Writer // gets each entry as a line of JSON, too, whatever becomes of it in the hub; nil: nothing does
}

// Audit keeps entries in the hub. Those that come while others are on their way go
// together. Any number of goroutines may add.
type Audit struct {
	hub     *Hub
	wake    chan struct{} // a nudge that entries wait
	stopped chan struct{} // closed when nobody writes any more

	linesMu sync.Mutex // held while a line is written
	lines   io.Writer

	mu    sync.Mutex // guards what follows
	queue []auditWrite
}

// auditWrite is an entry on its way into the hub.
type auditWrite struct {
	subject string
	data    []byte     // of one line
	stored  chan error // takes one
}

// NewAudit returns what keeps entries in hub.
func NewAudit(hub *Hub, cfg AuditConfig) *Audit {
	return &Audit{
		hub: hub, lines: cfg.Lines,
		wake: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
}

// Run stores entries until ctx ends; those that are there then are given up. It is
// run once.
func (a *Audit) Run(ctx context.Context) error {
	defer close(a.stopped)
	for ctx.Err() == nil {
		if batch := a.take(); len(batch) > 0 {
			a.store(ctx, batch)
			continue
		}
		select {
		case <-a.wake:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// Add returns when the hub has stored an entry, or after some seconds with an
// error: then nobody knows whether it has. What looks like a token is not written,
// and texts that are too long are cut.
func (a *Audit) Add(ctx context.Context, e AuditEntry) error {
	e, err := e.complete(a.hub.cfg.Now())
	if err != nil {
		return err
	}
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAudit, err)
	}
	lineErr := a.line(data)
	w := auditWrite{subject: "audit." + e.Action, data: data, stored: make(chan error, 1)}
	return errors.Join(a.await(ctx, w), lineErr)
}

// await has an entry stored.
func (a *Audit) await(ctx context.Context, w auditWrite) error {
	ctx, cancel := context.WithTimeout(ctx, auditTimeout)
	defer cancel()
	if err := a.enter(w); err != nil {
		return err
	}
	select {
	case err := <-w.stored:
		return err
	case <-ctx.Done():
		return fmt.Errorf("store an entry of the audit: %w", ctx.Err())
	case <-a.stopped:
		return ErrAuditStopped
	}
}

func (a *Audit) enter(w auditWrite) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue) >= maxAuditWaits {
		return ErrAuditBusy
	}
	a.queue = append(a.queue, w)
	select {
	case a.wake <- struct{}{}:
	default: // it is to be looked for already
	}
	return nil
}

// take returns what is to be stored next, together.
func (a *Audit) take() []auditWrite {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := min(len(a.queue), MaxBatch)
	batch := a.queue[:n:n]
	a.queue = a.queue[n:]
	return batch
}

// store stores entries. Those of one action go as lines of one message: each message
// is synced by itself.
func (a *Audit) store(ctx context.Context, batch []auditWrite) {
	ctx, cancel := context.WithTimeout(ctx, auditTimeout)
	defer cancel()
	byAction := map[string][]auditWrite{}
	for _, w := range batch {
		byAction[w.subject] = append(byAction[w.subject], w)
	}
	each(slices.Sorted(maps.Keys(byAction)), func(subject string) {
		for _, lines := range together(byAction[subject]) {
			err := a.publish(ctx, subject, lines)
			for _, w := range lines {
				w.stored <- err
			}
		}
	})
}

// maxAuditMessage bounds the entries of one message, in bytes.
const maxAuditMessage = 256 << 10

// together splits entries into those that go into one message each.
func together(all []auditWrite) (messages [][]auditWrite) {
	size := 0
	for i, w := range all {
		if size += len(w.data) + 1; i == 0 || size > maxAuditMessage || len(messages[len(messages)-1]) == entriesPerMessage {
			messages, size = append(messages, nil), len(w.data)+1
		}
		last := len(messages) - 1
		messages[last] = append(messages[last], w)
	}
	return messages
}

func (a *Audit) publish(ctx context.Context, subject string, lines []auditWrite) error {
	data := make([][]byte, 0, len(lines))
	for _, w := range lines {
		data = append(data, w.data)
	}
	if _, err := a.hub.js.Publish(ctx, subject, bytes.Join(data, []byte{'\n'}), jetstream.WithExpectStream(AuditStream)); err != nil {
		return fmt.Errorf("store an entry of the audit: %w", err)
	}
	return nil
}

// AddAudit keeps an entry for who has a connection alone: the command line. With
// credentials that may not write the audit the error is ErrAuditDenied, at once.
func AddAudit(ctx context.Context, conn *nats.Conn, e AuditEntry) error {
	ctx, cancel := context.WithTimeout(ctx, auditTimeout)
	defer cancel()
	e, err := e.complete(time.Now())
	if err != nil {
		return err
	}
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAudit, err)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	stored, err := js.PublishAsync("audit."+e.Action, data, jetstream.WithExpectStream(AuditStream))
	if err == nil {
		err = conn.FlushWithContext(ctx) // what the server refuses it says before it answers
	}
	if err == nil && errors.Is(conn.LastError(), nats.ErrPermissionViolation) {
		return ErrAuditDenied
	}
	if err == nil {
		select {
		case <-stored.Ok():
			return nil
		case err = <-stored.Err():
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	return fmt.Errorf("store an entry of the audit: %w", err)
}

// line writes an entry as a line.
func (a *Audit) line(data []byte) error {
	if a.lines == nil {
		return nil
	}
	a.linesMu.Lock()
	defer a.linesMu.Unlock()
	if _, err := a.lines.Write(append(data[:len(data):len(data)], '\n')); err != nil {
		return fmt.Errorf("write a line of the audit: %w", err)
	}
	return nil
}

// complete is e as it may be kept.
func (e AuditEntry) complete(now time.Time) (AuditEntry, error) {
	if err := checkAction(e.Action); err != nil {
		return AuditEntry{}, err
	}
	e.Sequence = 0
	if e.ID == "" {
		e.ID = nuid.Next()
	}
	if e.Time.IsZero() {
		e.Time = now
	}
	e.Time = e.Time.UTC()
	for _, text := range []*string{&e.ID, &e.Actor, &e.Outcome, &e.From, &e.Replica, &e.EventID, &e.Reason} {
		*text = auditText(*text, maxAuditText)
	}
	e.Target = auditText(e.Target, maxAuditTarget)
	return e, nil
}

// checkAction reports why text cannot be an action, or nil.
func checkAction(text string) error {
	if text == "" || len(text) > maxAuditAction || strings.Trim(text, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
		return fmt.Errorf("%w: its action must be small letters, digits, _ and -", ErrAudit)
	}
	return nil
}

// auditText is a text as it may be kept.
func auditText(text string, limit int) string {
	if revocation.HoldsJWT(text) {
		return masked
	}
	if len(text) > limit {
		text = text[:limit]
	}
	return strings.ToValidUTF8(text, "?")
}
