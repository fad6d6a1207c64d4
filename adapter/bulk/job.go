package bulk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"

	"github.com/nats-io/nuid"

	"revocation-adapter/messaging"
)

// How much one event lists. It must be the same in a run that goes on: an event
// that was sent and not noted must be sent again as it was.
const (
	maxTokens = messaging.MaxBatch
	maxBytes  = 256 << 10 // of the tokens' names
)

// Job is a file to be sent. Lines that are no token are left out.
type Job struct {
	Source  io.Reader // from its beginning
	Format  Format
	Subject string // messaging.SubjectRevocation or SubjectApproval
	State   string // path of the state file; empty: a run that ends early begins anew

	// Publish returns when the hub has stored an event.
	Publish func(context.Context, messaging.Announcement) error
	// Progress is told where the run begins, and after each event.
	Progress func(Position)
}

// Totals are what was sent, over all runs of a file.
type Totals struct {
	Tokens int `json:"tokens"`
	Events int `json:"events"`
}

// Run sends what has not been sent yet, and returns what was sent over all runs.
// When it ends well, the state file is gone.
func (j *Job) Run(ctx context.Context) (Totals, error) {
	s, sum, err := j.begin()
	if err != nil {
		return Totals{}, err
	}
	b := &batch{job: j, state: s, sum: sum}
	j.Progress(s.Position)
	for l, err := range newReader(j.Source, j.Format, s.Position).lines() {
		if err == nil {
			err = b.take(ctx, l)
		}
		if err != nil {
			return s.Totals, err
		}
	}
	if err := b.send(ctx); err != nil {
		return s.Totals, err
	}
	return s.Totals, j.end()
}

// begin returns the state to begin with, which can be written, and the digest of
// what was sent.
func (j *Job) begin() (*state, hash.Hash, error) {
	sum := sha256.New()
	fresh := &state{
		Format: stateFormat, Subject: j.Subject, Type: j.Format.Type, Expiry: j.Format.Expiry, Tenant: j.Format.Tenant,
		Prefix: "bulk-" + nuid.Next(), Digest: hex.EncodeToString(sum.Sum(nil)),
	}
	if j.State == "" {
		return fresh, sum, nil
	}
	s, err := readState(j.State)
	if err != nil {
		return nil, nil, err
	}
	if s == nil {
		s = fresh
	}
	if err := s.goOn(j, sum); err != nil {
		return nil, nil, err
	}
	return s, sum, s.write(j.State)
}

func (j *Job) end() error {
	if j.State == "" {
		return nil
	}
	if err := os.Remove(j.State); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("all is sent; remove the state: %w", err)
	}
	return nil
}
