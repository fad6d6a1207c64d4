package integration_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"revocation-adapter/integration/cluster"
	"revocation-adapter/messaging"
)

// The password of the user publisher, and what stands for it in the
// configuration of the servers.
const (
	publisherPassword = "publisher-password"
	publisherHash     = "$2a$04$ofAcKGNxWZYKa5fGNuZcC.Fz74XbsS4o4I8j.qxeU349rS6kyERam"
	storeKey          = "k0123456789abcdef"
)

// hubCluster is three servers started from the file that operators copy.
type hubCluster struct {
	*cluster.Cluster
	dir   string
	seeds map[string]string // role to the path of its seed
}

// startHub starts a cluster from the file.
func startHub(t *testing.T) *hubCluster {
	t.Helper()
	h := &hubCluster{dir: t.TempDir(), seeds: map[string]string{}}
	config := h.fillIn(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	server, err := cluster.Build(ctx, h.dir)
	must(t, err)
	h.Cluster, err = cluster.Start(ctx, cluster.Options{
		Binary: server, Dir: h.dir, Nodes: 3, Config: config, Env: []string{"HUB_STORE_KEY=" + storeKey},
	})
	must(t, err)
	t.Cleanup(func() { must(t, h.Stop()) })
	return h
}

// fillIn returns the file with all that it leaves open, as an operator would
// fill it in.
func (h *hubCluster) fillIn(t *testing.T) (config string) {
	t.Helper()
	clients, servers := newAuthority(t, "ca"), newAuthority(t, "cluster-ca")
	clients.write(t, h.dir)
	clients.issue(t, h.dir, "server")
	servers.write(t, h.dir)
	servers.issue(t, h.dir, "cluster")
	template, err := os.ReadFile("../resources/conf/nats-cluster.conf")
	must(t, err)
	text := string(template)
	for _, fill := range [][2]string{
		{"$HUB_NODE", "$NODE_NAME"},
		{"0.0.0.0:4222", "$NODE_LISTEN"},
		{"127.0.0.1:8222", "$NODE_HTTP"},
		{`"/var/lib/nats"`, "$NODE_STORE"},
		{"0.0.0.0:6222", "$NODE_CLUSTER"},
		{between(t, text, "routes: ", "\n\n"), "$NODE_ROUTES"},
		{"/etc/nats", h.dir},
		{"REPLACE_OPERATOR", h.newKey(t, "operator")},
		{"REPLACE_APPROVER", h.newKey(t, "approver")},
		{"REPLACE_GATEWAY", h.newKey(t, "gateway")},
		{"$2a$11$REPLACE_WITH_THE_HASH_OF_THE_PASSWORD", publisherHash},
	} {
		if !strings.Contains(text, fill[0]) {
			t.Fatalf("the file has no %s", fill[0])
		}
		text = strings.ReplaceAll(text, fill[0], fill[1])
	}
	return text
}

// between is what stands in text from after one mark to before the next.
func between(t *testing.T, text, from, to string) string {
	t.Helper()
	_, rest, found := strings.Cut(text, from)
	inner, _, ends := strings.Cut(rest, to)
	if !found || !ends {
		t.Fatalf("the file has nothing between %q and %q", from, to)
	}
	return inner
}

// newKey makes an nkey for a role and returns its public part.
func (h *hubCluster) newKey(t *testing.T, role string) (public string) {
	t.Helper()
	kp, err := nkeys.CreateUser()
	must(t, err)
	seed, err := kp.Seed()
	must(t, err)
	h.seeds[role] = filepath.Join(h.dir, role+".nk")
	must(t, os.WriteFile(h.seeds[role], seed, 0o600))
	return publicKey(t, h.seeds[role])
}

func publicKey(t *testing.T, path string) string {
	t.Helper()
	seed, err := os.ReadFile(path)
	must(t, err)
	kp, err := nkeys.FromSeed(seed)
	must(t, err)
	public, err := kp.PublicKey()
	must(t, err)
	return public
}

// as is how a role reaches the hub.
func (h *hubCluster) as(role string) messaging.ExternalConfig {
	ext := messaging.ExternalConfig{URLs: h.urls(), CA: filepath.Join(h.dir, "ca.pem"), Replicas: 3}
	if role == "publisher" {
		ext.User, ext.Password = role, publisherPassword
	} else {
		ext.NKey = h.seeds[role]
	}
	return ext
}

func (h *hubCluster) urls() []string {
	var urls []string
	for _, u := range h.URLs() {
		urls = append(urls, strings.Replace(u, "nats:", "tls:", 1))
	}
	return urls
}

// connect connects as a role and hands over what the servers complain of.
func (h *hubCluster) connect(t *testing.T, role string, opts ...nats.Option) (*nats.Conn, <-chan error) {
	t.Helper()
	complaints := make(chan error, 1000)
	conn, err := messaging.Dial(h.as(role), append(opts, nats.ErrorHandler(
		func(_ *nats.Conn, _ *nats.Subscription, err error) { complaints <- err }))...)
	must(t, err)
	t.Cleanup(conn.Close)
	return conn, complaints
}

// adapterOf configures an adapter that reaches the hub as ext says.
func adapterOf(t *testing.T, ext messaging.ExternalConfig) *adapter {
	t.Helper()
	hub := fmt.Sprintf("mode = \"external\"\nurls = [\"%s\"]\nstore = %q\n", strings.Join(ext.URLs, `", "`), filepath.Join(t.TempDir(), "hub"))
	for key, value := range map[string]string{
		"user": ext.User, "password": ext.Password, "nkey": ext.NKey, "credentials": ext.Credentials,
	} {
		if value != "" {
			hub += fmt.Sprintf("%s = %q\n", key, value)
		}
	}
	hub += fmt.Sprintf("[hub.tls]\nca = %q\n", ext.CA)
	return newAdapter(t, map[string]string{"hub": hub})
}

// contents is every message of each stream, but for the events on their way.
func contents(t *testing.T, operator *nats.Conn) map[string]string {
	t.Helper()
	js, err := jetstream.New(operator)
	must(t, err)
	all := map[string]string{}
	for _, name := range []string{messaging.LogStream, messaging.DeadLetterStream} {
		s, err := js.Stream(t.Context(), name)
		must(t, err)
		for next := uint64(1); ; {
			msg, err := s.GetMsg(t.Context(), next, jetstream.WithGetMsgSubject(">"))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				break
			}
			must(t, err)
			all[fmt.Sprint(name, " ", msg.Sequence)] = fmt.Sprintf("%s %v %s", msg.Subject, msg.Header, msg.Data)
			next = msg.Sequence + 1
		}
	}
	names := js.StreamNames(t.Context())
	for name := range names.Name() {
		all[name] = "exists"
	}
	must(t, names.Err())
	return all
}

// ingest is how many events the hub was given, and how many wait.
func ingest(t *testing.T, operator *nats.Conn) (given, waiting uint64) {
	t.Helper()
	js, err := jetstream.New(operator)
	must(t, err)
	s, err := js.Stream(t.Context(), messaging.IngestStream)
	must(t, err)
	state := s.CachedInfo().State
	return state.LastSeq, state.Msgs
}

// dispatcher is the node that hands events to adapters.
func (h *hubCluster) dispatcher(t *testing.T, operator *nats.Conn) (node int) {
	t.Helper()
	js, err := jetstream.New(operator)
	must(t, err)
	eventually(t, "somebody hands out events", func() bool {
		consumer, err := js.Consumer(t.Context(), messaging.IngestStream, "adapter")
		if err != nil {
			return false
		}
		for node = range h.URLs() {
			if h.Name(node) == consumer.CachedInfo().Cluster.Leader {
				return true
			}
		}
		return false
	})
	return node
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
