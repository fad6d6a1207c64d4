package integration_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// The roles of resources/conf/nats-cluster.conf on a cluster started from it:
// each can do its own job, through to the gateways, and nothing else.
func TestHubRoles(t *testing.T) {
	t.Parallel() // it waits for elections
	h := startHub(t)
	a := adapterOf(t, h.as("operator"))
	a.start(t)
	a.awaitReady(t)
	g := connectGateway(t, a, delta, "")
	r := roles{h, a, g}
	operator, _ := h.connect(t, "operator")
	for name, test := range map[string]func(*testing.T, *nats.Conn){
		"publishers revoke":                r.publishersRevoke,
		"approvers revoke and approve":     r.approversApprove,
		"the command line of an approver":  r.approverCommands,
		"nobody else is let in":            r.strangersStayOut,
		"bad credentials are said at once": r.badCredentials,
		"the rest is refused":              r.restIsRefused,
		"spies see nothing":                r.spiesSeeNothing,
		"replies reach no stream":          r.repliesReachNothing,
		"the store is encrypted":           r.storeIsEncrypted,
	} {
		t.Run(name, func(t *testing.T) { test(t, operator) })
	}
	t.Run("a server that lost its store gets it back", func(t *testing.T) { r.replaceServer(t, operator) })
	t.Run("a server that does not answer is left", func(t *testing.T) { r.leaveServer(t) })
	t.Run("a backup is restored", func(t *testing.T) { r.restoreBackup(t, operator) })
}

// The file as it stands is refused, whatever else an operator has filled in; and
// what it says reaches the server.
func TestHubConfiguration(t *testing.T) {
	h := &hubCluster{dir: t.TempDir(), seeds: map[string]string{}}
	text := h.fillIn(t)
	for name, value := range map[string]string{
		"NODE_NAME": "n0", "NODE_LISTEN": "127.0.0.1:4222", "NODE_HTTP": "127.0.0.1:8222", "NODE_STORE": h.dir,
		"NODE_CLUSTER": "127.0.0.1:6222", "NODE_ROUTES": "[]", "HUB_STORE_KEY": storeKey,
	} {
		t.Setenv(name, value)
	}
	read := func(text string) (*server.Options, error) {
		path := filepath.Join(h.dir, "server.conf")
		must(t, os.WriteFile(path, []byte(text), 0o600))
		return server.ProcessConfigFile(path)
	}
	opts, err := read(text)
	must(t, err)
	if opts.JetStreamKey != storeKey || opts.JetStreamCipher != server.AES || !opts.SyncAlways ||
		opts.StreamMaxBufferedMsgs != 1_000_000 || opts.StreamMaxBufferedSize != 1<<30 ||
		opts.TLSConfig == nil || opts.Cluster.TLSConfig.ClientAuth != tls.RequireAndVerifyClientCert || opts.NoAuthUser != "" {
		t.Errorf("the server reads %+v", opts)
	}
	for role, seed := range h.seeds {
		if _, err := read(strings.Replace(text, publicKey(t, seed), "REPLACE_"+strings.ToUpper(role), 1)); err == nil || !strings.Contains(err.Error(), "nkey") {
			t.Errorf("without the key of %s: %v", role, err)
		}
	}
}

type roles struct {
	hub     *hubCluster
	adapter *adapter
	gateway *gateway
}

// settle waits until the adapter has handled every event.
func (r roles) settle(t *testing.T, operator *nats.Conn) {
	t.Helper()
	eventually(t, "every event is handled", func() bool { _, waiting := ingest(t, operator); return waiting == 0 })
}

