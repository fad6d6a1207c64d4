package messaging_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// jwtGrant is a grant of a JWT that expires in an hour, and of a refresh token.
func jwtGrant(jti, refresh string) messaging.Grant {
	return messaging.Grant{
		Access: messaging.GrantToken{
			Domain: revocation.DomainToken, Key: jti, Digest: revocation.DigestOf(revocation.DomainToken, jti),
			Expiry: inAnHour(), Kind: revocation.KindJWT,
		},
		Refresh: messaging.RefreshToken(refresh, inTwoHours().UnixMilli()),
		Client:  "client-1", Subject: "alice", Tenant: "-1234",
	}
}

func accessOf(g messaging.RefreshGrant) (all []string) {
	for _, t := range g.Access {
		all = append(all, cmp.Or(t.Key, t.Domain.String()))
	}
	return all
}

// What is put at one replica is found at another as soon as it is acknowledged,
// though that one knew just before that the registry was empty.
func TestGrantsAreFoundAtEveryReplica(t *testing.T) {
	t.Parallel()
	r := prepare(t, embedded(t))
	other := messaging.NewGrants(prepare(t, r.sameHub()).hub)
	grants := messaging.NewGrants(r.hub)
	want := jwtGrant("jti-1", "refresh-1")
	stop := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() { // has the other replica know that it is empty, all the time
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				_, err := other.Refresh(t.Context(), want.Refresh.Digest)
				if err != nil && !errors.Is(err, messaging.ErrNoGrant) {
					t.Error(err)
				}
			}
		}
	})
	if _, err := other.Access(t.Context(), want.Access.Domain, want.Access.Digest); !errors.Is(err, messaging.ErrNoGrant) {
		t.Errorf("before: %v", err)
	}
	fatal(t, grants.Put(t.Context(), want))
	if got, err := other.Access(t.Context(), want.Access.Domain, want.Access.Digest); got != want || err != nil {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for i := range 20 { // none of them is settling any more
		one := jwtGrant(fmt.Sprint("next-", i), fmt.Sprint("next-", i))
		fatal(t, grants.Put(t.Context(), one))
		if got, err := other.Refresh(t.Context(), one.Refresh.Digest); err != nil || len(got.Access) != 1 || got.Access[0] != one.Access {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	close(stop)
	group.Wait()
	if _, err := other.Refresh(t.Context(), messaging.RefreshDigest("nobody's")); !errors.Is(err, messaging.ErrNoGrant) {
		t.Errorf("of an unknown one: %v", err)
	}
}

// A registry that was never used does not cost a lookup a question to the hub; one
// that was used does not wait for anything after a restart.
func TestGrantsOfAnEmptyRegistry(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	r := prepare(t, external(s))
	grants := messaging.NewGrants(r.hub)
	digest := messaging.RefreshDigest("x")
	began := time.Now()
	_, err := grants.Refresh(t.Context(), digest)
	if !errors.Is(err, messaging.ErrNoGrant) {
		t.Fatal(err)
	}
	shutdown(s) // who asks now, gets no answer
	if _, err := grants.Refresh(t.Context(), digest); !errors.Is(err, messaging.ErrNoGrant) && time.Since(began) < 900*time.Millisecond {
		t.Errorf("it asked the hub: %v", err)
	}
	<-time.After(time.Until(began.Add(1100 * time.Millisecond)))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := grants.Refresh(ctx, digest); err == nil || errors.Is(err, messaging.ErrNoGrant) {
		t.Errorf("it relies on what it was told more than a second ago: %v", err)
	}
}

// One refresh token has several access tokens over time; those that have expired
// are forgotten, one that comes again is not there twice.
func TestGrantsOfOneRefreshToken(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	clock := time.Now()
	var mu sync.Mutex
	cfg.Now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return clock
	}
	r := prepare(t, cfg)
	grants := messaging.NewGrants(r.hub)
	for _, jti := range []string{"a", "b", "c", "b"} {
		fatal(t, grants.Put(t.Context(), jwtGrant(jti, "refresh")))
	}
	opaque := jwtGrant("", "refresh")
	opaque.Access = messaging.GrantToken{
		Domain: revocation.DomainOpaque, Digest: messaging.OpaqueDigest(secret), Expiry: clock.Add(3 * time.Hour).UnixMilli(),
	}
	fatal(t, grants.Put(t.Context(), opaque))
	got, err := grants.Refresh(t.Context(), messaging.RefreshDigest("refresh"))
	if names := fmt.Sprint(accessOf(got)); names != "[a b c opaque]" || err != nil || got.Client != "client-1" || got.Subject != "alice" {
		t.Errorf("got %s, %+v, %v", names, got, err)
	}
	mu.Lock()
	clock = clock.Add(2 * time.Hour)
	mu.Unlock()
	got, err = grants.Refresh(t.Context(), messaging.RefreshDigest("refresh"))
	if names := fmt.Sprint(accessOf(got)); names != "[opaque]" || err != nil {
		t.Errorf("two hours later: %s, %v", names, err)
	}
	if err := grants.Put(t.Context(), jwtGrant("late", "refresh")); !errors.Is(err, messaging.ErrGrantExpired) {
		t.Errorf("a token that has expired: %v", err)
	}
	for sequence, content := range r.content(t, messaging.GrantsStream) {
		if strings.Contains(content, secret) || strings.Contains(content, "refresh\n") {
			t.Errorf("%d holds a token: %q", sequence, content)
		}
		if !strings.Contains(content, jetstream.MsgTTLHeader) {
			t.Errorf("%d is kept for ever: %q", sequence, content)
		}
	}
}

func TestGrantsAreBounded(t *testing.T) {
	t.Parallel()
	t.Run("of one refresh token", func(t *testing.T) {
		t.Parallel()
		grants := messaging.NewGrants(prepare(t, embedded(t)).hub)
		for i := range messaging.MaxAccess {
			fatal(t, grants.Put(t.Context(), jwtGrant(fmt.Sprint(i), "refresh")))
		}
		if err := grants.Put(t.Context(), jwtGrant("one more", "refresh")); !errors.Is(err, messaging.ErrGrantsMany) {
			t.Errorf("got %v", err)
		}
		if _, err := grants.Access(t.Context(), revocation.DomainToken, revocation.DigestOf(revocation.DomainToken, "one more")); !errors.Is(err, messaging.ErrNoGrant) {
			t.Errorf("what was refused is there: %v", err)
		}
		fatal(t, grants.Put(t.Context(), jwtGrant("7", "refresh")))
	})
	t.Run("of all", func(t *testing.T) {
		t.Parallel()
		cfg := embedded(t)
		cfg.Limits.MaxGrants = 4
		grants := messaging.NewGrants(prepare(t, cfg).hub)
		fatal(t, grants.Put(t.Context(), jwtGrant("a", "a")))
		fatal(t, grants.Put(t.Context(), jwtGrant("b", "b")))
		if err := grants.Put(t.Context(), jwtGrant("c", "c")); !errors.Is(err, messaging.ErrGrantsFull) {
			t.Errorf("got %v", err)
		}
		fatal(t, grants.Put(t.Context(), jwtGrant("a", "b"))) // no token more
	})
}

// Two replicas put grants of the same refresh token at the same time: none is lost.
func TestGrantsOfManyWriters(t *testing.T) {
	t.Parallel()
	r := prepare(t, embedded(t))
	both := []*messaging.Grants{messaging.NewGrants(r.hub), messaging.NewGrants(prepare(t, r.sameHub()).hub)}
	const each = 8
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			for i := range each {
				err := both[w%2].Put(t.Context(), jwtGrant(fmt.Sprint(w, "-", i), "refresh"))
				for errors.Is(err, messaging.ErrConflict) {
					err = both[w%2].Put(t.Context(), jwtGrant(fmt.Sprint(w, "-", i), "refresh"))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	got, err := both[0].Refresh(t.Context(), messaging.RefreshDigest("refresh"))
	if len(got.Access) != 4*each || err != nil {
		t.Errorf("%d access tokens, %v, want %d", len(got.Access), err, 4*each)
	}
}

// Whoever gives up takes nobody along, and nothing of his is left.
func TestGrantsOfACallerWhoGivesUp(t *testing.T) {
	t.Parallel()
	r := prepare(t, embedded(t))
	grants := messaging.NewGrants(r.hub)
	var group sync.WaitGroup
	for i := range 200 {
		group.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%2 == 0 {
				cancel()
			}
			err := grants.Put(ctx, jwtGrant(fmt.Sprint("jti-", i), fmt.Sprint("refresh-", i)))
			if i%2 == 1 && err != nil || i%2 == 0 && err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	group.Wait()
	for i := 1; i < 200; i += 2 {
		if _, err := grants.Refresh(t.Context(), messaging.RefreshDigest(fmt.Sprint("refresh-", i))); err != nil {
			t.Errorf("%d is lost: %v", i, err)
		}
	}
	if s := r.state(t, messaging.GrantsStream); s.Msgs < 200 || s.Msgs%2 != 0 {
		t.Errorf("%d messages", s.Msgs)
	}
}

func TestGrantsWithoutARefreshTokenOrAnExpiry(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	r := prepare(t, cfg)
	grants := messaging.NewGrants(r.hub)
	g := jwtGrant("a", "")
	g.Refresh, g.Access.Expiry = messaging.GrantToken{}, 0
	fatal(t, grants.Put(t.Context(), g))
	fatal(t, grants.Put(t.Context(), g)) // changes nothing
	got, err := grants.Access(t.Context(), g.Access.Domain, g.Access.Digest)
	if life := time.Until(time.UnixMilli(got.Access.Expiry)); err != nil || got.Refresh != (messaging.GrantToken{}) || life < 89*24*time.Hour {
		t.Errorf("got %+v, %v", got, err)
	}
	if s := r.state(t, messaging.GrantsStream); s.LastSeq != 1 {
		t.Errorf("%d were written, want 1", s.LastSeq)
	}
	forever := jwtGrant("b", "b")
	forever.Access.Expiry = revocation.Never
	fatal(t, grants.Put(t.Context(), forever))
	for _, subject := range []string{"grants.access.token." + forever.Access.Digest.String(), "grants.refresh." + forever.Refresh.Digest.String()} {
		msg, err := r.stream(t, messaging.GrantsStream).GetLastMsgForSubject(t.Context(), subject)
		fatal(t, err)
		if msg.Header.Get(jetstream.MsgTTLHeader) != "" {
			t.Errorf("%s of a token that never expires has a TTL", subject)
		}
	}
}

func TestGrantsThatAreNone(t *testing.T) {
	t.Parallel()
	r := prepare(t, embedded(t))
	grants := messaging.NewGrants(r.hub)
	for name, spoil := range map[string]func(*messaging.Grant){
		"no access token":                    func(g *messaging.Grant) { g.Access = messaging.GrantToken{} },
		"a refresh token only":               func(g *messaging.Grant) { g.Access = g.Refresh },
		"an access token as a refresh token": func(g *messaging.Grant) { g.Refresh = g.Access },
		"another's digest":                   func(g *messaging.Grant) { g.Access.Digest[0]++ },
		"a secret":                           func(g *messaging.Grant) { g.Refresh.Key = secret },
		"a whole JWT":                        func(g *messaging.Grant) { g.Subject = "eyJh.eyJi." + secret },
		"a long client":                      func(g *messaging.Grant) { g.Client = strings.Repeat("x", 257) },
		"no UTF-8":                           func(g *messaging.Grant) { g.Subject = "\xff" },
		"a negative expiry":                  func(g *messaging.Grant) { g.Refresh.Expiry = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			g := jwtGrant("a", "b")
			spoil(&g)
			if err := grants.Put(t.Context(), g); !errors.Is(err, messaging.ErrGrant) || strings.Contains(err.Error(), secret) {
				t.Errorf("got %v", err)
			}
		})
	}
	if s := r.state(t, messaging.GrantsStream); s.LastSeq != 0 {
		t.Errorf("%d were written", s.LastSeq)
	}
}

// What a newer adapter wrote, or nobody understands, is an error, and never
// written over.
func TestGrantsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	r := prepare(t, embedded(t))
	grants := messaging.NewGrants(r.hub)
	g := jwtGrant("a", "b")
	fatal(t, grants.Put(t.Context(), g))
	subject := "grants.refresh." + g.Refresh.Digest.String()
	for data, want := range map[string]error{"\x08\x02": messaging.ErrNewerFormat, "\x08\x01\x1a\x02\x08\x01": messaging.ErrRecord, "\xff": messaging.ErrRecord, "": messaging.ErrRecord} {
		ack, err := r.js.Publish(t.Context(), subject, []byte(data))
		fatal(t, err)
		if _, err := grants.Refresh(t.Context(), g.Refresh.Digest); !errors.Is(err, want) {
			t.Errorf("%q: %v", data, err)
		}
		if err := grants.Put(t.Context(), jwtGrant("c", "b")); !errors.Is(err, want) {
			t.Errorf("%q: put over it: %v", data, err)
		}
		msg, err := r.stream(t, messaging.GrantsStream).GetLastMsgForSubject(t.Context(), subject)
		if err != nil || msg.Sequence != ack.Sequence {
			t.Errorf("%q is written over: %v", data, err)
		}
	}
}
