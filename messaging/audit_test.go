package messaging_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"revocation-adapter/messaging"
)

// audited runs a hub that keeps an audit, and nothing else.
func audited(t *testing.T, cfg messaging.Config, audit messaging.AuditConfig) (*replica, *messaging.Audit) {
	t.Helper()
	r := prepare(t, cfg)
	a := messaging.NewAudit(r.hub, audit)
	r.run(t, a.Run)
	return r, a
}

// entries are those that a query yields, at most some.
func (r *replica) entries(t *testing.T, q messaging.AuditQuery, most int) (all []messaging.AuditEntry) {
	t.Helper()
	for e, err := range messaging.AuditEntries(t.Context(), r.conn, q) {
		fatal(t, err)
		if all = append(all, e); len(all) == most {
			break
		}
	}
	return all
}

func ids(entries []messaging.AuditEntry) string {
	var all []string
	for _, e := range entries {
		all = append(all, e.ID)
	}
	return strings.Join(all, " ")
}

func TestAuditKeepsEntries(t *testing.T) {
	t.Parallel()
	var lines bytes.Buffer
	r, a := audited(t, embedded(t), messaging.AuditConfig{Lines: &lines})
	at := time.Date(2026, 5, 1, 7, 20, 57, 123456789, time.FixedZone("", 3600))
	want := messaging.AuditEntry{
		Sequence: 1000, ID: "a1", Time: at.UTC(), Actor: "alice", Action: "revoke", Target: "sha256:x", Outcome: "stored", Status: 200,
		From: "127.0.0.1:1", Replica: "r1", EventID: "e1", Version: 17, Reason: "left", Count: 2,
	}
	given := want
	given.Sequence, given.Time = 0, at
	fatal(t, a.Add(t.Context(), given))
	if got := r.entries(t, messaging.AuditQuery{}, 9); len(got) != 1 || got[0] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	const line = `{"id":"a1","time":"2026-05-01T06:20:57.123456789Z","actor":"alice","action":"revoke","target":"sha256:x","outcome":"stored",` +
		`"status":200,"from":"127.0.0.1:1","replica":"r1","event_id":"e1","version":17,"reason":"left","count":2}` + "\n"
	if got := lines.String(); got != line {
		t.Errorf("the line is %s, want %s", got, line)
	}
	fatal(t, a.Add(t.Context(), messaging.AuditEntry{Actor: "bob", Action: "approve", Outcome: "refused"}))
	e := r.entries(t, messaging.AuditQuery{}, 1)[0]
	if e.ID == "" || time.Since(e.Time) > time.Minute || e.Actor != "bob" {
		t.Errorf("completed: %+v", e)
	}
}

func TestAuditHoldsNoToken(t *testing.T) {
	t.Parallel()
	var lines bytes.Buffer
	r, a := audited(t, embedded(t), messaging.AuditConfig{Lines: &lines})
	jwt := "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0." + secret
	fatal(t, a.Add(t.Context(), messaging.AuditEntry{Actor: jwt, Action: "revoke", Target: jwt, Reason: "this one: " + jwt, Outcome: strings.Repeat("x", 9999)}))
	text := fmt.Sprint(r.content(t, messaging.AuditStream)) + lines.String() + r.book.text()
	if strings.Contains(text, secret) || strings.Contains(text, "eyJ") || len(text) > 5000 {
		t.Errorf("it holds a token, or all of a long text: %s", text)
	}
	for _, action := range []string{"", "a.b", "*", ">", "Revoke", "a b", strings.Repeat("x", 65)} {
		if err := a.Add(t.Context(), messaging.AuditEntry{Action: action}); !errors.Is(err, messaging.ErrAudit) {
			t.Errorf("action %q: %v", action, err)
		}
	}
}

