package messaging_test

import (
	"encoding/json"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// anonymous connects without credentials and hands over what the server
// complains of.
func anonymous(t *testing.T, hub *messaging.Hub) (*nats.Conn, <-chan error) {
	t.Helper()
	complaints := make(chan error, 1000)
	conn, err := nats.Connect("nats://"+hub.Address(), nats.ErrorHandler(
		func(_ *nats.Conn, _ *nats.Subscription, err error) { complaints <- err }))
	fatal(t, err)
	t.Cleanup(conn.Close)
	return conn, complaints
}

func TestAnonymousClientsMayPublishRevocations(t *testing.T) {
	t.Parallel()
	r := prepare(t, embedded(t))
	conn, complaints := anonymous(t, r.hub)
	js, err := jetstream.New(conn)
	fatal(t, err)
	event := jwtEvent("e1", "jti-1")

	fatal(t, conn.Publish(messaging.SubjectRevocation, event))
	eventually(t, "the plain publish is captured", func() bool { return r.state(t, messaging.IngestStream).LastSeq == 1 })
	reply, err := conn.Request(messaging.SubjectRevocation, event, patience)
	fatal(t, err)
	var ack jetstream.PubAck
	if err := json.Unmarshal(reply.Data, &ack); err != nil || ack.Stream != messaging.IngestStream || ack.Sequence != 2 {
		t.Errorf("the request is answered with %s, %v", reply.Data, err)
	}
	published, err := js.Publish(t.Context(), messaging.SubjectRevocation, event)
	if err != nil || published.Stream != messaging.IngestStream || published.Sequence != 3 {
		t.Errorf("the JetStream publish is answered with %+v, %v", published, err)
	}
	future, err := js.PublishAsync(messaging.SubjectRevocation, event)
	fatal(t, err)
	select {
	case published := <-future.Ok():
		if published.Stream != messaging.IngestStream || published.Sequence != 4 {
			t.Errorf("the asynchronous publish is answered with %+v", published)
		}
	case err := <-future.Err():
		t.Errorf("the asynchronous publish is answered with %v", err)
	}
	sequence, err := messaging.Publish(t.Context(), conn, messaging.SubjectRevocation, messaging.Announcement{RevokedToken: "jti-1"})
	if err != nil || sequence != 5 {
		t.Errorf("Publish: %d, %v", sequence, err)
	}
	if len(complaints) > 0 {
		t.Errorf("the server complains: %v", <-complaints)
	}
}

func TestAnonymousClientsMayNothingElse(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", "jti-1"))
	r.publish(t, messaging.SubjectRevocation, []byte("malformed"))
	r.settle(t)
	before := r.everything(t)
	conn, complaints := anonymous(t, r.hub)
	stored := subject(revocation.DomainToken, "jti-1")
	for _, s := range []string{
		"tokenApproval", "tokenIssued", "tokenRevocation.x", "x.tokenRevocation", "TokenRevocation", "tokenrevocation",
		stored, "revoked.token.x", "revoked.x", "deadletter.tokenRevocation", "deadletter.x",
		"_INBOX.x", "_INBOX.x.y", "_R_.x", "foo", "x.y.z",
		"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.REVOCATIONS", "$JS.API.STREAM.CREATE.X",
		"$JS.API.STREAM.UPDATE.REVOCATIONS", "$JS.API.STREAM.PURGE.REVOCATIONS", "$JS.API.STREAM.DELETE.REVOCATIONS",
		"$JS.API.STREAM.PURGE.INGEST", "$JS.API.STREAM.MSG.GET.INGEST", "$JS.API.STREAM.MSG.GET.DEADLETTER",
		"$JS.API.STREAM.MSG.DELETE.DEADLETTER", "$JS.API.STREAM.SNAPSHOT.REVOCATIONS", "$JS.API.STREAM.RESTORE.X",
		"$JS.API.DIRECT.GET.REVOCATIONS", "$JS.API.CONSUMER.CREATE.INGEST.spy", "$JS.API.CONSUMER.DURABLE.CREATE.INGEST.spy",
		"$JS.API.CONSUMER.MSG.NEXT.INGEST.adapter", "$JS.API.CONSUMER.DELETE.INGEST.adapter",
		"$JS.API.CONSUMER.PAUSE.INGEST.adapter", "$JS.API.CONSUMER.NAMES.INGEST",
		"$JS.ACK.INGEST.adapter.1.1.1.1.0", "$JS.FC.x", "$JSC.R.x", "$KV.x.y", "$O.x.y",
		"$SYS.REQ.USER.INFO", "$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.ACCOUNT.HUB.CONNECT",
		"$SYS.REQ.CLAIMS.UPDATE", "$SYS.DEBUG.SUBSCRIBERS", "$G.x", "$MQTT.x", "$LDS.x", "$NRG.x",
	} {
		t.Run("publish to "+s, func(t *testing.T) {
			fatal(t, conn.PublishRequest(s, "_INBOX.mine", jwtEvent("e2", "jti-1")))
			refused(t, conn, complaints, s)
		})
	}
	for _, s := range []string{
		">", "*", "*.>", "tokenRevocation", "tokenApproval", "tokenIssued", "tokenRevocation.>", "revoked.>", stored,
		"deadletter.>", "_INBOX", "_R_.>", "_INBOX_.>", "$JS.>", "$JS.API.>", "$JS.EVENT.>", "$JS.ACK.>", "$JSC.>", "$SYS.>", "$KV.>",
		"$SYS.ACCOUNT.HUB.>", "foo",
	} {
		t.Run("subscribe to "+s, func(t *testing.T) {
			_, err := conn.SubscribeSync(s)
			fatal(t, err)
			refused(t, conn, complaints, s)
		})
		t.Run("subscribe in a group to "+s, func(t *testing.T) {
			_, err := conn.QueueSubscribeSync(s, "adapter")
			fatal(t, err)
			refused(t, conn, complaints, s)
		})
	}
	r.settle(t)
	if after := r.everything(t); !maps.Equal(before, after) {
		t.Errorf("the streams were\n%v\nand are\n%v", before, after)
	}
}

// refused checks that the server complains of a subject, and not only of one
// that comes after it and is refused for certain.
func refused(t *testing.T, conn *nats.Conn, complaints <-chan error, subject string) {
	t.Helper()
	fatal(t, conn.Publish("refused.for.certain", nil))
	for _, want := range []string{subject, "refused.for.certain"} {
		select {
		case err := <-complaints:
			if text := strings.ToLower(err.Error()); !strings.Contains(text, "permissions violation") ||
				!strings.Contains(text, `"`+strings.ToLower(want)+`"`) {
				t.Errorf("the server does not complain of %s, but: %v", want, err)
				return
			}
		case <-time.After(patience):
			t.Fatalf("the server does not complain of %s", want)
		}
	}
}

func TestOtherCredentialsAreNotAnonymous(t *testing.T) {
	t.Parallel()
	r := prepare(t, embedded(t))
	for name, opt := range map[string]nats.Option{
		"a password": nats.UserInfo("HUB", "HUB"),
		"a token":    nats.Token("HUB"),
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := nats.Connect("nats://"+r.hub.Address(), opt)
			if err == nil {
				conn.Close()
				t.Error("the client is let in")
			}
		})
	}
}

