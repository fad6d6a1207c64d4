package messaging_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"revocation-adapter/messaging"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// changes is all that the log says of every key.
func (r *replica) changes() map[string]string {
	all := map[string]string{}
	for c := range r.log.Snapshot().Since(0, r.cfg.Now()) {
		all[c.Name()] = fmt.Sprint(c.Version, " ", c.State, " ", c.Lifetime, " ", c.Expiry)
	}
	return all
}

// Both replicas take events of the same keys at the same time, in any order:
// what both end with is what the events say in the order of INGEST.
func TestTwoReplicasConverge(t *testing.T) {
	t.Parallel()
	for name, keys := range map[string]int{"one key": 1, "a few keys": 7} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := standalone(t, t.TempDir(), -1)
			a, b := start(t, external(s)), start(t, external(s))
			const events = 210
			began := time.Now()
			greatest, state, ids := map[string]int64{}, map[string]revocation.State{}, map[string][]string{}
			for i := range events {
				jti, id, expiry := fmt.Sprint("jti-", i%keys), fmt.Sprint("e", i), inAnHour()+int64(i*7919%events)*1000
				subject := messaging.SubjectRevocation
				state[jti] = revocation.Revoked
				if i*31%5 < 2 {
					subject, state[jti] = messaging.SubjectApproval, revocation.Approved
				}
				a.publish(t, subject, fields{"eventId": id, "revokedToken": jti, "type": "JWT", "expiryTime": expiry}.event())
				greatest[jti] = max(greatest[jti], expiry)
				ids[jti] = append([]string{id}, ids[jti]...)
			}
			a.settle(t)
			b.settle(t)
			if a.version() != b.version() || !maps.Equal(a.changes(), b.changes()) {
				t.Errorf("one is at %d with %v, the other at %d with %v", a.version(), a.changes(), b.version(), b.changes())
			}
			for jti, want := range state {
				rec, _ := a.record(t, revocation.DomainToken, jti)
				if a.held()[jti] != want || rec.GetExpiryMillis() != greatest[jti] || !slices.Equal(eventIDs(rec), ids[jti][:4]) {
					t.Errorf("%s is %v, want %s until %d after %v", jti, rec, want, greatest[jti], ids[jti][:4])
				}
			}
			one, other := a.outcomes(t), b.outcomes(t)
			stored, again := one["stored"]+other["stored"], one["duplicate"]+other["duplicate"]
			if one["stored"] == 0 || other["stored"] == 0 || stored > events || stored+again < events {
				t.Errorf("outcomes %v and %v of %d events", one, other, events)
			}
			if took := time.Since(began); stored+again > events && took < 5*time.Second { // later, some come again
				t.Errorf("outcomes %v and %v of %d events, in %s", one, other, events, took)
			}
		})
	}
}

func eventIDs(rec *revocationv1.Record) []string {
	var ids []string
	for _, e := range rec.GetEvents() {
		if e.GetId() != "" {
			ids = append(ids, e.GetId())
		}
	}
	return ids
}

// A replica that dies with an event in its hands loses nothing: it was not
// acknowledged, and another one is given it.
func TestAnotherReplicaTakesOver(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	a := prepare(t, external(s))
	for i := range 40 {
		a.publish(t, messaging.SubjectRevocation, jwtEvent(fmt.Sprint("e", i), fmt.Sprint("jti-", i)))
	}
	a.run(t, a.listener.Run)
	eventually(t, "it has begun", func() bool { return a.outcomes(t)["stored"] > 0 })
	a.close()
	b := start(t, external(s))
	b.settle(t)
	if len(b.held()) != 40 {
		t.Errorf("%d of 40 are held", len(b.held()))
	}
}

// The hub goes away under running replicas and comes back: they go on, and
// nothing is lost.
func TestReplicasOutliveTheHub(t *testing.T) {
	t.Parallel()
	store := t.TempDir()
	s := standalone(t, store, -1)
	cfg := external(s)
	r := start(t, cfg)
	r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", "before"))
	r.settle(t)
	version := r.version()
	shutdown(s)
	eventually(t, "the hub is missed", func() bool { return !r.hub.Connected() })
	if r.held()["before"] != revocation.Revoked || r.version() != version || r.metric(t, "hub_connected") != 0 {
		t.Errorf("without its hub it is at %d with %v", r.version(), r.held())
	}
	standalone(t, store, portOf(t, s))
	eventually(t, "the hub is back", r.hub.Connected)
	publisher := prepare(t, cfg)
	began := time.Now()
	publisher.publish(t, messaging.SubjectRevocation, jwtEvent("e2", "after"))
	eventually(t, "the event arrives", func() bool { return r.held()["after"] == revocation.Revoked })
	t.Logf("an event arrives %s after the hub is back", time.Since(began))
}

// A replica stops soon, whatever its hub does.
func TestStopWithoutAHub(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*testing.T, *replica, *server.Server){
		"the server is gone": func(t *testing.T, r *replica, s *server.Server) {
			t.Helper()
			shutdown(s)
			eventually(t, "the hub is missed", func() bool { return !r.hub.Connected() })
		},
		"the log is gone": func(t *testing.T, r *replica, _ *server.Server) {
			t.Helper()
			fatal(t, r.js.DeleteStream(t.Context(), messaging.LogStream))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := standalone(t, t.TempDir(), -1)
			r := start(t, external(s))
			r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", "jti-1"))
			r.settle(t)
			spoil(t, r, s)
			began := time.Now()
			r.close()
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}
