package messaging_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

const batchEvent = messaging.TypeBatch

func batchOf(object fields) fields { return ruleOf(batchEvent, object) }

// listed is the event of an entry of a batch.
func listed(e messaging.Event) messaging.Event {
	e.ID, e.Tenant = "e1", "-1234"
	return e
}

func TestDecodeBatch(t *testing.T) {
	jti := func(id, typ string) messaging.Event { return listed(token(id, revocation.KindNone, typ)) }
	jwt, key := listed(token("a", revocation.KindJWT, "JWT")), listed(token("a", revocation.KindAPIKey, "API_KEY"))
	whole := listed(until(token(accessTokenID, revocation.KindJWT, "JWT"), 1619855896000, revocation.Dated))
	dated := until(jwt, someTime, revocation.Dated)
	one := func(entry any) fields {
		return batchOf(fields{"consumerKey": "app", "revokedTokensList": []any{entry}})
	}
	tests := []struct {
		name  string
		event fields
		want  []messaging.Event
	}{
		{"a list of jtis", batchOf(fields{"consumer_key": "app", "revokedTokensList": []string{"a", "b"}}), []messaging.Event{jti("a", ""), jti("b", "")}},
		{"the name of HTTP bodies", batchOf(fields{"tokenRevocationEventList": []string{"a"}}), []messaging.Event{jti("a", "")}},
		{"a list beside the token", with(batchOf(fields{"consumerKey": "app"}), "revokedTokensList", []string{"a"}), []messaging.Event{jti("a", "")}},
		{"a list and no token", fields{"eventId": "e1", "tenantId": -1234, "type": batchEvent, "revokedTokensList": []string{"a"}}, []messaging.Event{jti("a", "")}},
		{"two lists", batchOf(fields{"revokedTokensList": []string{"a"}, "tokenRevocationEventList": []string{"b"}}), []messaging.Event{jti("a", ""), jti("b", "")}},
		{"a jti twice", batchOf(fields{"revokedTokensList": []string{"a", "a"}}), []messaging.Event{jti("a", ""), jti("a", "")}},
		{"the type of all jtis", batchOf(fields{"tokenType": "JWT", "revokedTokensList": []string{"a"}}), []messaging.Event{jwt}},
		{"opaque tokens", batchOf(fields{"tokenType": "Default", "revokedTokensList": []string{"a"}}), []messaging.Event{listed(opaque("a", "Default"))}},
		{"an object with a jti", one(fields{"jti": "a"}), []messaging.Event{jti("a", "")}},
		{"of a JWT", one(fields{"accessToken": "a", "tokenType": "JWT", "expiryTime": someTime}), []messaging.Event{dated}},
		{"of a JWT, in seconds", one(fields{"revokedToken": "a", "type": "JWT", "expiryTime": fmt.Sprint(someTime / 1000)}), []messaging.Event{dated}},
		{"of an API key", one(fields{"revokedToken": "a", "tokenType": "API_KEY", "type": "token_revocation"}), []messaging.Event{key}},
		{"of an opaque token", one(fields{"accessToken": "a", "tokenType": "Default"}), []messaging.Event{listed(opaque("a", "Default"))}},
		{"without a type", one(fields{"accessToken": "a", "type": "token_revocation"}), []messaging.Event{listed(opaque("a", "Default"))}},
		{"of a whole JWT", one(fields{"accessToken": accessToken}), []messaging.Event{whole}},
		{"a whole JWT in the place of a jti", one(accessToken), []messaging.Event{typed(kind(whole, revocation.KindNone), "")}},
		{"the event's expiry", with(one(fields{"jti": "a", "type": "JWT"}), "expiryTime", someTime), []messaging.Event{dated}},
		{"no list", batchOf(fields{"consumerKey": "app"}), nil},
		{"an empty list", batchOf(fields{"revokedTokensList": []string{}}), nil},
		{"a list that is null", batchOf(fields{"revokedTokensList": nil}), nil},
		{"a list that is blank", batchOf(fields{"revokedTokensList": ""}), nil},
		{"no base64", fields{"type": batchEvent, "revokedToken": "app"}, nil},
		{"base64 of no object", fields{"type": batchEvent, "revokedToken": inner("app")}, nil},
		{"nothing at all", fields{"type": batchEvent}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			call, err := messaging.DecodeEvent(tt.event.event(), messaging.StatusRevoked, rules())
			if err != nil || !reflect.DeepEqual(call.Events, tt.want) || call.Type != batchEvent || call.Reload != (tt.want == nil) {
				t.Errorf("got %+v, %v, want %+v", call, err, tt.want)
			}
		})
	}
}

func kind(e messaging.Event, k revocation.Kind) messaging.Event {
	e.Kind = k
	return e
}