// In one account a spy on every inbox would read each event that the adapter
// is given.
func TestSpiesSeeNothingOfTheAdapter(t *testing.T) {
	t.Parallel()
	r := prepare(t, embedded(t))
	spy, complaints := anonymous(t, r.hub)
	var mu sync.Mutex
	var seen []string
	_, err := spy.Subscribe("_INBOX.>", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, m.Subject+" "+m.Reply+" "+string(m.Data))
	})
	fatal(t, err)
	fatal(t, spy.Flush())
	r.run(t, r.follower.Run, r.listener.Run)
	r.awaitReady(t)

	publisher, _ := anonymous(t, r.hub)
	fatal(t, publisher.Publish(messaging.SubjectRevocation, jwtEvent("e1", secret+"-1")))
	for _, jti := range []string{"-2", "-3"} {
		_, err = publisher.Request(messaging.SubjectRevocation, jwtEvent("e"+jti, secret+jti), patience)
		fatal(t, err)
	}
	fatal(t, publisher.Flush())
	eventually(t, "all are revoked", func() bool { return len(r.held()) == 3 })
	for range r.content(t, messaging.LogStream) { // the operator's replies are none of the spy's
		r.record(t, revocation.DomainToken, secret+"-1")
	}
	fatal(t, spy.Flush())

	mu.Lock()
	defer mu.Unlock()
	for _, s := range seen {
		if strings.Contains(s, secret) || !strings.Contains(s, `{"stream":"INGEST"`) {
			t.Errorf("the spy sees %s", s)
		}
	}
	if len(seen) != 2 {
		t.Errorf("the spy sees %d messages, want the 2 acknowledgements of the publisher: %v", len(seen), seen)
	}
	if len(complaints) > 0 {
		t.Errorf("the server complains: %v", <-complaints)
	}
}

