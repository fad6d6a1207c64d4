package messaging_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"revocation-adapter/messaging"
)

func client(id string, roles ...string) messaging.StoredClient {
	return messaging.StoredClient{ID: id, SecretHash: "$2a$10$" + strings.Repeat("x", 53), Roles: roles, Created: time.Unix(1_700_000_000, 0).UTC()}
}

func names(clients []messaging.StoredClient) string {
	var all []string
	for _, c := range clients {
		all = append(all, c.ID+fmt.Sprint(c.Roles))
	}
	return strings.Join(all, " ")
}

func TestClientsAreKept(t *testing.T) {
	t.Parallel()
	r := prepare(t, embedded(t))
	store, err := messaging.Clients(t.Context(), r.conn)
	fatal(t, err)
	if all, err := store.List(t.Context()); len(all) != 0 || err != nil {
		t.Errorf("at first: %v, %v", all, err)
	}
	for _, c := range []messaging.StoredClient{client("zoe", "revoke"), client("a b@example.com/ü*>", "operator", "approve"), client("zoe", "revoke_any")} {
		fatal(t, store.Put(t.Context(), c))
	}
	all, err := store.List(t.Context())
	if got := names(all); got != "a b@example.com/ü*>[operator approve] zoe[revoke_any]" || err != nil {
		t.Fatalf("got %s, %v", got, err)
	}
	if got, want := all[1], client("zoe", "revoke_any"); got.SecretHash != want.SecretHash || !got.Created.Equal(want.Created) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	fatal(t, store.Remove(t.Context(), "zoe"))
	if err := store.Remove(t.Context(), "zoe"); !errors.Is(err, messaging.ErrNoClient) {
		t.Errorf("removed twice: %v", err)
	}
	all, err = store.List(t.Context())
	if len(all) != 1 || err != nil {
		t.Errorf("in the end: %v, %v", all, err)
	}
	for _, bad := range []messaging.StoredClient{{}, {ID: "a"}, client("a:b"), client(strings.Repeat("x", 257))} {
		if err := store.Put(t.Context(), bad); !errors.Is(err, messaging.ErrClient) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// watchClients watches, and returns what fails unless it is told of these next.
func (r *replica) watchClients(t *testing.T, store *messaging.ClientStore) (next func(want string)) {
	t.Helper()
	told := make(chan string, 100)
	r.run(t, func(ctx context.Context) error {
		return store.Watch(ctx, func(all []messaging.StoredClient) { told <- names(all) })
	})
	return func(want string) {
		t.Helper()
		select {
		case got := <-told:
			if got != want {
				t.Fatalf("told %q, want %q", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("not told %q", want)
		}
	}
}

// A client that cannot be read is none, and is told of. It keeps nobody who was
// removed a client.
func TestClientsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	r := prepare(t, embedded(t))
	store := r.hub.Clients()
	fatal(t, store.Put(t.Context(), client("a")))
	fatal(t, store.Put(t.Context(), client("b")))
	next := r.watchClients(t, store)
	next("a[] b[]")
	kv, err := r.js.KeyValue(t.Context(), messaging.ClientsBucket)
	fatal(t, err)
	_, err = kv.PutString(t.Context(), "x", `{"id":"forged"}`)
	fatal(t, err)
	if all, err := store.List(t.Context()); !errors.Is(err, messaging.ErrClient) || names(all) != "a[] b[]" {
		t.Errorf("got %v, %v", all, err)
	}
	fatal(t, store.Remove(t.Context(), "a"))
	next("b[]")
	fatal(t, kv.Delete(t.Context(), "x"))
	fatal(t, store.Put(t.Context(), client("c")))
	next("b[] c[]")
}

func TestClientsOfNoHub(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	conn, err := nats.Connect(s.ClientURL())
	fatal(t, err)
	t.Cleanup(conn.Close)
	if _, err := messaging.Clients(t.Context(), conn); !errors.Is(err, jetstream.ErrBucketNotFound) {
		t.Errorf("got %v", err)
	}
}

// A watch tells of what there is, of every change, and of what changed while the
// hub was away; nothing twice.
func TestClientsAreWatched(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := standalone(t, dir, -1)
	port := portOf(t, s)
	r := prepare(t, external(s))
	store := r.hub.Clients()
	fatal(t, store.Put(t.Context(), client("a", "revoke")))
	next := r.watchClients(t, store)
	next("a[revoke]")
	fatal(t, store.Put(t.Context(), client("b")))
	next("a[revoke] b[]")
	fatal(t, store.Put(t.Context(), client("b"))) // no change
	fatal(t, store.Remove(t.Context(), "a"))
	next("b[]")
	shutdown(s)
	s = standalone(t, dir, port)
	eventually(t, "the replica is connected again", r.hub.Connected)
	conn, err := nats.Connect(s.ClientURL())
	fatal(t, err)
	t.Cleanup(conn.Close)
	others, err := messaging.Clients(t.Context(), conn)
	fatal(t, err)
	fatal(t, others.Put(t.Context(), client("c", "operator")))
	next("b[] c[operator]")
}

func TestAnswersAreKept(t *testing.T) {
	t.Parallel()
	r := prepare(t, embedded(t))
	here, there := messaging.NewAnswers(r.hub), messaging.NewAnswers(prepare(t, r.sameHub()).hub)
	if answer, found, err := here.Find(t.Context(), "a", "key"); found || err != nil {
		t.Errorf("at first: %s, %v", answer, err)
	}
	key := "a key of any form: " + secret + " \x00 ü"
	fatal(t, here.Keep(t.Context(), "alice", key, []byte("first")))
	if err := there.Keep(t.Context(), "alice", key, []byte("second")); !errors.Is(err, messaging.ErrAnswerKept) {
		t.Errorf("kept twice: %v", err)
	}
	fatal(t, there.Keep(t.Context(), "bob", key, []byte("bob's")))
	fatal(t, there.Keep(t.Context(), "alicea", key[1:], nil)) // the texts together are the same
	for client, want := range map[string]string{"alice": "first", "bob": "bob's"} {
		if answer, found, err := there.Find(t.Context(), client, key); string(answer) != want || !found || err != nil {
			t.Errorf("%s: %s, %v, %v", client, answer, found, err)
		}
	}
	if answer, found, err := here.Find(t.Context(), "alicea", key[1:]); len(answer) != 0 || !found || err != nil {
		t.Errorf("of nothing: %q, %v, %v", answer, found, err)
	}
	if err := here.Keep(t.Context(), "alice", "long", make([]byte, 1<<20)); !errors.Is(err, messaging.ErrAnswerLong) {
		t.Errorf("got %v", err)
	}
	if text := fmt.Sprint(r.content(t, "KV_"+messaging.AnswersBucket)); strings.Contains(text, secret) {
		t.Errorf("the key is kept: %s", text)
	}
	if life := r.stream(t, "KV_"+messaging.AnswersBucket).CachedInfo().Config.MaxAge; life != 24*time.Hour {
		t.Errorf("kept for %s", life)
	}
}
