package jwks

import (
	"context"
	"time"
)

// Run reads the keys and goes on to, until ctx ends.
func (k *Keys) Run(ctx context.Context) error {
	defer k.client.CloseIdleConnections()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	k.readAll(ctx, func(s *source) bool { return s.file })
	again := time.NewTimer(k.readURLs(ctx))
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
			k.readAll(ctx, func(s *source) bool { return s.file })
		case <-again.C:
			again.Reset(k.readURLs(ctx))
		case <-k.wanted:
			again.Reset(k.readURLs(ctx))
		}
	}
}

// readURLs wakes who waited for it, and returns when to do so again. Who asks while
// it reads waits for the next time: the answer may be older than the question.
func (k *Keys) readURLs(ctx context.Context) time.Duration {
	k.mu.Lock()
	read := k.next
	k.reading, k.next, k.pending = read, make(chan struct{}), false
	k.mu.Unlock()
	k.readAll(ctx, func(s *source) bool { return !s.file })
	k.mu.Lock()
	k.reading = nil
	k.mu.Unlock()
	close(read)
	for _, s := range k.sources {
		if !s.file && s.last == failed {
			return min(againAfter, k.cfg.Refresh)
		}
	}
	return k.cfg.Refresh
}

// reading is what became of the wish that the URLs be read.
type reading uint8

const (
	answered   reading = iota // they were, or have been just now
	unanswered                // nobody knows yet
	tooSoon                   // they were read just now, and a key may have come since
)

// ask has the URLs read, if they were not asked for just now, and waits for it a
// while.
func (k *Keys) ask(ctx context.Context) reading {
	read := k.askedFor()
	switch {
	case len(k.cfg.URLs) == 0:
		return answered
	case read == nil:
		return tooSoon
	}
	select {
	case <-read:
		return answered
	case <-time.After(k.wait):
	case <-ctx.Done():
	}
	return unanswered
}

// askedFor is closed when the URLs were read: nil, if it is too early for it. Then
// what is being read for somebody else has to do.
func (k *Keys) askedFor() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.cfg.Now()
	switch {
	case len(k.cfg.URLs) == 0:
		return nil
	case k.pending:
	case !k.asked.IsZero() && now.Sub(k.asked) < askedAtMost:
		return k.reading
	default:
		k.asked, k.pending = now, true
		select {
		case k.wanted <- struct{}{}:
		default: // an older wish is about to be heard
		}
	}
	return k.next
}
