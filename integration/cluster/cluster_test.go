package cluster_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"revocation-adapter/integration/cluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 60 * time.Second

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func start(t *testing.T, nodes int, config string) (*cluster.Cluster, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dir := t.TempDir()
	binary, err := cluster.Build(ctx, dir)
	fatal(t, err)
	return cluster.Start(ctx, cluster.Options{Binary: binary, Dir: dir, Nodes: nodes, Config: config})
}

func running(t *testing.T, nodes int) *cluster.Cluster {
	t.Helper()
	c, err := start(t, nodes, "")
	fatal(t, err)
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func connect(t *testing.T, c *cluster.Cluster) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(strings.Join(c.URLs(), ","), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond),
		nats.PingInterval(time.Second), nats.MaxPingsOutstanding(2)) // a paused server is left
	fatal(t, err)
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	fatal(t, err)
	return js
}

// publish stores an event, trying again while there is no leader.
func publish(t *testing.T, js jetstream.JetStream, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		once, done := context.WithTimeout(ctx, time.Second)
		_, err := js.Publish(once, "events", []byte(text), jetstream.WithMsgID(text))
		done()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("publish %s: %v", text, err)
		}
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	c := running(t, 3)
	js := connect(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "EVENTS", Subjects: []string{"events"}, Replicas: 3})
	fatal(t, err)
	publish(t, js, "before")

	leader := nodeOf(t, c, stream.CachedInfo().Cluster.Leader)
	fatal(t, c.Kill(leader))
	began := time.Now()
	publish(t, js, "without one")
	t.Logf("the first publish took %s", time.Since(began))
	fatal(t, c.Restart(ctx, leader))

	other := (leader + 1) % 3
	fatal(t, c.Pause(other))
	publish(t, js, "with one that does not answer")
	fatal(t, c.Resume(other))
	fatal(t, c.Await(ctx))

	info, err := stream.Info(ctx)
	fatal(t, err)
	if info.State.Msgs != 3 || len(info.Cluster.Replicas) != 2 || info.State.FirstSeq != 1 {
		t.Errorf("the stream is %+v in %+v", info.State, info.Cluster)
	}
	for node := range 3 {
		if log, err := os.ReadFile(c.Log(node)); err != nil || !strings.Contains(string(log), "Server is ready") {
			t.Errorf("the log of %s: %v, %s", c.Name(node), err, log)
		}
	}
}

func nodeOf(t *testing.T, c *cluster.Cluster, name string) int {
	t.Helper()
	for node := range c.URLs() {
		if c.Name(node) == name {
			return node
		}
	}
	t.Fatalf("no node is called %q", name)
	return 0
}

func TestSingleServer(t *testing.T) {
	t.Parallel()
	c := running(t, 1)
	js := connect(t, c)
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "EVENTS", Subjects: []string{"events"}})
	fatal(t, err)
	publish(t, js, "before")
	fatal(t, c.Kill(0))
	if err := c.Kill(0); err == nil {
		t.Error("it is killed twice")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	fatal(t, c.Restart(ctx, 0))
	if err := c.Restart(ctx, 0); err == nil {
		t.Error("it is started twice")
	}
	publish(t, js, "after")
	stream, err := js.Stream(ctx, "EVENTS")
	fatal(t, err)
	if state := stream.CachedInfo().State; state.Msgs != 2 {
		t.Errorf("the stream is %+v", state)
	}
}

func TestAServerThatCannotStartSaysWhy(t *testing.T) {
	t.Parallel()
	c, err := start(t, 1, "nonsense: 1\n")
	if err == nil || !strings.Contains(fmt.Sprint(err), "nonsense") {
		t.Errorf("got %v", err)
	}
	if c != nil {
		fatal(t, c.Stop())
	}
}
