package messaging_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"revocation-adapter/messaging"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// TestMain looks for goroutines that are left. A NATS server that has stopped now
// and then leaves one of a store that was removed or written at that moment.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*msgBlock).flushLoop"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

const (
	grace    = 10 * time.Minute
	patience = time.Minute // with what must happen at some time
)

// eventually waits until happened says so.
func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	late := time.NewTimer(patience)
	defer late.Stop()
	for !happened() {
		select {
		case <-again.C:
		case <-late.C:
			t.Fatalf("after %s still not: %s", patience, what)
		}
	}
}

// fatal ends the test on an error.
func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func config() messaging.Config {
	return messaging.Config{
		Limits: messaging.Limits{MaxLive: 1_000_000, MaxPending: 100_000, MaxPendingBytes: 64 << 20},
		Grace:  grace, UnknownLife: 90 * 24 * time.Hour, PurgeInterval: time.Minute,
		MaxDeliveries: 10, Workers: 4, Now: time.Now, Rules: rules(),
	}
}

// rules are those of the default configuration.
func rules() messaging.Rules {
	return messaging.Rules{
		ClientClaim: "azp", UserClaim: "sub", MaxLifetime: 90 * 24 * time.Hour,
		Claims: []string{"sub", "azp", "client_id", "sid", "origin_jti"},
	}
}

// embedded configures a hub with a server and a new store of its own.
func embedded(t *testing.T) messaging.Config {
	t.Helper()
	cfg := config()
	cfg.Embedded = &messaging.EmbeddedConfig{Listen: "127.0.0.1:0", Store: filepath.Join(t.TempDir(), "hub")}
	return cfg
}

// external configures a hub at a NATS server without authentication.
func external(s *server.Server) messaging.Config {
	cfg := config()
	cfg.External = messaging.ExternalConfig{URLs: []string{s.ClientURL()}, Replicas: 1}
	return cfg
}

// standalone starts a NATS server that knows nothing of ours, on a store and a
// port that it may have had before; -1 is any port.
func standalone(t *testing.T, store string, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		ServerName: "standalone", Host: "127.0.0.1", Port: port,
		JetStream: true, StoreDir: store, NoLog: true, NoSigs: true,
	})
	fatal(t, err)
	s.Start()
	t.Cleanup(func() { shutdown(s) })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the standalone server is not ready")
	}
	return s
}

// portOf is where a server listens or did.
func portOf(t *testing.T, s *server.Server) int {
	t.Helper()
	u, err := url.Parse(s.ClientURL())
	fatal(t, err)
	port, err := strconv.Atoi(u.Port())
	fatal(t, err)
	return port
}

// sameHub configures another replica at the replica's embedded hub.
func (r *replica) sameHub() messaging.Config {
	cfg := r.cfg
	cfg.Embedded, cfg.External = nil, messaging.ExternalConfig{
		URLs: []string{"nats://" + r.hub.Address()}, NKey: messaging.OperatorKey(r.cfg.Embedded.Store), Replicas: 1,
	}
	return cfg
}

func shutdown(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// replica is an adapter without its way out.
type replica struct {
	cfg      messaging.Config
	hub      *messaging.Hub
	log      *revocation.Log
	follower *messaging.Follower
	intake   *messaging.Intake
	listener *messaging.Listener
	reg      *prometheus.Registry
	book     *logbook
	conn     *nats.Conn // the operator's
	js       jetstream.JetStream
	stop     func() // stops what runs, and waits; the hub stays open
}

// start runs a replica until the test ends, and returns when it is ready.
func start(t *testing.T, cfg messaging.Config) *replica {
	t.Helper()
	r := prepare(t, cfg)
	r.run(t, r.follower.Run, r.listener.Run)
	r.awaitReady(t)
	return r
}

// follow runs a replica that only reads.
func follow(t *testing.T, cfg messaging.Config) *replica {
	t.Helper()
	r := prepare(t, cfg)
	r.run(t, r.follower.Run)
	return r
}

// prepare opens the hub and runs nothing.
func prepare(t *testing.T, cfg messaging.Config) *replica {
	t.Helper()
	r := &replica{reg: prometheus.NewRegistry(), log: revocation.NewLog(cfg.Grace), stop: func() {}}
	r.book, cfg.Log = newLogbook(t)
	r.cfg = cfg
	var err error
	r.hub, err = messaging.Open(t.Context(), cfg)
	fatal(t, err)
	t.Cleanup(r.hub.Close)
	ext := cfg.External
	if cfg.Embedded != nil {
		ext = r.sameHub().External
	}
	r.conn, err = messaging.Dial(ext)
	fatal(t, err)
	t.Cleanup(r.conn.Close)
	r.js, err = jetstream.New(r.conn)
	fatal(t, err)
	measures := messaging.NewMetrics(r.reg)
	r.reg.MustRegister(messaging.NewCollector(r.hub, r.log))
	r.follower = messaging.NewFollower(r.hub, r.log, measures)
	r.intake = messaging.NewIntake(r.hub, r.log, measures)
	r.listener = messaging.NewListener(r.intake)
	return r
}

// run runs parts until stop or the end of the test.
func (r *replica) run(t *testing.T, parts ...func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, len(parts))
	for _, part := range parts {
		go func() { ended <- part(ctx) }()
	}
	r.stop = sync.OnceFunc(func() {
		cancel()
		for range parts {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("a part of the replica ended with: %v", err)
			}
		}
	})
	t.Cleanup(r.stop)
}