func TestDecodeBatchRefusesWithoutQuoting(t *testing.T) {
	list := func(entries ...any) fields {
		return batchOf(fields{"revokedTokensList": append([]any{"good"}, entries...)})
	}
	for name, event := range map[string]fields{
		"a list that is a string":      batchOf(fields{"revokedTokensList": secret}),
		"a list that is an object":     batchOf(fields{"revokedTokensList": fields{secret: secret}}),
		"an entry that is null":        list(nil),
		"a number":                     list(17),
		"a list in a list":             list([]string{secret}),
		"an empty jti":                 list(""),
		"a jti that names a digest":    list("sha256:" + secret),
		"a jti that is too long":       list(secret + strings.Repeat("x", 2048)),
		"what looks like a JWT":        list("eyJ." + secret + ".x"),
		"an object without a token":    list(fields{"expiryTime": someTime}),
		"a token that is an object":    list(fields{"accessToken": fields{"a": secret}}),
		"an unknown type":              list(fields{"accessToken": secret, "tokenType": secret}),
		"a rule":                       list(fields{"accessToken": secret, "type": clientEvent}),
		"a negative expiry":            list(fields{"accessToken": secret, "expiryTime": -1}),
		"a word for the expiry":        list(fields{"accessToken": secret, "expiryTime": secret}),
		"an unknown type of all":       batchOf(fields{"tokenType": secret, "revokedTokensList": []string{"a"}}),
		"a type of all that is a list": batchOf(fields{"tokenType": []string{secret}, "revokedTokensList": []string{"a"}}),
	} {
		t.Run(name, func(t *testing.T) {
			call, err := messaging.DecodeEvent(event.event(), messaging.StatusRevoked, rules())
			if !errors.Is(err, messaging.ErrEvent) {
				t.Fatalf("got %+v, %v, want it refused", call, err)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error quotes the event: %v", err)
			}
		})
	}
	if call, err := messaging.DecodeEvent(batchOf(fields{}).event(), messaging.StatusApproved, rules()); !errors.Is(err, messaging.ErrEvent) {
		t.Errorf("an approval of nothing: %+v, %v", call, err)
	}
}

// jtis are distinct and look as real ones do.
func jtis(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("fc8ee897-b3d9-3bb6-a9ca-%012d", i)
	}
	return all
}

// Ten thousand tokens in one event, one of them twice.
func TestBatchOfManyTokens(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	all := jtis(10_000)
	all[9_999] = all[17]
	before := r.version()
	event := with(batchOf(fields{"consumerKey": "app", "revokedTokensList": all}), "expiryTime", inAnHour()).event()
	r.publish(t, messaging.SubjectRevocation, event)
	r.settle(t)
	if held := r.held(); len(held) != 9_999 || held[all[9_998]] != revocation.Revoked || r.version()-before != 9_999 {
		t.Errorf("%d tokens are held, %d versions", len(held), r.version()-before)
	}
	rec, _ := r.record(t, revocation.DomainToken, all[17])
	if len(rec.GetEvents()) != 1 || rec.GetEvents()[0].GetId() != "e1" || rec.GetTenant() != "-1234" {
		t.Errorf("stored %v", rec)
	}
	version := r.version()
	r.publish(t, messaging.SubjectRevocation, event)
	r.settle(t)
	if got := r.outcomes(t); got["stored"] != 1 || got["duplicate"] != 1 || len(got) != 2 || r.version() != version {
		t.Errorf("outcomes %v, version %d, was %d", got, r.version(), version)
	}
	if n := r.metric(t, "events_total", "kind", "batch"); n != 2 {
		t.Errorf("%v batches are counted", n)
	}
	r.checkLogged(t, batchEvent)
	r.checkNothingPending(t)
}

// One entry that is not understood keeps out all of them.
func TestBatchIsUnderstoodWhole(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	version := r.version()
	entries := []any{}
	for _, jti := range jtis(2_000) {
		entries = append(entries, jti)
	}
	entries = append(entries, fields{"jti": "a", "expiryTime": -1})
	r.publish(t, messaging.SubjectRevocation, batchOf(fields{"revokedTokensList": entries}).event())
	r.settle(t)
	letters := r.deadLetters(t)
	if len(letters) != 1 || !strings.Contains(letters[0].Reason, "entry 2000 of revokedTokensList: expiryTime is negative") {
		t.Errorf("dead letters %v", letters)
	}
	if len(r.held()) != 0 || r.version() != version {
		t.Errorf("%d tokens are held at %d", len(r.held()), r.version())
	}
}

// What came half way goes on where it was: nothing takes a second version.
func TestBatchResumes(t *testing.T) {
	t.Parallel()
	r := follow(t, embedded(t))
	r.awaitReady(t)
	before := r.state(t, messaging.LogStream).LastSeq
	m := amqp(with(batchOf(fields{"revokedTokensList": jtis(2_500)}), "expiryTime", inAnHour()).event())
	ctx, crash := context.WithCancel(t.Context())
	m.Working = crash
	var first messaging.Result
	r.intake.Take(ctx, []messaging.Message{m}, func(_ int, got messaging.Result) { first = got })
	if n := r.state(t, messaging.LogStream).LastSeq - before; first.Fate != messaging.FateRetry || n != messaging.MaxBatch {
		t.Fatalf("it became %+v, %d are stored", first, n)
	}
	worked := 0
	m.Working = func() { worked++ }
	again, _ := r.takeAll(t, m)
	if n := r.state(t, messaging.LogStream).LastSeq - before; again[0].Fate != messaging.FateStored || n != 2_500 || worked != 2 {
		t.Errorf("then %+v, %d are stored, it said %d times that it works", again[0], n, worked)
	}
	r.settle(t)
	if last, _ := r.takeAll(t, m); last[0].Fate != messaging.FateDuplicate {
		t.Errorf("at last %+v", last[0])
	}
}

