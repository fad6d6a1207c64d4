package messaging

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/sirupsen/logrus"
)

// EmbeddedConfig is the NATS server inside the adapter.
type EmbeddedConfig struct {
	Listen string      // host:port; port 0 takes a free one
	Store  string      // directory of its own
	TLS    *tls.Config // nil: plaintext
}

// The files beside the JetStream store.
const (
	lockFile     = "lock"        // held by the process that uses the store; its pid
	storeKeyFile = "store.key"   // encrypts the store at rest
	operatorFile = "operator.nk" // seed of the operator's nkey, for the command line
	storeVersion = "jetstream"   // the server's own directory
	startTimeout = 10 * time.Second
)

// Ingest buffers of the embedded server: what is published without waiting sits
// here until it is stored. 1 KB and 1,000,000 events bound it at 1 GB.
const (
	maxBufferedEvents = 1_000_000
	maxBufferedBytes  = 1 << 30
)

// embeddedServer is a running NATS server, closed by default: a client without
// credentials is in account PUBLIC and may publish tokenRevocation and hear the
// reply. All streams are in account HUB.
type embeddedServer struct {
	*server.Server
	operator  nkeys.KeyPair
	lock      *flock.Flock
	encrypted bool                   // clients connect by TLS
	failed    atomic.Bool            // a write failed, after which the server takes no more
	lost      atomic.Pointer[string] // what the server said of a stream that it could not read
}

func startEmbedded(cfg EmbeddedConfig, log logrus.FieldLogger) (*embeddedServer, error) {
	if err := os.MkdirAll(cfg.Store, 0o700); err != nil {
		return nil, fmt.Errorf("make the store: %w", err)
	}
	lock, err := lockStore(cfg.Store)
	if err != nil {
		return nil, err
	}
	e := &embeddedServer{lock: lock, encrypted: cfg.TLS != nil}
	if err := e.start(cfg, log); err != nil {
		e.stop()
		return nil, err
	}
	return e, nil
}

func (e *embeddedServer) start(cfg EmbeddedConfig, log logrus.FieldLogger) (err error) {
	if e.operator, err = operatorKey(cfg.Store); err != nil {
		return err
	}
	opts, err := e.options(cfg)
	if err != nil {
		return err
	}
	if e.Server, err = server.NewServer(opts); err != nil {
		return fmt.Errorf("server options: %w", err)
	}
	aside, err := e.prepareStore(cfg.Store, opts.JetStreamKey, log)
	if err != nil {
		return err
	}
	fatal := make(chan string, 1)
	e.SetLoggerV2(newServerLog(log, fatal, e), false, false, false)
	e.Start() // returns when it listens, or has failed
	select {
	case reason := <-fatal:
		return errors.New(reason)
	default:
	}
	if !e.ReadyForConnections(startTimeout) {
		return fmt.Errorf("not ready after %s", startTimeout)
	}
	if stream := e.lost.Load(); stream != nil {
		e.Shutdown()
		e.WaitForShutdown()
		err := fmt.Errorf("%w: %s", ErrUnreadable, *stream)
		if !aside {
			return err
		}
		return errors.Join(err, putBack(cfg.Store))
	}
	return forgetAside(cfg.Store)
}

// prepareStore keeps the server from removing what it cannot read. Aside says
// whether the whole store is set aside.
func (e *embeddedServer) prepareStore(store, key string, log logrus.FieldLogger) (aside bool, err error) {
	if err := restoreAside(store); err != nil {
		return false, fmt.Errorf("restore the store: %w", err)
	}
	removed, err := mendStore(store, key)
	if err != nil {
		return false, fmt.Errorf("mend the store: %w", err)
	}
	if len(removed) > 0 {
		log.WithField("blocks", removed).Warn("Empty blocks, which a full disk or a crash left, were removed")
	}
	if err := setAside(store); err != nil { // a disk without links
		log.WithError(err).Warn("The store cannot be set aside; if the server cannot read a stream, it removes it")
		return false, forgetAside(store)
	}
	return true, nil
}

// options are written as a NATS configuration, so that an operator can compare
// them with the one of an external cluster.
func (e *embeddedServer) options(cfg EmbeddedConfig) (*server.Options, error) {
	storeKey, err := storeKey(cfg.Store)
	if err != nil {
		return nil, err
	}
	operator, err := e.operator.PublicKey()
	if err != nil {
		return nil, err
	}
	host, port, err := splitListen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	anonymous, err := anonymousKey()
	if err != nil {
		return nil, err
	}
	opts := &server.Options{}
	if err := opts.ProcessConfigString(strings.NewReplacer(
		"$STORE", strconv.Quote(cfg.Store), "$KEY", storeKey, "$OPERATOR", operator,
		"$ANONYMOUS", anonymous,
	).Replace(embeddedConfig)); err != nil {
		return nil, fmt.Errorf("server configuration: %w", err)
	}
	opts.Host, opts.Port = host, port
	opts.StreamMaxBufferedMsgs, opts.StreamMaxBufferedSize = maxBufferedEvents, maxBufferedBytes
	opts.TLSConfig, opts.NoSigs = cfg.TLS, true
	return opts, nil
}