// close stops the replica and gives its store back.
func (r *replica) close() {
	r.stop()
	r.conn.Close()
	r.hub.Close()
}

func (r *replica) awaitReady(t *testing.T) {
	t.Helper()
	eventually(t, "the replica is ready", func() bool { return r.follower.NotReady() == "" })
}

// settle waits until every event is answered and every record applied.
func (r *replica) settle(t *testing.T) {
	t.Helper()
	eventually(t, "every event is answered", func() bool {
		return r.state(t, messaging.IngestStream).Msgs == 0
	})
	eventually(t, "every record is applied", func() bool {
		return r.version() == r.state(t, messaging.LogStream).LastSeq
	})
}

func (r *replica) version() uint64 { return r.log.Snapshot().Version() }

// held is what the log says of every key that it knows.
func (r *replica) held() map[string]revocation.State {
	held := map[string]revocation.State{}
	for c := range r.log.Snapshot().Since(0, r.cfg.Now()) {
		held[c.Name()] = c.State
	}
	return held
}

func (r *replica) stream(t *testing.T, name string) jetstream.Stream {
	t.Helper()
	s, err := r.js.Stream(t.Context(), name)
	fatal(t, err)
	return s
}

func (r *replica) state(t *testing.T, stream string) jetstream.StreamState {
	t.Helper()
	return r.stream(t, stream).CachedInfo().State
}

// content is every message of a stream, by its sequence.
func (r *replica) content(t *testing.T, stream string) map[uint64]string {
	t.Helper()
	s, content := r.stream(t, stream), map[uint64]string{}
	for next := uint64(1); ; {
		msg, err := s.GetMsg(t.Context(), next, jetstream.WithGetMsgSubject(">"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return content
		}
		fatal(t, err)
		content[msg.Sequence] = fmt.Sprintf("%s %v %s", msg.Subject, msg.Header, msg.Data)
		next = msg.Sequence + 1
	}
}

// record reads the stored record of a key.
func (r *replica) record(t *testing.T, d revocation.Domain, key string) (*revocationv1.Record, *jetstream.RawStreamMsg) {
	t.Helper()
	msg, err := r.stream(t, messaging.LogStream).GetLastMsgForSubject(t.Context(), subject(d, key))
	fatal(t, err)
	rec := &revocationv1.Record{}
	fatal(t, proto.Unmarshal(msg.Data, rec))
	return rec, msg
}

func (r *replica) deadLetters(t *testing.T) []messaging.DeadLetter {
	t.Helper()
	var letters []messaging.DeadLetter
	for d, err := range messaging.DeadLetters(t.Context(), r.conn) {
		fatal(t, err)
		letters = append(letters, d)
	}
	return letters
}

func subject(d revocation.Domain, key string) string {
	return "revoked." + d.String() + "." + revocation.DigestOf(d, key).String()
}

// publish stores an event in INGEST.
func (r *replica) publish(t *testing.T, subject string, event []byte) {
	t.Helper()
	_, err := r.js.Publish(t.Context(), subject, event)
	fatal(t, err)
}

// store writes a record as another adapter would.
func (r *replica) store(t *testing.T, rec *revocationv1.Record, opts ...jetstream.PublishOpt) uint64 {
	t.Helper()
	data, err := proto.Marshal(rec)
	fatal(t, err)
	to := "revoked." + revocation.Domain(rec.GetDomain()).String() + "." + revocation.Digest(rec.GetDigest()).String() // a valid one
	ack, err := r.js.Publish(t.Context(), to, data, opts...)
	fatal(t, err)
	return ack.Sequence
}

// revokedRecord is the record of a jti that was revoked.
func revokedRecord(jti string, expiry time.Time) *revocationv1.Record {
	digest := revocation.DigestOf(revocation.DomainToken, jti)
	return &revocationv1.Record{
		Format: 1, Domain: revocationv1.Domain_DOMAIN_TOKEN, Key: jti, Digest: digest[:],
		State: revocationv1.State_STATE_REVOKED, Kind: revocationv1.Kind_KIND_JWT,
		ExpiryMillis: expiry.UnixMilli(), Lifetime: revocationv1.Lifetime_LIFETIME_DATED,
		TimeMicros: time.Now().UnixMicro(), Source: "nats",
	}
}

// fields are the members of payloadData.
type fields map[string]any

func (f fields) event() []byte {
	data, err := json.Marshal(map[string]any{"event": map[string]any{"payloadData": f}})
	if err != nil {
		panic(err)
	}
	return data
}

// jwtEvent is an event of a JWT that expires in an hour.
func jwtEvent(id, jti string) []byte {
	return fields{"eventId": id, "revokedToken": jti, "type": "JWT", "expiryTime": inAnHour()}.event()
}

func inAnHour() int64 { return time.Now().Add(time.Hour).UnixMilli() }

func inTwoHours() time.Time { return time.Now().Add(2 * time.Hour) }
