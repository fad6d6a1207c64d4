package messaging_test

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// takeAll hands messages to the intake and returns what became of each, in their
// order, and the order in which they were answered.
func (r *replica) takeAll(t *testing.T, messages ...messaging.Message) (results []messaging.Result, order []int) {
	t.Helper()
	results = make([]messaging.Result, len(messages))
	r.intake.Take(t.Context(), messages, func(i int, result messaging.Result) {
		results[i], order = result, append(order, i)
	})
	return results, order
}

func fates(results []messaging.Result) []messaging.Fate {
	all := make([]messaging.Fate, 0, len(results))
	for _, r := range results {
		all = append(all, r.Fate)
	}
	return all
}

// amqp is a message of a publisher on the control plane's broker.
func amqp(event []byte) messaging.Message {
	return messaging.Message{Source: messaging.SourceAMQP, Subject: messaging.SubjectRevocation, Data: event, At: time.Now()}
}

func TestIntakeOfAnotherSource(t *testing.T) {
	t.Parallel()
	r := follow(t, embedded(t))
	r.awaitReady(t)
	known := jwtEvent("e1", "jti-1")
	results, order := r.takeAll(
		t, amqp([]byte("malformed")), amqp(known), amqp(known), amqp(jwtEvent("e2", "jti-2")),
		amqp(fields{"revokedToken": "old", "type": "JWT", "expiryTime": 1}.event()),
	)
	want := []messaging.Fate{messaging.FateDead, messaging.FateStored, messaging.FateDuplicate, messaging.FateStored, messaging.FateExpired}
	if !reflect.DeepEqual(fates(results), want) {
		t.Errorf("got %v, want %v", fates(results), want)
	}
	if len(order) != 5 || order[4] != 0 {
		t.Errorf("answered in the order %v, want what is not understood last", order)
	}
	if !errors.Is(results[0].Err, messaging.ErrEvent) || results[1].Err != nil {
		t.Errorf("errors %v and %v", results[0].Err, results[1].Err)
	}
	rec, _ := r.record(t, revocation.DomainToken, "jti-1")
	if rec.GetSource() != "amqp" || rec.GetTimeMicros() == 0 {
		t.Errorf("stored %v", rec)
	}
	if d := r.deadLetters(t); len(d) != 1 || d[0].Subject != messaging.SubjectRevocation {
		t.Errorf("dead letters %v", d)
	}
	if lines := r.book.find(logrus.InfoLevel, "Event JWT is received"); len(lines) != 4 {
		t.Errorf("%d lines, want 4", len(lines))
	}
	if n := r.metric(t, "events_total", "source", "amqp", "kind", "jwt", "outcome", "stored"); n != 2 {
		t.Errorf("%v events are counted as stored, want 2", n)
	}
}

// Without the hub nothing is lost: the publisher is told to come again.
func TestIntakeWithoutTheHub(t *testing.T) {
	t.Parallel()
	r := prepare(t, embedded(t))
	r.hub.Close()
	results, order := r.takeAll(t, amqp([]byte("malformed")), amqp(jwtEvent("e1", "jti-1")), amqp([]byte("malformed")))
	for i, result := range results {
		if result.Fate != messaging.FateRetry || result.Err == nil {
			t.Errorf("%d is %+v", i, result)
		}
	}
	if len(order) != len(results) {
		t.Errorf("answered: %v", order)
	}
}

// What a source lists without a time creates and extends, and overturns nothing.
func TestIntakeOfWhatIsDecodedAlready(t *testing.T) {
	t.Parallel()
	r := follow(t, embedded(t))
	r.awaitReady(t)
	now := time.Now()
	lift := amqp(jwtEvent("e1", "jti-0"))
	lift.Subject = messaging.SubjectApproval
	r.takeAll(t, lift)
	list := messaging.Decoded{Source: messaging.SourceFullSync, State: revocation.Revoked, At: now}
	for i := range 2100 {
		e := token(fmt.Sprint("jti-", i), revocation.KindNone, "")
		e.Expiry, e.Lifetime = now.Add(2*time.Hour).UnixMilli(), revocation.Dated
		list.Events = append(list.Events, e)
	}
	list.Events[2099].Expiry = now.Add(-time.Hour).UnixMilli()
	for _, want := range []messaging.Tally{{Stored: 2099, Expired: 1}, {Duplicate: 2099, Expired: 1}} {
		if got, err := r.intake.Store(t.Context(), list); got != want || err != nil {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		r.settle(t)
	}
	if held := r.held(); held["jti-0"] != revocation.Approved || held["jti-1"] != revocation.Revoked || len(held) != 2099 {
		t.Errorf("%s and %s of %d", held["jti-0"], held["jti-1"], len(held))
	}
	if rec, _ := r.record(t, revocation.DomainToken, "jti-1"); rec.GetSource() != "full-sync" || rec.GetTimeMicros() != 0 {
		t.Errorf("stored %v", rec)
	}
	if n := r.metric(t, "events_total", "source", "full_sync", "kind", "token", "outcome", "duplicate"); n != 2099 {
		t.Errorf("%v duplicates are counted", n)
	}
}

func TestAFullLogTakesNoList(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	cfg.Limits.MaxLive = 1
	r := start(t, cfg)
	r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", "jti-1"))
	r.settle(t)
	list := messaging.Decoded{
		Source: messaging.SourceFullSync, State: revocation.Revoked, At: time.Now(),
		Events: []messaging.Event{token("jti-2", revocation.KindNone, "")},
	}
	if got, err := r.intake.Store(t.Context(), list); !errors.Is(err, messaging.ErrFull) || got != (messaging.Tally{}) {
		t.Errorf("got %+v, %v", got, err)
	}
}