// Permissions do not check replies: in one account the server would write its
// acknowledgement to them, over a stored revocation for instance.
func TestRepliesReachNoStream(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	event := jwtEvent("e1", "jti-1")
	r.publish(t, messaging.SubjectRevocation, event)
	r.publish(t, messaging.SubjectRevocation, []byte("malformed"))
	r.settle(t)
	before := r.everything(t)
	conn, complaints := anonymous(t, r.hub)
	replies := []string{
		subject(revocation.DomainToken, "jti-1"), "revoked.token.x",
		"tokenApproval", "tokenIssued", "tokenRevocation", "deadletter.x",
		"$JS.API.STREAM.PURGE.REVOCATIONS", "$JS.API.STREAM.DELETE.REVOCATIONS", "$JS.API.STREAM.PURGE.INGEST",
		"$JS.API.CONSUMER.DELETE.INGEST.adapter", "$SYS.REQ.SERVER.PING",
	}
	for _, reply := range replies {
		fatal(t, conn.PublishRequest(messaging.SubjectRevocation, reply, event))
	}
	fatal(t, conn.Flush())
	eventually(t, "every copy of the event is handled", func() bool {
		return r.metric(t, "events_total", "outcome", "duplicate") == float64(len(replies))
	})
	r.settle(t)
	after := r.everything(t)
	delete(before, messaging.IngestStream)
	delete(after, messaging.IngestStream)
	if !maps.Equal(before, after) {
		t.Errorf("the streams were\n%v\nand are\n%v", before, after)
	}
	if last := r.state(t, messaging.IngestStream).LastSeq; last != uint64(2+len(replies)) {
		t.Errorf("INGEST took %d events, want %d", last, 2+len(replies))
	}
	if len(complaints) > 0 {
		t.Errorf("the server complains: %v", <-complaints)
	}
	const ack = "$JS.ACK.INGEST.adapter.1.1.1.1.0" // nobody may acknowledge in the adapter's name
	fatal(t, conn.PublishRequest(messaging.SubjectRevocation, ack, event))
	refused(t, conn, complaints, ack)
}

// Headers tell JetStream what to do: none of them may touch other events.
func TestHeadersOfPublishersDoNothing(t *testing.T) {
	t.Parallel()
	r := prepare(t, embedded(t))
	conn, _ := anonymous(t, r.hub)
	r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", "jti-1"))
	before := r.content(t, messaging.IngestStream)
	for header, value := range map[string]string{
		"Nats-Rollup": "all", "Nats-TTL": "1", "Nats-Schedule": "@every 1s", "Nats-Batch-Id": "x", "Nats-Incr": "+1",
	} {
		t.Run(header, func(t *testing.T) {
			msg := &nats.Msg{Subject: messaging.SubjectRevocation, Data: jwtEvent("e2", "jti-2"), Header: nats.Header{}}
			msg.Header.Set(header, value)
			reply, err := conn.RequestMsg(msg, patience)
			fatal(t, err)
			if !strings.Contains(string(reply.Data), `"error"`) {
				t.Errorf("taken: %s", reply.Data)
			}
			if after := r.content(t, messaging.IngestStream); !maps.Equal(before, after) {
				t.Errorf("INGEST was %v and is %v", before, after)
			}
		})
	}
}

// everything is the state and the content of each stream, by its name.
func (r *replica) everything(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	names := r.js.StreamNames(t.Context())
	for name := range names.Name() {
		state := r.state(t, name)
		state.Consumers = 0 // the ordered ones come and go
		text, err := json.Marshal([]any{state, r.content(t, name)})
		fatal(t, err)
		all[name] = string(text)
	}
	fatal(t, names.Err())
	return all
}

// Anybody can make the server say that something was denied: that must not fill
// the log.
func TestDenialsDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	conn, _ := anonymous(t, r.hub)
	for range 500 {
		fatal(t, conn.Publish("revoked.token.x", nil))
	}
	fatal(t, conn.Flush())
	eventually(t, "it is said", func() bool { return len(r.book.find(logrus.WarnLevel, "Hub: ")) > 0 })
	if n := len(r.book.find(logrus.WarnLevel, "Hub: ")); n > 12 || len(r.book.find(logrus.ErrorLevel, "")) > 0 {
		t.Errorf("%d warnings:\n%s", n, r.book.text())
	}
}