func (r roles) publishersRevoke(t *testing.T, _ *nats.Conn) {
	for i, url := range r.hub.urls() { // the leader of INGEST is one of them
		conn, complaints := r.hub.connect(t, "publisher", func(o *nats.Options) error { o.Servers = []string{url}; return nil })
		js, err := jetstream.New(conn)
		must(t, err)
		plain, asked, stored := fmt.Sprint("plain-", i), fmt.Sprint("asked-", i), fmt.Sprint("stored-", i)
		must(t, conn.Publish("tokenRevocation", []byte(envelope(event(plain, inAnHour())))))
		reply, err := conn.Request("tokenRevocation", []byte(envelope(event(asked, inAnHour()))), patience)
		must(t, err)
		var ack jetstream.PubAck
		if err := json.Unmarshal(reply.Data, &ack); err != nil || ack.Stream != messaging.IngestStream {
			t.Errorf("the request is answered with %s", reply.Data)
		}
		if ack, err := js.Publish(t.Context(), "tokenRevocation", []byte(envelope(event(stored, inAnHour())))); err != nil || ack.Stream != messaging.IngestStream {
			t.Errorf("the JetStream publish is answered with %+v, %v", ack, err)
		}
		r.gateway.awaits(t, plain, asked, stored)
		if len(complaints) > 0 {
			t.Errorf("the server complains: %v", <-complaints)
		}
	}
	if !strings.Contains(r.adapter.log.String(), "Event JWT is received") {
		t.Error("the adapter does not log the events")
	}
}

func (r roles) approversApprove(t *testing.T, _ *nats.Conn) {
	conn, complaints := r.hub.connect(t, "approver")
	tell := func(subject, id string) {
		t.Helper()
		payload := strings.Replace(event("back", inAnHour()), `"e-back"`, `"`+id+`"`, 1)
		_, err := conn.Request(subject, []byte(envelope(payload)), patience)
		must(t, err)
	}
	tell("tokenRevocation", "back-1")
	r.gateway.awaits(t, "back")
	tell("tokenApproval", "back-2")
	eventually(t, "it is approved", func() bool { return !r.gateway.holds("back") })
	if len(complaints) > 0 {
		t.Errorf("the server complains: %v", <-complaints)
	}
}

// The command line needs no more than an approver, but for dead letters.
func (r roles) approverCommands(t *testing.T, _ *nats.Conn) {
	a := adapterOf(t, r.hub.as("approver"))
	for _, tt := range []struct {
		code int
		args []string
	}{
		{0, []string{"revoke", "by-command"}},
		{0, []string{"approve", "by-command"}},
		{3, []string{"deadletter", "list"}},
	} {
		if code, out, errOut := a.run(t, tt.args...); code != tt.code {
			t.Errorf("%s: exit %d, %s%s", tt.args, code, out, errOut)
		}
	}
}

func (r roles) strangersStayOut(t *testing.T, _ *nats.Conn) {
	for name, opt := range map[string]nats.Option{
		"without credentials": nats.Name("stranger"),
		"with a token":        nats.Token("HUB"),
		"by name":             nats.UserInfo("operator", ""),
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := messaging.Dial(messaging.ExternalConfig{URLs: r.hub.urls(), CA: r.hub.as("operator").CA}, opt)
			if err == nil {
				conn.Close()
				t.Error("the client is let in")
			}
		})
	}
}