func TestBatchDropsWhatHasExpired(t *testing.T) {
	t.Parallel()
	r := follow(t, embedded(t))
	r.awaitReady(t)
	old := fields{"jti": "old", "expiryTime": 1_628_175_421_481}
	results, _ := r.takeAll(
		t, amqp(batchOf(fields{"revokedTokensList": []any{old, "new"}}).event()),
		amqp(batchOf(fields{"revokedTokensList": []any{old}}).event()),
	)
	if results[0].Fate != messaging.FateStored || results[1].Fate != messaging.FateExpired {
		t.Errorf("got %v", fates(results))
	}
	r.settle(t)
	if held := r.held(); len(held) != 1 || held["new"] != revocation.Revoked {
		t.Errorf("held %v", held)
	}
}

func TestBatchIsApproved(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	event := batchOf(fields{"revokedTokensList": []string{"a", "b"}})
	r.publish(t, messaging.SubjectRevocation, event.event())
	r.settle(t)
	r.publish(t, messaging.SubjectApproval, with(event, "eventId", "e2").event())
	r.settle(t)
	if held := r.held(); held["a"] != revocation.Approved || held["b"] != revocation.Approved {
		t.Errorf("held %v", held)
	}
}

// Without a list everything is to be read again, where there is something to
// read from; else a person is told.
func TestBatchWithoutAList(t *testing.T) {
	t.Parallel()
	for name, with := range map[string]int{"a control plane": 1, "none": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := prepare(t, embedded(t))
			asked := make(chan struct{}, 10)
			if with > 0 {
				r.intake.Reload = func() { asked <- struct{}{} }
			}
			r.run(t, r.follower.Run, r.listener.Run)
			r.awaitReady(t)
			r.publish(t, messaging.SubjectRevocation, batchOf(fields{"consumerKey": "app"}).event())
			r.settle(t)
			warned := len(r.book.find(logrus.WarnLevel, "A publisher lists no tokens"))
			if len(asked) != with || warned != 1-with || len(r.deadLetters(t)) != 0 {
				t.Errorf("asked %d times, warned %d times, dead letters %v", len(asked), warned, r.deadLetters(t))
			}
			if n := r.metric(t, "events_total", "kind", "batch", "outcome", "reload"); n != 1 {
				t.Errorf("%v are counted", n)
			}
			r.checkNothingPending(t)
		})
	}
}

// A lone event is not held up by a large one beside it.
func TestBatchBesideALoneEvent(t *testing.T) {
	t.Parallel()
	r := follow(t, embedded(t))
	r.awaitReady(t)
	large := amqp(with(batchOf(fields{"revokedTokensList": jtis(3_000)}), "expiryTime", inAnHour()).event())
	var answered []int
	r.intake.Take(t.Context(), []messaging.Message{large, amqp(jwtEvent("e2", "lone"))}, func(i int, got messaging.Result) {
		if got.Fate != messaging.FateStored {
			t.Errorf("%d is %+v", i, got)
		}
		answered = append(answered, i)
	})
	if !reflect.DeepEqual(answered, []int{1, 0}) {
		t.Errorf("answered in the order %v", answered)
	}
}

// Of large events few are taken at a time: each is decoded whole, and what waits
// too long is delivered again.
func TestBatchesAreTakenFewAtATime(t *testing.T) { // alone: it is much work
	r := prepare(t, embedded(t))
	const events = 40
	for i := range events {
		all := jtis(1000)
		for j := range all {
			all[j] = fmt.Sprint(i, all[j], strings.Repeat("x", 400))
		}
		r.publish(t, messaging.SubjectRevocation, with(batchOf(fields{"revokedTokensList": all}), "eventId", fmt.Sprint(i)).event())
	}
	r.run(t, r.listener.Run)
	eventually(t, "the first is stored", func() bool { return r.outcomes(t)["stored"] > 0 })
	cons, err := r.stream(t, messaging.IngestStream).Consumer(t.Context(), "adapter")
	fatal(t, err)
	info, failed := cons.CachedInfo(), r.outcomes(t)["retried"] // a busy machine fails to store one in time
	if info.NumAckPending == 0 || info.NumAckPending > events/2 || info.NumRedelivered > failed {
		t.Errorf("%d of %d are taken, %d again, of which %d failed", info.NumAckPending, events, info.NumRedelivered, failed)
	}
}
