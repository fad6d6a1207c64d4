package messaging_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"

	"revocation-adapter/messaging"
)

// member is a replica that takes part in questions.
type member struct {
	*messaging.Replicas
	hub      *messaging.Hub
	gateways atomic.Pointer[map[string][]byte]
	stop     func()
}

// echo answers with the replica's name and what was asked.
func echo(name string) messaging.Question {
	return func(_ context.Context, data []byte) ([]byte, error) {
		return fmt.Appendf(nil, "%s heard %s", name, data), nil
	}
}

// join starts a replica's part of a hub until the test ends. Questions are
// answered by echo, unless others are given.
func join(t *testing.T, cfg messaging.Config, name string, change ...func(*messaging.ReplicasConfig)) *member {
	t.Helper()
	logger, _ := logrustest.NewNullLogger()
	cfg.Log = logger
	hub, err := messaging.Open(t.Context(), cfg)
	fatal(t, err)
	m := &member{hub: hub}
	m.gateways.Store(&map[string][]byte{})
	rc := messaging.ReplicasConfig{
		Name: name, Memory: time.Minute, Log: logrus.FieldLogger(logger),
		Present:   func() map[string][]byte { return *m.gateways.Load() },
		Questions: map[string]messaging.Question{"echo": echo(name)},
	}
	for _, f := range change {
		f(&rc)
	}
	m.Replicas, err = messaging.NewReplicas(hub, rc)
	fatal(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stopped := false
	m.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Run of %s returned %v", name, err)
			}
		case <-time.After(patience):
			t.Errorf("Run of %s does not end", name)
		}
		hub.Close()
	}
	t.Cleanup(m.stop)
	return m
}

func (m *member) has(names ...string) {
	all := map[string][]byte{}
	for _, name := range names {
		all[name] = fmt.Appendf(nil, `{"of":%q}`, m.Name())
	}
	m.gateways.Store(&all)
}

// ask asks within a time.
func (m *member) ask(t *testing.T, within time.Duration) (answers []string, silent []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	all, silent, err := m.Ask(ctx, "echo", []byte("hello"))
	fatal(t, err)
	for _, a := range all {
		answers = append(answers, a.Replica+": "+string(a.Data))
	}
	return answers, silent
}

func (m *member) knows(t *testing.T, names ...string) {
	t.Helper()
	eventually(t, fmt.Sprint(m.Name(), " knows ", names), func() bool { return slices.Equal(m.Known(), names) })
}

func three(t *testing.T, change ...func(*messaging.ReplicasConfig)) []*member {
	t.Helper()
	s := standalone(t, t.TempDir(), -1)
	var all []*member
	for _, name := range []string{"r1", "r2", "r3"} {
		all = append(all, join(t, external(s), name, change...))
	}
	for _, m := range all {
		m.knows(t, "r1", "r2", "r3")
	}
	return all
}

func TestAllReplicasAreAsked(t *testing.T) {
	t.Parallel()
	for _, m := range three(t) {
		began := time.Now()
		answers, silent := m.ask(t, patience)
		want := []string{"r1: r1 heard hello", "r2: r2 heard hello", "r3: r3 heard hello"}
		if !slices.Equal(answers, want) || len(silent) > 0 {
			t.Errorf("%s is answered %q, silent %q", m.Name(), answers, silent)
		}
		if took := time.Since(began); took > patience/2 {
			t.Errorf("it waited %s though all had answered", took)
		}
	}
}

func TestReplicaThatDoesNotAnswerIsNamed(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	all := three(t, func(c *messaging.ReplicasConfig) {
		if c.Name == "r2" {
			c.Questions["echo"] = func(ctx context.Context, _ []byte) ([]byte, error) {
				select {
				case <-release:
				case <-ctx.Done():
				}
				return nil, ctx.Err()
			}
		}
		if c.Name == "r3" {
			c.Questions["echo"] = func(context.Context, []byte) ([]byte, error) { return nil, errors.New("cannot") }
		}
	})
	defer close(release)
	answers, silent := all[0].ask(t, time.Second)
	if !slices.Equal(answers, []string{"r1: r1 heard hello"}) || !slices.Equal(silent, []string{"r2", "r3"}) {
		t.Errorf("answers %q, silent %q", answers, silent)
	}
}

