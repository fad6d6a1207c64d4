package jwks

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
)

// source is one file or URL. Run alone uses it.
type source struct {
	name string
	load func(ctx context.Context) ([]byte, error)
	file bool

	keys []key             // that it held last; nil: never
	seen [sha256.Size]byte // of what it said last; zero: that could not be used
	last outcome           // of the last reading
}

// outcome is what became of a reading.
type outcome uint8

const (
	whole outcome = iota
	failed
)

func fromFile(path string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close() //nolint:errcheck // opened for reading only
		return readWhole(file)
	}
}

func fromURL(client *http.Client, address string) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return nil, err
		}
		resp, err := client.Do(req)
		if at := new(url.Error); errors.As(err, &at) {
			return nil, at.Err // without the URL, which may hold a secret
		}
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("the server answers %s", resp.Status)
		}
		return readWhole(resp.Body)
	}
}

func readWhole(from io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(from, maxKeySet+1))
	if err == nil && len(text) > maxKeySet {
		return nil, errors.New("it is too large")
	}
	return text, err
}

// readAll reads the sources that are chosen, and puts what they hold into force.
func (k *Keys) readAll(ctx context.Context, chosen func(*source) bool) {
	changed := false
	for _, s := range k.sources {
		if chosen(s) && k.readOne(ctx, s) {
			changed = true
		}
	}
	if !changed {
		return
	}
	set := &keySet{}
	for _, s := range k.sources {
		if s.keys == nil {
			return // some keys are not all keys: a good token would be refused for good
		}
		set.keys = append(set.keys, s.keys...)
	}
	k.current.Store(set)
}

// readOne says whether the source holds something new. It tells of each change
// once.
func (k *Keys) readOne(ctx context.Context, s *source) bool {
	log := k.cfg.Log.WithField("source", s.name)
	text, err := s.load(ctx)
	seen := sha256.Sum256(text)
	if err == nil && seen == s.seen {
		return false
	}
	var keys []key
	if err == nil {
		s.seen = seen
		keys, err = parseKeys(text)
	}
	if err != nil {
		if s.last != failed && ctx.Err() == nil {
			log.WithError(err).Error("The keys cannot be used, what was said before stays in force")
		}
		s.seen = [sha256.Size]byte{}
		k.note(s, failed)
		return false
	}
	s.keys = keys
	k.note(s, whole)
	log.WithField("keys", len(keys)).Info("The keys have been read")
	return true
}

// note keeps the number of sources that have failed.
func (k *Keys) note(s *source, now outcome) {
	k.failed.Add(int64(now) - int64(s.last))
	s.last = now
}
