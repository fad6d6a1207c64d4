// Package messaging is the hub and every way in.
//
// Events are captured by the stream INGEST, decoded, merged and written by
// compare-and-set into the stream REVOCATIONS, which is the log: one sequence
// for all replicas. A Follower applies it to a revocation.Log. An event is
// acknowledged only after REVOCATIONS has acknowledged, and what cannot be
// understood goes to the stream DEADLETTER with its reason. The package never
// logs a token, and keeps nothing of an opaque one but its digest.
package messaging

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"
)

// Config says where the hub is and how it is kept.
type Config struct {
	Embedded *EmbeddedConfig // nil: the hub is external
	External ExternalConfig  // used where Embedded is nil

	VersionFile   string // keeps the newest version that was shown; "": it is forgotten
	Limits        Limits
	Audit         AuditLimits
	Grace         time.Duration // added to every expiry that is acted on
	UnknownLife   time.Duration // how long what has no known expiry is kept
	Rules         Rules
	PurgeInterval time.Duration // between two purges of the log
	MaxDeliveries uint64        // of an event that cannot be stored, then it is a dead letter
	Workers       int           // batches of events written at the same time

	// Reconnected is called when an external hub was away and is connected again.
	// It must not block; it may be nil.
	Reconnected func()

	Log logrus.FieldLogger
	Now func() time.Time // time.Now, unless a test says otherwise
}

// ExternalConfig is how an existing NATS cluster is reached.
type ExternalConfig struct {
	URLs        []string
	User        string
	Password    string
	Credentials string // path of a .creds file
	NKey        string // path of an nkey seed
	CA          string // PEM file, of who may have signed the server's certificate
	Cert, Key   string // PEM files, of the client's own certificate
	Replicas    int    // of every stream
}

// Limits bound what the hub holds.
type Limits struct {
	MaxLive         int   // records in REVOCATIONS before events wait in INGEST
	MaxGrants       int   // tokens in GRANTS before grants are refused; 0: DefaultMaxGrants
	MaxPending      int64 // events in INGEST before publishers get an error
	MaxPendingBytes int64
}

// Hub is the adapter's connection to NATS, and the server itself where it is
// embedded. Its zero value is not usable; Open makes one.
type Hub struct {
	cfg    Config
	server *embeddedServer // nil: external
	conn   *nats.Conn
	js     jetstream.JetStream

	ingest, log, dead jetstream.Stream
	grants, audit     jetstream.Stream
	clients, answers  jetstream.Stream // buckets
	batches           chan struct{}    // one entry per atomic batch of the log in flight
	wentBack          atomic.Bool      // the log must not be written: a rebase reads it
	noSpace           atomic.Bool      // the disk of the embedded server is full
}

// ErrConfig means that a Config cannot work.
var ErrConfig = errors.New("hub configuration")

// ErrRefused means that the hub was reached, and does not know the credentials.
var ErrRefused = errors.New("the hub refuses the credentials")

// apiTimeout bounds a single JetStream request. Before a cluster has a leader
// they would hang for as long as their context lives.
const apiTimeout = 5 * time.Second

// pingInterval is a third of how long a server may be silent before another one
// is tried. By default that would be six minutes, in which nothing is learnt.
const pingInterval = 3 * time.Second

// Open starts the embedded server, or reaches the external one, and checks that
// the streams are as they must be, creating those that are missing. It returns
// when publishers can publish. An external hub that is out of reach is tried
// again until ctx ends; one that refuses the credentials is an error.
func Open(ctx context.Context, cfg Config) (*Hub, error) {
	h := &Hub{cfg: cfg, batches: make(chan struct{}, maxBatches)}
	var err error
	if cfg.Embedded != nil {
		if h.server, err = startEmbedded(*cfg.Embedded, cfg.Log); err != nil {
			return nil, fmt.Errorf("embedded hub: %w", err)
		}
		h.conn, err = h.server.connect()
	} else {
		h.conn, err = dialUntil(ctx, cfg)
	}
	if err == nil {
		err = h.awaitStreams(ctx)
	}
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("hub: %w", err)
	}
	return h, nil
}

// awaitStreams opens the streams. While a rebase is under way it waits for its
// end: the rebase needs the embedded server, too.
func (h *Hub) awaitStreams(ctx context.Context) (err error) {
	if h.js, err = jetstream.New(h.conn, jetstream.WithDefaultTimeout(apiTimeout)); err != nil {
		return err
	}
	for said := false; ; said = true {
		if err = h.openStreams(ctx); !errors.Is(err, ErrRebasing) {
			return err
		}
		if !said {
			h.cfg.Log.WithError(err).Error("The hub's log is being written anew: nothing is served before")
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(time.Second):
		}
	}
}

func (h *Hub) openStreams(ctx context.Context) (err error) {
	replicas := 1
	if h.server == nil {
		replicas = h.cfg.External.Replicas
	}
	for _, s := range []struct {
		at  *jetstream.Stream
		cfg jetstream.StreamConfig
	}{
		{&h.ingest, ingestConfig(h.cfg.Limits)},
		{&h.log, logConfig(h.cfg.Now())},
		{&h.dead, deadLetterConfig()},
		{&h.grants, grantsConfig()},
		{&h.audit, auditStreamConfig(h.cfg.Audit)},
		{&h.clients, clientsConfig()},
		{&h.answers, answersConfig()},
	} {
		s.cfg.Replicas = replicas
		if *s.at, err = h.openStream(ctx, s.cfg); err != nil {
			return fmt.Errorf("stream %s: %w", s.cfg.Name, err)
		}
	}
	return nil
}