// Who is asked and answers late does not wait longer than the asker.
func TestQuestionEndsWithTheAskersDeadline(t *testing.T) {
	t.Parallel()
	waited := make(chan time.Duration, 1)
	all := three(t, func(c *messaging.ReplicasConfig) {
		if c.Name == "r2" {
			c.Questions["echo"] = func(ctx context.Context, _ []byte) ([]byte, error) {
				began := time.Now()
				<-ctx.Done()
				waited <- time.Since(began)
				return nil, ctx.Err()
			}
		}
	})
	quickest := patience // the machine may be busy
	for try := 0; try < 5 && quickest > 4*time.Second; try++ {
		all[0].ask(t, time.Second)
		select {
		case d := <-waited:
			quickest = min(quickest, d)
		case <-time.After(patience):
			t.Fatal("it waits for ever")
		}
	}
	if quickest > 4*time.Second { // who is told no deadline waits 5s
		t.Errorf("it waited %s for an asker who waited 1s", quickest)
	}
}

// What is longer than a message of NATS comes in parts.
func TestLongAnswer(t *testing.T) {
	t.Parallel()
	long := bytes.Repeat([]byte("0123456789"), 300_000)
	all := three(t, func(c *messaging.ReplicasConfig) {
		c.Questions["echo"] = func(context.Context, []byte) ([]byte, error) { return long, nil }
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	answers, silent, err := all[0].Ask(ctx, "echo", nil)
	if err != nil || len(silent) > 0 || len(answers) != 3 {
		t.Fatalf("%d answers, silent %q: %v", len(answers), silent, err)
	}
	for _, a := range answers {
		if !bytes.Equal(a.Data, long) {
			t.Errorf("%s answers %d bytes, want %d", a.Replica, len(a.Data), len(long))
		}
	}
}

func TestReplicaThatStopsIsKnownNoMore(t *testing.T) {
	t.Parallel()
	all := three(t)
	all[1].has("gw-1")
	for _, m := range all {
		eventually(t, "its gateway is known", func() bool { return m.Gateways()["gw-1"].Replica == "r2" })
	}
	all[1].stop()
	all[0].knows(t, "r1", "r3")
	if answers, silent := all[0].ask(t, patience); len(answers) != 2 || len(silent) > 0 {
		t.Errorf("answers %q, silent %q", answers, silent)
	}
	if g := all[2].Gateways()["gw-1"]; g.Replica != "r2" {
		t.Errorf("the gateway of the one that stopped is forgotten: %+v", g)
	}
}

func TestGatewaysOfAllReplicasAreKnown(t *testing.T) {
	t.Parallel()
	all := three(t)
	all[0].has("gw-1", "moved/to r2 ünd zurück")
	all[2].has("gw-3")
	for _, m := range all {
		eventually(t, "three gateways", func() bool { return len(m.Gateways()) == 3 })
	}
	if g := all[1].Gateways()["gw-3"]; g.Replica != "r3" || string(g.Data) != `{"of":"r3"}` || g.Left {
		t.Errorf("gw-3 is %+v", g)
	}
	all[0].has("gw-1") // it goes from one to another
	all[1].has("moved/to r2 ünd zurück")
	eventually(t, "it has moved", func() bool {
		g := all[2].Gateways()["moved/to r2 ünd zurück"]
		return g.Replica == "r2" && !g.Left
	})
	all[1].has()
	eventually(t, "it has left", func() bool { return all[0].Gateways()["moved/to r2 ünd zurück"].Left })
}

func TestGatewayIsForgottenAfterMemory(t *testing.T) {
	t.Parallel()
	m := join(t, embedded(t), "r1", func(c *messaging.ReplicasConfig) { c.Memory = 2 * time.Second })
	m.has("gw-1", "stays")
	eventually(t, "both are known", func() bool { return len(m.Gateways()) == 2 })
	left := time.Now()
	m.has("stays")
	eventually(t, "it has left", func() bool {
		g, known := m.Gateways()["gw-1"]
		return g.Left || !known // forgotten already, on a busy machine
	})
	eventually(t, "it is forgotten", func() bool { _, known := m.Gateways()["gw-1"]; return !known })
	if after := time.Since(left); after < time.Second {
		t.Errorf("it is forgotten after %s, want 2s", after)
	}
	if _, known := m.Gateways()["stays"]; !known {
		t.Error("one that is connected is forgotten")
	}
}

// What was seen before a restart is known after it.
func TestGatewaysAreKnownAfterARestart(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	m := join(t, cfg, "r1")
	m.has("gw-1")
	eventually(t, "it is known", func() bool { return len(m.Gateways()) == 1 })
	m.stop()
	again := join(t, cfg, "r1-again")
	eventually(t, "it is known after the restart", func() bool { return again.Gateways()["gw-1"].Replica == "r1" })
}

func TestAskBeforePresenceIsKnown(t *testing.T) {
	t.Parallel()
	logger, _ := logrustest.NewNullLogger()
	cfg := embedded(t)
	cfg.Log = logger
	hub, err := messaging.Open(t.Context(), cfg)
	fatal(t, err)
	defer hub.Close()
	r, err := messaging.NewReplicas(hub, messaging.ReplicasConfig{
		Name: "r1", Memory: time.Minute, Present: func() map[string][]byte { return nil }, Log: logger,
		Questions: map[string]messaging.Question{"echo": echo("r1")},
	})
	fatal(t, err)
	if _, _, err := r.Ask(t.Context(), "echo", nil); !errors.Is(err, messaging.ErrPresence) {
		t.Errorf("Ask before Run: %v, want %v", err, messaging.ErrPresence)
	}
}

// While the hub is away nobody is heard, and nobody is taken for gone.
func TestReplicasWhileTheHubIsAway(t *testing.T) {
	t.Parallel()
	store := t.TempDir()
	s := standalone(t, store, -1)
	a, b := join(t, external(s), "r1"), join(t, external(s), "r2")
	a.knows(t, "r1", "r2")
	b.knows(t, "r1", "r2")
	port := portOf(t, s)
	shutdown(s)
	if answers, silent := a.ask(t, time.Second); len(answers) != 1 || !slices.Equal(silent, []string{"r2"}) {
		t.Errorf("without a hub: answers %q, silent %q", answers, silent)
	}
	standalone(t, store, port)
	eventually(t, "both answer again", func() bool {
		answers, _ := a.ask(t, time.Second)
		return len(answers) == 2
	})
}

func TestAskAny(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	conn, err := nats.Connect(s.ClientURL())
	fatal(t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if data, err := messaging.AskAny(ctx, conn, "echo", nil); !errors.Is(err, messaging.ErrNoAnswer) {
		t.Errorf("without an adapter: %q, %v", data, err)
	}
	m := join(t, external(s), "r1")
	m.knows(t, "r1")
	eventually(t, "it answers", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		data, err := messaging.AskAny(ctx, conn, "echo", []byte("hello"))
		return err == nil && string(data) == "r1 heard hello"
	})
}

// The account of clients without credentials can neither ask nor hear, nor say
// that a gateway is there.
func TestAnonymousClientsAreNoReplicas(t *testing.T) {
	t.Parallel()
	var heard atomic.Int64
	m := join(t, embedded(t), "r1", func(c *messaging.ReplicasConfig) {
		c.Questions["echo"] = func(context.Context, []byte) ([]byte, error) { heard.Add(1); return nil, nil }
	})
	m.has("gw-1")
	eventually(t, "its gateway is known", func() bool { return len(m.Gateways()) == 1 })
	conn, complaints := anonymous(t, m.hub)
	for _, subject := range []string{"adapter.echo", "$SRV.PING", "$SRV.INFO.revocation-adapter", "$KV.GATEWAYS.gateway.x"} {
		fatal(t, conn.PublishRequest(subject, conn.NewInbox(), []byte(`{"gateway":"forged","replica":"r1"}`)))
		fatal(t, conn.Flush())
		refusal(t, complaints, subject)
	}
	for _, subject := range []string{"adapter.>", "$KV.>", "$SRV.>"} {
		_, err := conn.SubscribeSync(subject)
		fatal(t, err)
		fatal(t, conn.Flush())
		refusal(t, complaints, subject)
	}
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(200*time.Millisecond))
	fatal(t, err)
	if _, err := js.KeyValue(t.Context(), messaging.PresenceBucket); err == nil {
		t.Error("it opens the bucket")
	}
	if n := heard.Load(); n > 0 || len(m.Gateways()) != 1 {
		t.Errorf("%d questions came through, gateways %v", n, m.Gateways())
	}
}

// refusal waits for the server to refuse a subject.
func refusal(t *testing.T, complaints <-chan error, subject string) {
	t.Helper()
	select {
	case err := <-complaints:
		if !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("%s: %v", subject, err)
		}
	case <-time.After(patience):
		t.Errorf("%s is not refused", subject)
	}
}
