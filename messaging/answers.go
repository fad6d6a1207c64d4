package messaging

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Bounds of what is kept.
const (
	answerLife      = 24 * time.Hour
	maxAnswer       = 512 << 10 // bytes of one
	maxAnswersBytes = 256 << 20 // of all
)

// The faults of Keep.
var (
	ErrAnswerKept = errors.New("an answer is kept for the key already")
	ErrAnswerLong = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
)

// Answers keeps for a day what clients were answered, by the key that they chose,
// so that a request that comes again gets the same at every replica. Any number of
// goroutines may use it.
type Answers struct {
	hub *Hub

	mu sync.Mutex // guards what follows
	kv jetstream.KeyValue
}

// NewAnswers returns the answers that hub keeps.
func NewAnswers(hub *Hub) *Answers { return &Answers{hub: hub} }

// bucket returns the bucket, which is asked for once.
func (a *Answers) bucket(ctx context.Context) (jetstream.KeyValue, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.kv == nil {
		kv, err := bucketOf(ctx, a.hub.conn, AnswersBucket)
		if err != nil {
			return nil, err
		}
		a.kv = kv
	}
	return a.kv, nil
}

// Find returns what a client was answered.
func (a *Answers) Find(ctx context.Context, client, key string) (answer []byte, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	kv, err := a.bucket(ctx)
	if err != nil {
		return nil, false, err
	}
	entry, err := kv.Get(ctx, bucketKey(client, key))
	switch {
	case absent(err):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("find an answer: %w", err)
	}
	return entry.Value(), true, nil
}

// Keep keeps what a client is answered. The first answer stays: with another one
// it returns ErrAnswerKept. After another error nobody knows whether it is kept.
func (a *Answers) Keep(ctx context.Context, client, key string, answer []byte) error {
	if len(answer) > maxAnswer {
		return ErrAnswerLong
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	kv, err := a.bucket(ctx)
	if err != nil {
		return err
	}
	_, err = kv.Create(ctx, bucketKey(client, key), answer)
	switch {
	case errors.Is(err, jetstream.ErrKeyExists):
		return ErrAnswerKept
	case err != nil:
		return fmt.Errorf("keep an answer: %w", err)
	}
	return nil
}
