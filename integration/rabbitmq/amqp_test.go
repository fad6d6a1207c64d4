package rabbitmq_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rabbitmq/amqp091-go"
	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"revocation-adapter/integration/rabbitmq"
	"revocation-adapter/integration/stack"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 60 * time.Second

func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !happened() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// broker starts RabbitMQ for a test.
func broker(t *testing.T) *rabbitmq.Server {
	t.Helper()
	return brokerWith(t, rabbitmq.Options{Dir: t.TempDir()})
}

func brokerWith(t *testing.T, o rabbitmq.Options) *rabbitmq.Server {
	t.Helper()
	s, err := rabbitmq.Start(t.Context(), o)
	if errors.Is(err, rabbitmq.ErrMissing) && os.Getenv("CI") != "true" {
		t.Skipf("%v: run make deps", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// publisher publishes as API-M does.
type publisher struct {
	conn    *amqp091.Connection
	channel *amqp091.Channel
}

func publishTo(t *testing.T, s *rabbitmq.Server) *publisher {
	t.Helper()
	conn, err := s.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // lost, if the broker was killed
	channel, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return &publisher{conn, channel}
}

func (p *publisher) send(ctx context.Context, body string) error {
	return p.channel.PublishWithContext(ctx, "amq.topic", "tokenRevocation", false, false,
		amqp091.Publishing{ContentType: "text/plain", Body: []byte(body)})
}

func event(jti string) string {
	return fmt.Sprintf(`{"event":{"payloadData":{"eventId":"e-%s","revokedToken":%q,"ttl":"5000","expiryTime":%d,"type":"JWT","tenantId":-1234}}}`,
		jti, jti, time.Now().Add(time.Hour).UnixMilli())
}

// replica is a hub with its log, and AMQP sources.
type replica struct {
	hub     *messaging.Hub
	store   string
	log     *revocation.Log
	intake  *messaging.Intake
	sources *messaging.Sources
	text    *stack.Output
	reg     *prometheus.Registry
}

func startReplica(t *testing.T) *replica {
	t.Helper()
	return startReplicaOf(t, 1_000_000)
}

// startReplicaOf starts a replica whose log is full when it holds so many.
func startReplicaOf(t *testing.T, maxLive int) *replica {
	t.Helper()
	r := &replica{
		store: filepath.Join(t.TempDir(), "hub"), log: revocation.NewLog(time.Minute), text: &stack.Output{},
		reg: prometheus.NewRegistry(), sources: messaging.NewSources(time.Now),
	}
	log := logrus.New()
	log.SetOutput(r.text)
	var err error
	r.hub, err = messaging.Open(t.Context(), messaging.Config{
		Embedded: &messaging.EmbeddedConfig{Listen: "127.0.0.1:0", Store: r.store},
		Limits:   messaging.Limits{MaxLive: maxLive, MaxPending: 100_000, MaxPendingBytes: 64 << 20},
		Grace:    time.Minute, UnknownLife: time.Hour, PurgeInterval: time.Minute,
		MaxDeliveries: 10, Workers: 2, Log: log, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.hub.Close)
	measures := messaging.NewMetrics(r.reg)
	r.intake = messaging.NewIntake(r.hub, r.log, measures)
	follower := messaging.NewFollower(r.hub, r.log, measures)
	run(t, follower.Run)
	eventually(t, "the replica is ready", func() bool { return follower.NotReady() == "" })
	return r
}

// run runs a part until the test ends.
func run(t *testing.T, part func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- part(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("a part ended with: %v", err)
		}
	})
}

// listen runs an AMQP source, and returns its report and how often it connected.
func (r *replica) listen(t *testing.T, servers ...messaging.AMQPServer) (*messaging.Report, chan struct{}) {
	t.Helper()
	return r.listenTLS(t, nil, servers...)
}

func (r *replica) listenTLS(t *testing.T, cfg *tls.Config, servers ...messaging.AMQPServer) (*messaging.Report, chan struct{}) {
	t.Helper()
	connected := make(chan struct{}, 100)
	report := r.sources.Add(fmt.Sprint("amqp-", servers[0].Address))
	source, err := messaging.NewAMQP(messaging.AMQPConfig{
		Servers: servers, TLS: cfg, Workers: 2, Connected: func() { connected <- struct{}{} },
	}, r.intake, report)
	if err != nil {
		t.Fatal(err)
	}
	run(t, source.Run)
	return report, connected
}

func await(t *testing.T, what string, happened <-chan struct{}) {
	t.Helper()
	select {
	case <-happened:
	case <-time.After(patience):
		t.Fatalf("not within %s: %s", patience, what)
	}
}

func server(address string) messaging.AMQPServer {
	return messaging.AMQPServer{Address: address, User: "guest", Password: "guest", VHost: "/"}
}

func (r *replica) knows(jti string) bool {
	_, found := r.log.Lookup(jti)
	return found
}

func (r *replica) deadLetters(t *testing.T) (reasons []string) {
	t.Helper()
	conn, err := messaging.Dial(messaging.ExternalConfig{
		URLs: []string{"nats://" + r.hub.Address()}, NKey: messaging.OperatorKey(r.store),
	}, nats.Name("test"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for d, err := range messaging.DeadLetters(t.Context(), conn) {
		if err != nil {
			t.Fatal(err)
		}
		reasons = append(reasons, d.Reason)
	}
	return reasons
}

func TestAMQPEvents(t *testing.T) {
	b, r := broker(t), startReplica(t)
	report, connected := r.listen(t, server(b.Address))
	await(t, "connected", connected)
	p := publishTo(t, b)
	for _, body := range []string{event("one"), "not JSON", `{"event":{}}`, event("two"), event("one")} {
		if err := p.send(t.Context(), body); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "both are revoked", func() bool { return r.knows("one") && r.knows("two") })
	eventually(t, "both others are dead letters", func() bool { return len(r.deadLetters(t)) == 2 })
	eventually(t, "the report tells", func() bool { return report.Status().Events == 3 })
	s := report.Status()
	if !s.Connected || s.Server != b.Address || s.LastEvent == nil || s.Errors != 2 || s.Lag < 0 || s.Lag > patience.Seconds() {
		t.Errorf("got %+v", s)
	}
	if !strings.Contains(r.text.String(), "Event JWT is received") || strings.Contains(r.text.String(), "guest") {
		t.Errorf("logged: %s", r.text)
	}
}

// What the broker lost while it was away is for the full sync; what it delivers
// before and after, and what was delivered when it was killed, is stored.
func TestAMQPBrokerIsKilledWhilePublishing(t *testing.T) {
	b, r := broker(t), startReplica(t)
	report, connected := r.listen(t, server(b.Address))
	await(t, "connected", connected)
	p := publishTo(t, b)
	for i := range 5000 {
		if i == 4000 {
			eventually(t, "the first thousand is stored", func() bool { return r.knows("before-1000") })
			b.Kill()
		}
		if p.send(t.Context(), event(fmt.Sprint("before-", i))) != nil {
			break
		}
	}
	eventually(t, "the report tells that it is away", func() bool { return !report.Status().Connected })
	if s := report.Status(); s.Errors == 0 || s.LastError == "" {
		t.Errorf("got %+v", s)
	}
	if err := b.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, "connected again, and the full sync asked for", connected)
	p = publishTo(t, b)
	if err := p.send(t.Context(), event("after")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "events arrive again", func() bool { return r.knows("after") })
	if !report.Status().Connected {
		t.Error("the report does not tell that it is back")
	}
}

// Every server of a list gets its turn, as often as it says.
func TestAMQPFailover(t *testing.T) {
	b, r := broker(t), startReplica(t)
	away := server("127.0.0.1:1")
	away.Tries, away.Pause = 2, time.Millisecond
	wrong := server(b.Address)
	wrong.Password, wrong.Pause = "hunter2", time.Millisecond
	report, connected := r.listen(t, away, wrong, server(b.Address))
	await(t, "connected to the third", connected)
	if s := report.Status(); s.Server != b.Address || s.Errors != 3 {
		t.Errorf("got %+v", s)
	}
	if strings.Contains(r.text.String(), "hunter2") || strings.Contains(report.Status().LastError, "hunter2") {
		t.Errorf("the password is in the log: %s", r.text)
	}
}

func TestAMQPSeveralBrokers(t *testing.T) {
	one, two, r := broker(t), broker(t), startReplica(t)
	_, first := r.listen(t, server(one.Address))
	_, second := r.listen(t, server(two.Address))
	await(t, "the first is connected", first)
	await(t, "the second is connected", second)
	for jti, b := range map[string]*rabbitmq.Server{"of-one": one, "of-two": two} {
		if err := publishTo(t, b).send(t.Context(), event(jti)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "both are revoked", func() bool { return r.knows("of-one") && r.knows("of-two") })
	if n := len(r.sources.List()); n != 2 {
		t.Errorf("%d sources", n)
	}
}

// More than the prefetch arrives: what is stored is acknowledged.
func TestAMQPAcknowledgesWhatIsStored(t *testing.T) {
	b, r := broker(t), startReplica(t)
	_, connected := r.listen(t, server(b.Address))
	await(t, "connected", connected)
	const n = 10_000
	publishTo(t, b).many(t, n)
	eventually(t, "all are revoked", func() bool { return r.log.Snapshot().Counts().Revoked() == n })
	eventually(t, "all are acknowledged", func() bool { return unacknowledged(t, b) == 0 })
}

// What the log does not have is not acknowledged: the broker holds it, while the
// log is full.
func TestAMQPAcknowledgesNothingElse(t *testing.T) {
	b, r := broker(t), startReplicaOf(t, 100)
	_, connected := r.listen(t, server(b.Address))
	await(t, "connected", connected)
	const n = 6000
	publishTo(t, b).many(t, n)
	eventually(t, "the log is full, and tells", func() bool { return strings.Contains(r.text.String(), "The log is full") })
	eventually(t, "the rest is delivered", func() bool {
		stored := r.log.Snapshot().Counts().Revoked()
		held := unacknowledged(t, b)
		return stored >= 100 && stored < n && held > 0 && stored+held >= n
	})
}

func (p *publisher) many(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		if err := p.send(t.Context(), event(fmt.Sprint("many-", i))); err != nil {
			t.Fatal(err)
		}
	}
}

func unacknowledged(t *testing.T, b *rabbitmq.Server) int {
	t.Helper()
	n, err := b.Unacknowledged(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}
