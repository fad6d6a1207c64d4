package messaging_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"github.com/sirupsen/logrus"

	"revocation-adapter/messaging"
)

// atOnce is how long refused credentials may take.
const atOnce = 10 * time.Second // those that are tried on are tried for ever

// guarded starts a NATS server that knows one name and one nkey, and returns
// its URL and the path of the seed.
func guarded(t *testing.T) (url, seed string) {
	t.Helper()
	seed, public := writeSeed(t, nkeys.CreateUser)
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
		Users: []*server.User{{Username: "adapter", Password: "right"}}, Nkeys: []*server.NkeyUser{{Nkey: public}},
	})
	fatal(t, err)
	s.Start()
	t.Cleanup(func() { shutdown(s) })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server is not ready")
	}
	return s.ClientURL(), seed
}

// writeSeed writes the seed of a new key and returns its path and public part.
func writeSeed(t *testing.T, create func() (nkeys.KeyPair, error)) (path, public string) {
	t.Helper()
	kp, err := create()
	fatal(t, err)
	seed, err := kp.Seed()
	fatal(t, err)
	public, err = kp.PublicKey()
	fatal(t, err)
	return writeFile(t, string(seed)+"\n"), public
}

func writeFile(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "credentials")
	fatal(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// nowhere is the URL of a port on which nobody listens.
func nowhere(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	defer lis.Close() //nolint:errcheck // never used
	return "nats://" + lis.Addr().String()
}

func TestBadCredentialsAreRefusedAtOnce(t *testing.T) {
	t.Parallel()
	url, right := guarded(t)
	stranger, _ := writeSeed(t, nkeys.CreateUser)
	account, _ := writeSeed(t, nkeys.CreateAccount)
	seed, err := os.ReadFile(stranger)
	fatal(t, err)
	creds := func(jwt, seed string) string {
		return writeFile(t, "-----BEGIN NATS USER JWT-----\n"+jwt+"\n------END NATS USER JWT------\n\n"+
			"-----BEGIN USER NKEY SEED-----\n"+seed+"\n------END USER NKEY SEED------\n")
	}
	const unauthorized = "the hub refuses the credentials"
	who := func(name string) string { return unauthorized + " (" + name + "): nats: Authorization Violation" }
	for _, tt := range []struct {
		name string
		ext  messaging.ExternalConfig
		says string
	}{
		{"none", messaging.ExternalConfig{}, who("none are given")},
		{"a wrong password", messaging.ExternalConfig{User: "adapter", Password: "wrong"}, who("user adapter")},
		{"an unknown user", messaging.ExternalConfig{User: "nobody", Password: "right"}, unauthorized},
		{"a wrong password in the URL", messaging.ExternalConfig{URLs: []string{strings.Replace(url, "//", "//adapter:wrong@", 1)}}, who("those of the URL")},
		{"an unknown nkey", messaging.ExternalConfig{NKey: stranger}, stranger},
		{"a seed cut short", messaging.ExternalConfig{NKey: writeFile(t, string(seed[:30]))}, "nkey"},
		{"an empty seed", messaging.ExternalConfig{NKey: writeFile(t, "")}, "nkey"},
		{"the seed of an account", messaging.ExternalConfig{NKey: account}, "Not a valid nkey user seed"},
		{"no seed", messaging.ExternalConfig{NKey: "missing.nk"}, "missing.nk"},
		{"unknown .creds", messaging.ExternalConfig{Credentials: creds("eyJhbGciOiJub25lIn0.e30.x", string(seed))}, unauthorized},
		{".creds cut short", messaging.ExternalConfig{Credentials: creds("eyJhbGciOiJub25lIn0.e30.x", string(seed[:30]))}, "credentials"},
		{"empty .creds", messaging.ExternalConfig{Credentials: writeFile(t, "")}, "credentials"},
		{"no .creds", messaging.ExternalConfig{Credentials: "missing.creds"}, "missing.creds"},
	} {
		servers := map[string][]string{"": {url}, ", of two servers one away": {nowhere(t), url}, ", the other away": {url, nowhere(t)}}
		if len(tt.ext.URLs) > 0 {
			servers = map[string][]string{"": tt.ext.URLs}
		}
		for which, urls := range servers {
			t.Run(tt.name+which, func(t *testing.T) {
				t.Parallel()
				cfg := config()
				cfg.External = tt.ext
				cfg.External.URLs, cfg.External.Replicas = urls, 1
				refusedAtOnce(t, cfg, tt.says)
			})
		}
	}
	cfg := config()
	cfg.External = messaging.ExternalConfig{URLs: []string{nowhere(t), url}, NKey: right, Replicas: 1}
	prepare(t, cfg).close()
}

func refusedAtOnce(t *testing.T, cfg messaging.Config, says string) {
	t.Helper()
	_, cfg.Log = newLogbook(t)
	began := time.Now()
	ended := make(chan error, 1)
	go func() {
		hub, err := messaging.Open(t.Context(), cfg)
		if err == nil {
			hub.Close()
		}
		ended <- err
	}()
	select {
	case err := <-ended:
		if took := time.Since(began); err == nil || took > atOnce || !strings.Contains(err.Error(), says) {
			t.Errorf("after %s: %v, want %q", took, err, says)
		}
	case <-time.After(patience / 5):
		t.Error("it tries on")
	}
}

// Credentials that the hub refuses when the connection breaks are an error that a
// person must mend; until then it is tried again.
func TestCredentialsThatAreRefusedLaterAreReported(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	serve := func(port int, password string) *server.Server {
		s, err := server.NewServer(&server.Options{
			Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true,
			Users: []*server.User{{Username: "adapter", Password: password}},
		})
		fatal(t, err)
		s.Start()
		t.Cleanup(func() { shutdown(s) })
		if !s.ReadyForConnections(patience) {
			t.Fatal("the server is not ready")
		}
		return s
	}
	s := serve(-1, "right")
	cfg := external(s)
	cfg.External.User, cfg.External.Password = "adapter", "right"
	r := start(t, cfg)
	port := portOf(t, s)
	shutdown(s)
	s = serve(port, "other")
	eventually(t, "it is said", func() bool {
		return len(r.book.find(logrus.ErrorLevel, "The hub refuses the credentials")) == 1
	})
	shutdown(s)
	serve(port, "right")
	eventually(t, "it is connected again", r.hub.Connected)
}

// What is in operator.nk makes the server's only user of account HUB and the
// adapter's own connection, so that they cannot differ; a file that is no seed
// must not hang that connection.
func TestADamagedOperatorKeyIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	account, _ := writeSeed(t, nkeys.CreateAccount)
	accountSeed, err := os.ReadFile(account)
	fatal(t, err)
	for name, damage := range map[string]func(seed string) string{
		"empty":                  func(string) string { return "" },
		"cut short":              func(seed string) string { return seed[:30] },
		"one letter differs":     func(seed string) string { return seed[:20] + other(seed[20]) + seed[21:] },
		"the seed of an account": func(string) string { return string(accountSeed) },
		"other bytes":            func(string) string { return "\x00\x01\x02" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := embedded(t)
			r := prepare(t, cfg)
			r.close()
			path := messaging.OperatorKey(cfg.Embedded.Store)
			seed, err := os.ReadFile(path)
			fatal(t, err)
			fatal(t, os.WriteFile(path, []byte(damage(string(seed))), 0o600))
			refusedAtOnce(t, cfg, path)
		})
	}
}

func other(letter byte) string {
	if letter == 'A' {
		return "B"
	}
	return "A"
}
