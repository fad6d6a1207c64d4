package bulk

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash"

	"revocation-adapter/messaging"
)

// batch is the event that is being filled.
type batch struct {
	job   *Job
	state *state
	sum   hash.Hash // of all lines that were taken

	tokens []messaging.ListedToken
	first  int // line of the first of them
	bytes  int
	taken  Position
}

// take adds a line, and sends the event when it is full.
func (b *batch) take(ctx context.Context, l line) error {
	_, _ = b.sum.Write(l.raw) // a hash takes all
	b.taken = Position{Offset: l.end, Lines: l.number}
	if l.blank || l.err != nil {
		return ctx.Err()
	}
	if len(b.tokens) == 0 {
		b.first = l.number
	}
	b.tokens = append(b.tokens, messaging.ListedToken{Token: l.token.Name, Expiry: l.token.Expiry})
	b.bytes += len(l.token.Name)
	if len(b.tokens) < maxTokens && b.bytes < maxBytes {
		return nil
	}
	return b.send(ctx)
}

// send sends what there is and notes it. The event's id names the line with which
// it begins, so that it has the same one when it is sent again.
func (b *batch) send(ctx context.Context) error {
	if len(b.tokens) == 0 {
		return nil
	}
	list, err := messaging.TokenList(b.job.Format.Type, b.tokens)
	if err != nil {
		return err
	}
	if err := b.job.Publish(ctx, messaging.Announcement{
		EventID: fmt.Sprintf("%s-%d", b.state.Prefix, b.first), RevokedToken: list, Type: messaging.TypeBatch,
		TenantID: b.job.Format.Tenant,
	}); err != nil {
		return err
	}
	b.state.Tokens, b.state.Events = b.state.Tokens+len(b.tokens), b.state.Events+1
	b.tokens, b.bytes = b.tokens[:0], 0
	return b.note()
}

func (b *batch) note() error {
	b.state.Position, b.state.Digest = b.taken, hex.EncodeToString(b.sum.Sum(nil))
	b.job.Progress(b.taken)
	if b.job.State == "" {
		return nil
	}
	return b.state.write(b.job.State)
}
