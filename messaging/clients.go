package messaging

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"
)

// StoredClient is a client of the control port that the hub keeps.
type StoredClient struct {
	ID         string    `json:"id"`
	SecretHash string    `json:"secret_hash"` // bcrypt
	Roles      []string  `json:"roles"`
	Created    time.Time `json:"created"`

	// Its own limits; 0: those of everybody.
	RequestsPerSecond int `json:"requests_per_second,omitempty"`
	MaxBodyBytes      int `json:"max_body_bytes,omitempty"`
}

func (c StoredClient) equal(other StoredClient) bool {
	same := c.RequestsPerSecond == other.RequestsPerSecond && c.MaxBodyBytes == other.MaxBodyBytes && c.Created.Equal(other.Created)
	return same && c.ID == other.ID && c.SecretHash == other.SecretHash && slices.Equal(c.Roles, other.Roles)
}

// Bounds of what is kept of clients, in bytes.
const (
	maxClientBytes = 64 << 20 // of all
	maxClientID    = 256
	maxSecretHash  = 256
)

// The faults of clients.
var (
	ErrNoClient = errors.New("no such client")
	ErrClient   = errors.New("not a client")
)

// ClientStore is the clients that the hub keeps. Any number of goroutines may use
// it.
type ClientStore struct {
	conn *nats.Conn
	log  logrus.FieldLogger // of a Watch; nil: it says nothing
}

// Clients returns those that the hub at conn keeps, for the command line. The
// adapter makes the bucket when it first opens the hub.
func Clients(ctx context.Context, conn *nats.Conn) (*ClientStore, error) {
	if _, err := bucketOf(ctx, conn, ClientsBucket); err != nil {
		return nil, err
	}
	return &ClientStore{conn: conn}, nil
}

// Clients returns those that the hub keeps.
func (h *Hub) Clients() *ClientStore { return &ClientStore{h.conn, h.cfg.Log} }

// Put adds a client, or replaces the one of its id.
func (s *ClientStore) Put(ctx context.Context, c StoredClient) error {
	switch {
	case c.ID == "" || len(c.ID) > maxClientID || strings.ContainsAny(c.ID, ":\r\n"):
		return fmt.Errorf("%w: its id must have 1 to %d bytes, and no colon", ErrClient, maxClientID)
	case c.SecretHash == "" || len(c.SecretHash) > maxSecretHash:
		return fmt.Errorf("%w: the hash of its secret must have 1 to %d bytes", ErrClient, maxSecretHash)
	}
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrClient, err)
	}
	return s.with(ctx, func(ctx context.Context, kv jetstream.KeyValue) error {
		if _, err := kv.Put(ctx, bucketKey(c.ID), data); err != nil {
			return fmt.Errorf("put client %s: %w", c.ID, err)
		}
		return nil
	})
}

// Remove removes a client, or returns ErrNoClient.
func (s *ClientStore) Remove(ctx context.Context, id string) error {
	return s.with(ctx, func(ctx context.Context, kv jetstream.KeyValue) error {
		entry, err := kv.Get(ctx, bucketKey(id))
		if absent(err) {
			return fmt.Errorf("%w: %s", ErrNoClient, id)
		}
		if err == nil {
			err = kv.Delete(ctx, bucketKey(id), jetstream.LastRevision(entry.Revision()))
		}
		if err != nil {
			return fmt.Errorf("remove client %s: %w", id, err)
		}
		return nil
	})
}

// List returns all clients, by their ids. With ErrClient it returns those that can
// be read; the others are no clients until they are put again or removed.
func (s *ClientStore) List(ctx context.Context) (all []StoredClient, err error) {
	err = s.with(ctx, func(ctx context.Context, kv jetstream.KeyValue) error {
		all, err = listClients(ctx, kv)
		return err
	})
	return all, err
}

// with calls do with the bucket, for a bounded time.
func (s *ClientStore) with(ctx context.Context, do func(context.Context, jetstream.KeyValue) error) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	kv, err := bucketOf(ctx, s.conn, ClientsBucket)
	if err != nil {
		return err
	}
	return do(ctx, kv)
}

// listClients reads the whole bucket.
func listClients(ctx context.Context, kv jetstream.KeyValue) (all []StoredClient, err error) {
	w, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, fmt.Errorf("list the clients: %w", err)
	}
	defer w.Stop() //nolint:errcheck // it was read to its end, or failed already
	all = []StoredClient{}
	for {
		select {
		case entry, open := <-w.Updates():
			if !open {
				return nil, fmt.Errorf("list the clients: %w", nats.ErrConnectionClosed)
			}
			if entry == nil { // that was all
				slices.SortFunc(all, func(a, b StoredClient) int { return cmp.Compare(a.ID, b.ID) })
				return all, err
			}
			var c StoredClient
			if json.Unmarshal(entry.Value(), &c) != nil || bucketKey(c.ID) != entry.Key() {
				err = errors.Join(err, fmt.Errorf("list the clients: %w: entry %s of bucket %s", ErrClient, entry.Key(), ClientsBucket))
				continue
			}
			all = append(all, c)
		case <-ctx.Done():
			return nil, fmt.Errorf("list the clients: %w", ctx.Err())
		}
	}
}
