package messaging

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"
)

// clientsTick is how often the clients are read though nothing is heard of a
// change: so long one that was removed may go on at most, while the hub answers.
const clientsTick = 5 * time.Second

// Watch calls changed with all clients, by their ids, at first and after each
// change, until ctx ends. While the hub is away the last list stands; when it is
// back, it is read again.
func (s *ClientStore) Watch(ctx context.Context, changed func([]StoredClient)) error {
	w := clientsWatch{store: s, log: s.log, changed: changed}
	for ctx.Err() == nil {
		w.follow(ctx)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// clientsWatch is what one Watch knows.
type clientsWatch struct {
	store   *ClientStore
	log     logrus.FieldLogger // nil: nothing is said
	changed func([]StoredClient)

	known bool // told is what the hub said last
	told  []StoredClient
	wrong string // what was wrong last
}

// follow looks whenever something changes, and now and then, until the watch ends
// or cannot begin.
func (w *clientsWatch) follow(ctx context.Context) {
	kv, err := bucketOf(ctx, w.store.conn, ClientsBucket)
	if err != nil {
		w.hear(ctx, err)
		return
	}
	updates, err := kv.WatchAll(ctx, jetstream.UpdatesOnly())
	if err != nil {
		w.hear(ctx, err)
		return
	}
	defer updates.Stop() //nolint:errcheck // the hub forgets it by itself
	tick := time.NewTicker(clientsTick)
	defer tick.Stop()
	for open := true; open && ctx.Err() == nil; {
		w.look(ctx)
		select {
		case _, open = <-updates.Updates():
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// look reads the clients, and tells if they changed.
func (w *clientsWatch) look(ctx context.Context) {
	all, err := w.store.List(ctx)
	if w.hear(ctx, err); err != nil && !errors.Is(err, ErrClient) {
		return
	}
	if !w.known || !slices.EqualFunc(all, w.told, StoredClient.equal) {
		w.known, w.told = true, all
		w.changed(slices.Clone(all))
	}
}

// hear says once that clients cannot be read, and once that they can again.
func (w *clientsWatch) hear(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	wrong := ""
	switch {
	case errors.Is(err, ErrClient):
		wrong = err.Error()
	case err != nil:
		wrong = "away"
	}
	changed := wrong != w.wrong
	w.wrong = wrong
	switch {
	case w.log == nil || !changed:
	case errors.Is(err, ErrClient):
		w.log.WithError(err).Error("A client in the hub cannot be read, and is refused: put it again, or remove it")
	case wrong != "":
		w.log.WithError(err).Warn("The clients cannot be read from the hub: those that are known still count")
	default:
		w.log.Info("The clients are read from the hub again")
	}
}