// Address is where the hub is: the address where an embedded one listens, or the
// server that is connected, without credentials.
func (h *Hub) Address() string {
	if h.server == nil {
		return h.conn.ConnectedUrlRedacted()
	}
	return h.server.Addr().String()
}

// Identity tells the hub's log from every other one: its versions mean nothing in
// a log with another identity. A rebase makes a new log.
func (h *Hub) Identity() string {
	return strconv.FormatUint(h.log.CachedInfo().Config.FirstSeq, 36)
}

// Conn is the connection to the hub, for what is asked of it without a Hub.
func (h *Hub) Conn() *nats.Conn { return h.conn }

// Connected says whether the hub can be reached now.
func (h *Hub) Connected() bool { return h.conn.IsConnected() }

// Close ends the connection and the embedded server. What was acknowledged is
// on disk.
func (h *Hub) Close() {
	if h.conn != nil {
		h.conn.Close()
	}
	if h.server != nil {
		h.server.stop()
	}
}

// dialUntil connects to the external hub, trying again while nobody answers.
func dialUntil(ctx context.Context, cfg Config) (*nats.Conn, error) {
	for {
		conn, err := Dial(cfg.External, append(keepTrying(cfg.Log, cfg.Reconnected),
			nats.Name("revocation-adapter"), nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(2))...)
		if err == nil || !unreachable(err) {
			return conn, err
		}
		cfg.Log.WithError(err).Warn("The hub cannot be reached, trying again")
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(time.Second):
		}
	}
}

// keepTrying keeps a connection alive for ever, whatever the servers answer while
// they are replaced, and says when it breaks.
func keepTrying(log logrus.FieldLogger, reconnected func()) []nats.Option {
	refused := rate.Sometimes{First: 1, Interval: time.Minute}
	return []nats.Option{
		nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.WithError(err).Warn("The connection to the hub is lost, trying again")
			}
		}),
		nats.ReconnectHandler(func(conn *nats.Conn) {
			log.WithField("hub", conn.ConnectedUrlRedacted()).Info("The hub is connected again")
			if reconnected != nil {
				reconnected()
			}
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			log.WithError(err).Debug("The hub cannot be reached")
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if refuses(err) { // at a reconnect, which only a person can mend
				refused.Do(func() { log.WithError(err).Error("The hub refuses the credentials, trying again") })
				return
			}
			log.WithError(err).Warn("The hub reports an error")
		}),
	}
}

// unreachable says whether another try may help.
func unreachable(err error) bool {
	if bad := new(url.Error); errors.As(err, &bad) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return false
	}
	return !errors.Is(err, ErrRefused) && !errors.Is(err, ErrConfig)
}

// Dial connects to a NATS server as ext says.
func Dial(ext ExternalConfig, opts ...nats.Option) (*nats.Conn, error) {
	identity, err := ext.identity()
	if err != nil {
		return nil, err
	}
	opts = append(opts, identity...)
	if ext.CA != "" {
		opts = append(opts, nats.RootCAs(ext.CA))
	}
	if ext.Cert != "" {
		opts = append(opts, nats.ClientCert(ext.Cert, ext.Key))
	}
	conn, err := nats.Connect(strings.Join(ext.URLs, ","), opts...)
	if err != nil {
		return nil, ext.explain(err, opts)
	}
	return conn, nil
}

// identity is who connects. The files are read here: a connection would try
// again with one that is damaged.
func (ext ExternalConfig) identity() (opts []nats.Option, err error) {
	if ext.User != "" {
		opts = append(opts, nats.UserInfo(ext.User, ext.Password))
	}
	if ext.Credentials != "" {
		if err := checkSeed(ext.Credentials); err != nil {
			return nil, fmt.Errorf("%w: credentials %s: %w", ErrConfig, ext.Credentials, err)
		}
		opts = append(opts, nats.UserCredentials(ext.Credentials))
	}
	if ext.NKey != "" {
		nkey, err := nats.NkeyOptionFromSeed(ext.NKey)
		if err != nil {
			return nil, fmt.Errorf("%w: nkey %s: %w", ErrConfig, ext.NKey, err)
		}
		opts = append(opts, nkey)
	}
	return opts, nil
}

func checkSeed(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	kp, err := nkeys.ParseDecoratedUserNKey(text)
	if err != nil {
		return err
	}
	kp.Wipe()
	return nil
}

// explain says which of the servers' errors counts. A connection reports the
// last server's: "no servers available" where one of them refused the
// credentials and the next one is away.
func (ext ExternalConfig) explain(err error, opts []nats.Option) error {
	for i := 0; !refuses(err); i++ {
		if i == len(ext.URLs) || len(ext.URLs) == 1 {
			return err
		}
		conn, one := nats.Connect(ext.URLs[i], opts...)
		if one == nil {
			conn.Close() // it is back: the next try will do
			return err
		}
		if refuses(one) {
			err = one
		}
	}
	return fmt.Errorf("%w (%s): %w", ErrRefused, ext.who(), err)
}

func refuses(err error) bool {
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) ||
		errors.Is(err, nats.ErrAuthRevoked) || errors.Is(err, nats.ErrAccountAuthExpired) ||
		errors.Is(err, nats.ErrNkeysNotSupported)
}

// who names the credentials without their secret.
func (ext ExternalConfig) who() string {
	switch {
	case ext.User != "":
		return "user " + ext.User
	case ext.Credentials != "":
		return "credentials " + ext.Credentials
	case ext.NKey != "":
		return "nkey " + ext.NKey
	case strings.Contains(strings.Join(ext.URLs, ""), "@"):
		return "those of the URL"
	}
	return "none are given"
}