// The adapter and its command line say at once that the hub does not know them.
func (r roles) badCredentials(t *testing.T, _ *nats.Conn) {
	h := &hubCluster{Cluster: r.hub.Cluster, dir: t.TempDir(), seeds: map[string]string{}}
	h.newKey(t, "stranger")
	seed, err := os.ReadFile(h.seeds["stranger"])
	must(t, err)
	write := func(name, text string) string {
		path := filepath.Join(h.dir, name)
		must(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	const refuses = "the hub refuses the credentials"
	for _, tt := range []struct {
		name string
		ext  messaging.ExternalConfig
		code int
		says string
	}{
		{"a wrong password", messaging.ExternalConfig{User: "publisher", Password: "wrong"}, 3, refuses + " (user publisher)"},
		{"an unknown nkey", messaging.ExternalConfig{NKey: h.seeds["stranger"]}, 3, refuses + " (nkey "},
		{"a damaged nkey", messaging.ExternalConfig{NKey: write("damaged.nk", string(seed[:40]))}, 2, "damaged.nk"},
		{"unknown .creds", messaging.ExternalConfig{Credentials: write("unknown.creds",
			"-----BEGIN NATS USER JWT-----\neyJhbGciOiJub25lIn0.e30.x\n------END NATS USER JWT------\n\n"+
				"-----BEGIN USER NKEY SEED-----\n"+string(seed)+"\n------END USER NKEY SEED------\n")}, 3, refuses + " (credentials "},
		{"damaged .creds", messaging.ExternalConfig{Credentials: write("damaged.creds", "damaged")}, 2, "damaged.creds"},
	} {
		tt.ext.URLs, tt.ext.CA = r.hub.urls(), r.hub.as("operator").CA
		for _, command := range []string{"run", "revoke", "deadletter"} {
			t.Run(tt.name+", "+command, func(t *testing.T) {
				args := map[string][]string{"revoke": {"revoke", "x"}, "deadletter": {"deadletter", "list"}, "run": {"run"}}[command]
				began := time.Now()
				code, _, errOut := adapterOf(t, tt.ext).run(t, args...)
				if took := time.Since(began); code != tt.code || took > 8*time.Second || !strings.Contains(errOut, tt.says) {
					t.Errorf("exit %d (want %d) after %s: %s", code, tt.code, took, errOut)
				}
			})
		}
	}
}

// What no role may do; what it may is left out.
var (
	forbiddenPublishes = []string{
		"tokenIssued", "tokenRevocation.x", "x.tokenRevocation", "TokenRevocation", "tokenApproval.x",
		"revoked.token.x", "revoked.x", "deadletter.tokenRevocation", "_INBOX.x", "_R_.x", "anything",
		"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.CREATE.X", "$JS.API.STREAM.UPDATE.REVOCATIONS",
		"$JS.API.STREAM.PURGE.REVOCATIONS", "$JS.API.STREAM.DELETE.REVOCATIONS", "$JS.API.STREAM.PURGE.INGEST",
		"$JS.API.STREAM.MSG.GET.INGEST", "$JS.API.STREAM.MSG.GET.DEADLETTER", "$JS.API.STREAM.MSG.DELETE.DEADLETTER",
		"$JS.API.STREAM.SNAPSHOT.REVOCATIONS", "$JS.API.STREAM.RESTORE.X", "$JS.API.STREAM.LEADER.STEPDOWN.REVOCATIONS",
		"$JS.API.META.LEADER.STEPDOWN", "$JS.API.SERVER.REMOVE", "$JS.API.DIRECT.GET.REVOCATIONS",
		"$JS.API.CONSUMER.CREATE.INGEST.spy", "$JS.API.CONSUMER.MSG.NEXT.INGEST.adapter",
		"$JS.API.CONSUMER.DELETE.INGEST.adapter", "$JS.API.CONSUMER.PAUSE.INGEST.adapter",
		"$JS.ACK.INGEST.adapter.1.1.1.1.0", "$JS.FC.x", "$JSC.R.x", "$NRG.x", "$KV.x.y", "$KV.GATEWAYS.replica.x", "adapter.receipt", "adapter.gateways", "$SRV.PING", "$O.x.y",
		"$SYS.REQ.USER.INFO", "$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.ACCOUNT.HUB.CONNECT",
		"$SYS.REQ.CLAIMS.UPDATE", "$SYS.DEBUG.SUBSCRIBERS", "$G.x", "$MQTT.x",
	}
	forbiddenSubscriptions = []string{
		">", "*", "*.>", "tokenRevocation", "tokenApproval", "tokenIssued", "tokenRevocation.>", "revoked.>", "deadletter.>",
		"_INBOX", "_R_.>", "$JS.>", "$JS.API.>", "$JS.EVENT.>", "$JS.ACK.>", "$JSC.>", "$SYS.>", "$NRG.>", "$KV.>", "$SRV.>", "adapter.>",
	}
)

func (r roles) restIsRefused(t *testing.T, operator *nats.Conn) {
	stored := "revoked.token." + revocation.DigestOf(revocation.DomainToken, "guarded").String()
	for role, more := range map[string]struct{ publish, subscribe []string }{
		"publisher": {publish: []string{"tokenApproval", stored}},
		"approver":  {publish: []string{stored}},
		"gateway":   {publish: []string{"tokenRevocation", "tokenApproval", stored}, subscribe: []string{"_INBOX.>", "_INBOX.x"}},
	} {
		t.Run(role, func(t *testing.T) {
			r.settle(t, operator)
			before := contents(t, operator)
			given, _ := ingest(t, operator)
			conn, complaints := r.hub.connect(t, role)
			var want []string
			for _, s := range slices.Concat(forbiddenPublishes, more.publish) {
				must(t, conn.PublishRequest(s, "_INBOX.mine", []byte(envelope(event("forged", inAnHour())))))
				want = append(want, fmt.Sprintf("publish to %q", s))
			}
			for _, s := range slices.Concat(forbiddenSubscriptions, more.subscribe) {
				_, err := conn.SubscribeSync(s)
				must(t, err)
				_, err = conn.QueueSubscribeSync(s, "adapter")
				must(t, err)
				want = append(want, fmt.Sprintf("subscription to %q", s), fmt.Sprintf("subscription to %q using queue", s))
			}
			refused(t, conn, complaints, want)
			if now, _ := ingest(t, operator); now != given || !maps.Equal(before, contents(t, operator)) {
				t.Errorf("INGEST was given %d and then %d events; the streams were\n%v\nand are\n%v", given, now, before, contents(t, operator))
			}
		})
	}
}

// refused checks that the server complains of each attempt, and of nothing else.
func refused(t *testing.T, conn *nats.Conn, complaints <-chan error, want []string) {
	t.Helper()
	must(t, conn.Flush())
	eventually(t, fmt.Sprint(len(want), " complaints"), func() bool { return len(complaints) >= len(want) })
	var got []string
	for range len(complaints) {
		got = append(got, strings.ToLower((<-complaints).Error()))
	}
	for _, attempt := range want {
		if !slices.ContainsFunc(got, func(s string) bool {
			return strings.Contains(s, "permissions violation") && strings.Contains(s, strings.ToLower(attempt))
		}) {
			t.Errorf("the server does not complain of a %s: %v", attempt, got)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d complaints of %d attempts: %v", len(got), len(want), got)
	}
}

// A spy on every inbox sees the answers of its own account, and no event.
func (r roles) spiesSeeNothing(t *testing.T, operator *nats.Conn) {
	seen := make(chan *nats.Msg, 1000)
	var spies []*nats.Conn
	for _, role := range []string{"publisher", "approver"} {
		spy, _ := r.hub.connect(t, role)
		_, err := spy.ChanSubscribe("_INBOX.>", seen)
		must(t, err)
		must(t, spy.Flush())
		spies = append(spies, spy)
	}
	publisher, _ := r.hub.connect(t, "publisher")
	must(t, publisher.Publish("tokenRevocation", []byte(envelope(event("spied-1", inAnHour())))))
	_, err := publisher.Request("tokenRevocation", []byte(envelope(event("spied-2", inAnHour()))), patience)
	must(t, err)
	r.gateway.awaits(t, "spied-1", "spied-2")
	contents(t, operator) // what the operator is answered is none of theirs
	for _, spy := range spies {
		must(t, spy.Flush())
	}
	if len(seen) != 1 {
		t.Errorf("the spies see %d messages, want the publisher's one answer", len(seen))
	}
	for range len(seen) {
		if msg := <-seen; !strings.Contains(string(msg.Data), `{"stream":"INGEST"`) || bytes.Contains(msg.Data, []byte("spied")) {
			t.Errorf("the spy sees %s", msg.Data)
		}
	}
}

// The server answers to whatever reply a publisher names, within its account. An
// answer to what a role may publish itself is an event like any other.
func (r roles) repliesReachNothing(t *testing.T, operator *nats.Conn) {
	publisher, _ := r.hub.connect(t, "publisher")
	payload := []byte(envelope(event("guarded", inAnHour())))
	_, err := publisher.Request("tokenRevocation", payload, patience)
	must(t, err)
	r.gateway.awaits(t, "guarded")
	replies := []string{
		"revoked.token." + revocation.DigestOf(revocation.DomainToken, "guarded").String(), "revoked.token.x",
		"tokenApproval", "tokenIssued", "tokenRevocation", "deadletter.x",
		"$JS.API.STREAM.PURGE.REVOCATIONS", "$JS.API.STREAM.DELETE.REVOCATIONS", "$JS.API.STREAM.PURGE.INGEST",
		"$JS.API.CONSUMER.DELETE.INGEST.adapter", "$JS.API.META.LEADER.STEPDOWN", "$SYS.REQ.SERVER.PING",
	}
	for role, subjects := range map[string][]string{
		"publisher": {"tokenRevocation"}, "approver": {"tokenRevocation", "tokenApproval"},
	} {
		for _, subject := range subjects {
			t.Run(role+" on "+subject, func(t *testing.T) {
				conn, complaints := r.hub.connect(t, role)
				r.settle(t, operator)
				before := contents(t, operator)
				given, _ := ingest(t, operator)
				replies := slices.DeleteFunc(slices.Clone(replies), func(s string) bool { return slices.Contains(subjects, s) })
				for _, reply := range replies {
					must(t, conn.PublishRequest(subject, reply, payload)) // a duplicate: it changes nothing
				}
				must(t, conn.Flush())
				eventually(t, "every copy is taken", func() bool { now, _ := ingest(t, operator); return now >= given+uint64(len(replies)) })
				r.settle(t, operator)
				if now, _ := ingest(t, operator); now != given+uint64(len(replies)) {
					t.Errorf("INGEST was given %d events, want %d", now-given, len(replies))
				}
				if after := contents(t, operator); !maps.Equal(before, after) {
					t.Errorf("the streams were\n%v\nand are\n%v", before, after)
				}
				if len(complaints) > 0 {
					t.Errorf("the server complains: %v", <-complaints)
				}
				const ack = "$JS.ACK.INGEST.adapter.1.1.1.1.0" // nobody may acknowledge in the adapter's name
				must(t, conn.PublishRequest(subject, ack, payload))
				refused(t, conn, complaints, []string{fmt.Sprintf("%q", ack)})
			})
		}
	}
}

func (r roles) storeIsEncrypted(t *testing.T, operator *nats.Conn) {
	publisher, _ := r.hub.connect(t, "publisher")
	const jti = "planted-9d1f27c4"
	_, err := publisher.Request("tokenRevocation", []byte(envelope(event(jti, inAnHour()))), patience)
	must(t, err)
	r.gateway.awaits(t, jti)
	r.settle(t, operator)
	for node := range r.hub.URLs() {
		log, err := os.ReadFile(r.hub.Log(node))
		must(t, err)
		if !bytes.Contains(log, []byte("Encryption:      AES-GCM")) || bytes.Contains(log, []byte(jti)) {
			t.Errorf("log of %s:\n%s", r.hub.Name(node), log)
		}
		files := 0
		must(t, filepath.WalkDir(filepath.Join(r.hub.dir, r.hub.Name(node)), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			files++
			data, err := os.ReadFile(path)
			if bytes.Contains(data, []byte(jti)) {
				t.Errorf("a token is in the clear in %s", path)
			}
			return err
		}))
		if files == 0 {
			t.Errorf("%s stores nothing", r.hub.Name(node))
		}
	}
}