// embeddedConfig bounds the store by the disk alone: left out, max_file_store is
// what was free at the start, and streams that may grow to more are refused. It
// keeps the two accounts apart. In one account a client could
// listen to _INBOX.> and read every event delivered to the adapter, and a
// publish whose reply is revoked.token.x would make the server write its own
// acknowledgement over a stored revocation: permissions do not check replies.
const embeddedConfig = `
server_name: revocation-adapter
jetstream {
  store_dir: $STORE
  cipher: aes
  key: "$KEY"
  sync_interval: always
  max_file_store: 1TB
}
accounts {
  HUB {
    jetstream: enabled
    users: [ { nkey: $OPERATOR } ]
    exports: [ { service: tokenRevocation } ]
  }
  PUBLIC {
    users: [ {
      nkey: $ANONYMOUS
      permissions { publish: [tokenRevocation], subscribe: ["_INBOX.>"] }
    } ]
    imports: [ { service: { account: HUB, subject: tokenRevocation } } ]
  }
}
no_auth_user: $ANONYMOUS
max_connections: 10000
max_subscriptions: 1000
`

// anonymousKey names the user that clients without credentials are. Nobody has
// its seed.
func anonymousKey() (string, error) {
	kp, err := nkeys.CreateUser()
	if err != nil {
		return "", err
	}
	defer kp.Wipe()
	return kp.PublicKey()
}

func splitListen(listen string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, fmt.Errorf("%w: listen %q: %w", ErrConfig, listen, err)
	}
	if port, err = strconv.Atoi(text); err != nil {
		return "", 0, fmt.Errorf("%w: listen %q: the port is not a number", ErrConfig, listen)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// connect opens the adapter's own connection, in account HUB. Without
// credentials it would be the anonymous client. It goes through a socket, unless
// that would need a certificate: the server writes a message at a time into a
// pipe, and a million records at once took a sixth longer.
func (e *embeddedServer) connect() (*nats.Conn, error) {
	public, err := e.operator.PublicKey()
	if err != nil {
		return nil, err
	}
	opts := []nats.Option{
		nats.Name("revocation-adapter"), nats.Nkey(public, e.operator.Sign),
		nats.MaxReconnects(-1), nats.IgnoreDiscoveredServers(),
	}
	if e.encrypted {
		return nats.Connect("", append(opts, nats.InProcessServer(e.Server))...)
	}
	return nats.Connect(e.ClientURL(), opts...)
}

// unreadable reports a stream that is in the store and that the server does not
// know: with another key it starts, and creates what it could not read anew.
func (e *embeddedServer) unreadable(stream string) error {
	if e == nil {
		return nil
	}
	dir := filepath.Join(e.StoreDir(), "HUB", "streams", stream)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("%w: is %s the key with which %s was written?", ErrUnreadable, storeKeyFile, dir)
}

func (e *embeddedServer) stop() {
	if e.Server != nil {
		e.Shutdown()
		e.WaitForShutdown()
	}
	_ = e.lock.Unlock() // the process is leaving the store either way
}

// lockStore takes the store for this process. Two servers on one store both
// start, and corrupt it.
func lockStore(dir string) (*flock.Flock, error) {
	path := filepath.Join(dir, lockFile)
	lock := flock.New(path, flock.SetPermissions(0o600))
	taken, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock the store: %w", err)
	}
	if !taken {
		pid, _ := os.ReadFile(path) // only to name the other process
		return nil, fmt.Errorf("the store %s is in use by the adapter with pid %s; stop it, or choose another store",
			dir, strings.TrimSpace(string(pid)))
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the store: %w", err), lock.Unlock())
	}
	return lock, nil
}

// storeKey reads the key that encrypts the store, or makes one for a new store.
func storeKey(dir string) (string, error) {
	path := filepath.Join(dir, storeKeyFile)
	key, err := os.ReadFile(path)
	if err == nil && len(bytes.TrimSpace(key)) == 0 {
		return "", fmt.Errorf("the key %s is empty, with which nothing would be encrypted; put the key back", path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return strings.TrimSpace(string(key)), err
	}
	if _, err := os.Stat(filepath.Join(dir, storeVersion)); err == nil {
		return "", fmt.Errorf("the store %s has no %s, without which it cannot be read; put the file back", dir, storeKeyFile)
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return "", err
	}
	text := hex.EncodeToString(secret)
	return text, writeSecret(path, text)
}

// operatorKey reads the operator's nkey, or makes one.
func operatorKey(dir string) (nkeys.KeyPair, error) {
	path := filepath.Join(dir, operatorFile)
	seed, err := os.ReadFile(path)
	if err == nil {
		kp, err := nkeys.ParseDecoratedUserNKey(seed)
		if err != nil {
			return nil, fmt.Errorf("operator key %s: %w", path, err)
		}
		return kp, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	kp, err := nkeys.CreateUser()
	if err != nil {
		return nil, err
	}
	if seed, err = kp.Seed(); err != nil {
		return nil, err
	}
	return kp, writeSecret(path, string(seed))
}

// writeSecret writes a file that only its owner may read, whole or not at all.
func writeSecret(path, text string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone already once it is renamed
	_, err = tmp.WriteString(text + "\n")
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// OperatorKey is the path of the operator's seed in the store of an embedded
// hub, for a command line on the same machine.
func OperatorKey(store string) string { return filepath.Join(store, operatorFile) }