// Pages of any size, from the newest or from a time, of one actor, action or target.
func TestAuditEntriesByQuery(t *testing.T) {
	t.Parallel()
	r, a := audited(t, embedded(t), messaging.AuditConfig{})
	const n = 700
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			if err := a.Add(t.Context(), messaging.AuditEntry{
				ID: fmt.Sprint(i), Actor: fmt.Sprint("actor-", i%2), Action: fmt.Sprint("action-", i%7), Target: fmt.Sprint("target-", i%100),
			}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	half := time.Now()
	fatal(t, a.Add(t.Context(), messaging.AuditEntry{ID: "last", Actor: "zoe for carol", Action: "revoke"}))
	all := r.entries(t, messaging.AuditQuery{}, n+9)
	if len(all) != n+1 || all[0].ID != "last" {
		t.Fatalf("%d entries, the newest is %+v", len(all), all[0])
	}
	for i, e := range all[1:] {
		if e.Sequence >= all[i].Sequence {
			t.Fatalf("at %d is %d after %d", i, e.Sequence, all[i].Sequence)
		}
	}
	middle := all[300].Sequence // within a message
	for name, tt := range map[string]struct {
		query messaging.AuditQuery
		keep  func(messaging.AuditEntry) bool
	}{
		"an actor":           {messaging.AuditQuery{Actor: "actor-1"}, func(e messaging.AuditEntry) bool { return e.Actor == "actor-1" }},
		"for somebody":       {messaging.AuditQuery{Actor: "zoe"}, func(e messaging.AuditEntry) bool { return e.ID == "last" }},
		"an action":          {messaging.AuditQuery{Action: "action-3"}, func(e messaging.AuditEntry) bool { return e.Action == "action-3" }},
		"a target":           {messaging.AuditQuery{Target: "target-42"}, func(e messaging.AuditEntry) bool { return e.Target == "target-42" }},
		"a page":             {messaging.AuditQuery{Before: middle, Actor: "actor-0"}, func(e messaging.AuditEntry) bool { return e.Sequence < middle && e.Actor == "actor-0" }},
		"nobody":             {messaging.AuditQuery{Actor: "nobody"}, func(messaging.AuditEntry) bool { return false }},
		"nothing":            {messaging.AuditQuery{Action: "nothing"}, func(messaging.AuditEntry) bool { return false }},
		"before everything":  {messaging.AuditQuery{Before: 1}, func(messaging.AuditEntry) bool { return false }},
		"since a time":       {messaging.AuditQuery{Since: half}, func(e messaging.AuditEntry) bool { return e.ID == "last" }},
		"since the future":   {messaging.AuditQuery{Since: half.Add(time.Hour)}, func(messaging.AuditEntry) bool { return false }},
		"an action that was": {messaging.AuditQuery{Since: half, Action: "action-3"}, func(messaging.AuditEntry) bool { return false }},
	} {
		t.Run(name, func(t *testing.T) {
			var want []messaging.AuditEntry
			for _, e := range all {
				if tt.keep(e) {
					want = append(want, e)
				}
			}
			if got := r.entries(t, tt.query, n+9); ids(got) != ids(want) {
				t.Errorf("got %d: %s\nwant %d: %s", len(got), ids(got), len(want), ids(want))
			}
		})
	}
	oldest := r.entries(t, messaging.AuditQuery{Since: half.Add(-time.Hour)}, 3)
	if len(oldest) != 3 || oldest[0].Sequence != 1000 || oldest[2].Sequence != all[n-2].Sequence {
		t.Errorf("from a time on: %+v", oldest)
	}
}

// Many callers at the same time are stored together, and all are there when they
// were answered.
func TestAuditOfManyCallers(t *testing.T) {
	t.Parallel()
	r, a := audited(t, embedded(t), messaging.AuditConfig{})
	var group sync.WaitGroup
	for i := range 2000 {
		group.Go(func() {
			if err := a.Add(t.Context(), messaging.AuditEntry{ID: fmt.Sprint(i), Action: "revoke"}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got := r.entries(t, messaging.AuditQuery{}, 9999); len(got) != 2000 {
		t.Errorf("%d are stored", len(got))
	}
}

// Without a hub Add gives up after some seconds, and the line is written all the
// same.
func TestAuditGivesUp(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	var lines bytes.Buffer
	r, a := audited(t, external(s), messaging.AuditConfig{Lines: &lines})
	shutdown(s)
	began := time.Now()
	err := a.Add(t.Context(), messaging.AuditEntry{ID: "1", Action: "revoke"})
	if took := time.Since(began); err == nil || took > 8*time.Second {
		t.Errorf("after %s: %v", took, err)
	}
	if !json.Valid(lines.Bytes()) || lines.Len() == 0 {
		t.Errorf("lines: %s", lines.String())
	}
	r.stop()
	if err := a.Add(t.Context(), messaging.AuditEntry{Action: "revoke"}); !errors.Is(err, messaging.ErrAuditStopped) {
		t.Errorf("after the end: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for e, err := range messaging.AuditEntries(ctx, r.conn, messaging.AuditQuery{}) {
		if err == nil {
			t.Errorf("read without a hub: %+v", e)
		}
	}
}

// The audit keeps what it may, the newest, and one entry that is none hides no
// other.
func TestAuditIsBounded(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	cfg.Audit = messaging.AuditLimits{MaxAge: time.Hour, MaxBytes: 20_000}
	r, a := audited(t, cfg, messaging.AuditConfig{})
	for i := range 300 {
		fatal(t, a.Add(t.Context(), messaging.AuditEntry{ID: fmt.Sprint(i), Action: "revoke", Reason: strings.Repeat("x", 100)}))
	}
	state := r.state(t, messaging.AuditStream)
	got := r.entries(t, messaging.AuditQuery{}, 999)
	if state.Bytes > 20_000 || state.Msgs < 20 || uint64(len(got)) != state.Msgs || got[0].ID != "299" {
		t.Errorf("%d bytes in %d, read %d", state.Bytes, state.Msgs, len(got))
	}
	if s := r.stream(t, messaging.AuditStream).CachedInfo().Config; s.MaxAge != time.Hour || s.Discard != jetstream.DiscardOld {
		t.Errorf("kept for %s, %s", s.MaxAge, s.Discard)
	}
	_, err := r.js.Publish(t.Context(), "audit.revoke", []byte("no JSON"))
	fatal(t, err)
	bad, good := 0, 0
	for _, err := range messaging.AuditEntries(t.Context(), r.conn, messaging.AuditQuery{Actor: ""}) {
		if err != nil {
			bad++
		} else {
			good++
		}
	}
	if bad != 1 || good < 20 {
		t.Errorf("%d cannot be read, %d can", bad, good)
	}
	cfg.Audit.MaxAge = 2 * time.Hour // an operator may want it so
	r.close()
	_, cfg.Log = newLogbook(t)
	hub, err := messaging.Open(t.Context(), cfg)
	fatal(t, err)
	defer hub.Close()
	js, err := jetstream.New(hub.Conn())
	fatal(t, err)
	s, err := js.Stream(t.Context(), messaging.AuditStream)
	fatal(t, err)
	if is := s.CachedInfo(); is.Config.MaxAge != 2*time.Hour || is.State.Msgs < 20 {
		t.Errorf("kept for %s, %d entries", is.Config.MaxAge, is.State.Msgs)
	}
}
