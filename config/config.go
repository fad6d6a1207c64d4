// Package config is the adapter's configuration: one TOML file over defaults.
//
// Package strict reads it: unknown keys are refused and all faults are reported at
// once, each by its key. No error and no output of the package holds a secret.
package config

import (
	"io"
	"time"

	"revocation-adapter/config/strict"
	"revocation-adapter/config/tlsfiles"
)

type (
	// Duration is written as time.ParseDuration reads it.
	Duration = strict.Duration
	// Secret prints and marshals as a mask.
	Secret = strict.Secret
	// URL prints and marshals without its password.
	URL = strict.URL
	// ServerTLS holds paths of PEM files. Without Cert a listener is plaintext.
	ServerTLS = tlsfiles.Server
)

// The values of hub.mode.
const (
	ModeEmbedded = "embedded" // a NATS server inside the adapter
	ModeExternal = "external" // an existing NATS cluster
)

// Config is the whole configuration, one field per section of the file.
type Config struct {
	// Log is the section [log].
	Log Log `toml:"log"`
	// Hub is the section [hub].
	Hub Hub `toml:"hub"`
	// Revocation is the section [revocation].
	Revocation Revocation `toml:"revocation"`
	// Rules is the section [rules].
	Rules Rules `toml:"rules"`
	// Ingest is the section [ingest].
	Ingest Ingest `toml:"ingest"`
	// AMQP is the section [amqp].
	AMQP AMQP `toml:"amqp"`
	// ControlPlane is the section [control_plane].
	ControlPlane ControlPlane `toml:"control_plane"`
	// Notify is the section [notify].
	Notify Notify `toml:"notify"`
	// XDS is the section [xds].
	XDS XDS `toml:"xds"`
	// Receipts is the section [receipts].
	Receipts Receipts `toml:"receipts"`
	// Control is the section [control].
	Control Control `toml:"control"`
	// Clients are the sections [[clients]].
	Clients []Client `toml:"clients"`
	// Issuers are the sections [[issuers]].
	Issuers []Issuer `toml:"issuers"`
	// Grants is the section [grants].
	Grants Grants `toml:"grants"`
	// Audit is the section [audit].
	Audit Audit `toml:"audit"`
}

// Log says what is logged.
type Log struct {
	// Level is the lowest level that is printed, in logrus' words: panic,
	// fatal, error, warn, info or debug.
	Level string `toml:"level"`
}

// Hub is the NATS server with the streams that hold every event.
type Hub struct {
	// Mode is ModeEmbedded or ModeExternal.
	Mode string `toml:"mode"`
	// Listen is the host:port of the embedded server; port 0 takes a free one.
	Listen string `toml:"listen"`
	// Store is the directory of the embedded server's streams. Beside it is the
	// file with the newest version that was shown, in both modes.
	Store string `toml:"store"`
	// Insecure allows plaintext beyond loopback, listening or dialling.
	Insecure bool `toml:"insecure"`
	// URLs are the servers of the external cluster, nats:// or tls://.
	URLs []URL `toml:"urls"`
	// User is the name for the external cluster, where it wants a password.
	User string `toml:"user"`
	// Password belongs to User.
	Password Secret `toml:"password"`
	// Credentials is the path of a .creds file for the external cluster.
	Credentials string `toml:"credentials"`
	// NKey is the path of a file with an nkey seed for the external cluster.
	NKey string `toml:"nkey"`
	// Replicas is how many servers of the external cluster hold each stream:
	// 1, 3 or 5.
	Replicas int `toml:"replicas"`
	// MaxPending is how many events INGEST may hold before publishers get an
	// error.
	MaxPending int64 `toml:"max_pending"`
	// MaxPendingBytes is the same limit in bytes; the first one reached counts.
	MaxPendingBytes int64 `toml:"max_pending_bytes"`
	// TLS is the section [hub.tls].
	TLS HubTLS `toml:"tls"`
}

// HubTLS holds paths of PEM files: the server's side of an embedded hub, the
// client's side towards an external one.
type HubTLS struct {
	// CA verifies clients (embedded) or the cluster (external).
	CA string `toml:"ca"`
	// Cert is the certificate with its chain.
	Cert string `toml:"cert"`
	// Key is the private key of Cert.
	Key string `toml:"key"`
}

// Revocation says how long revocations count, and how many are held.
type Revocation struct {
	// Grace is added to every expiry that is acted on, against clock skew.
	Grace Duration `toml:"grace"`
	// UnknownLifetime is how long a revocation without an expiry is kept.
	UnknownLifetime Duration `toml:"unknown_lifetime"`
	// PurgeInterval is the time between two removals of what has expired.
	PurgeInterval Duration `toml:"purge_interval"`
	// MaxLive is how many revocations are held before new ones are refused.
	MaxLive int `toml:"max_live"`
}

// Rules says of which claims rules are made: events that revoke what was issued
// before a time.
type Rules struct {
	// ClientClaim is the claim of a token that names its client.
	ClientClaim string `toml:"client_claim"`
	// UserClaim is the claim of a token that names its user.
	UserClaim string `toml:"user_claim"`
	// Claims are those that an event of type claim_rule may name.
	Claims []string `toml:"claims"`
	// MaxTokenLifetime is how long any token lives: a rule is kept so long after
	// the time that it names. 0 is for ever.
	MaxTokenLifetime Duration `toml:"max_token_lifetime"`
}

// Ingest says how events are taken from the hub.
type Ingest struct {
	// MaxDeliveries is how often an event is tried before it becomes a dead
	// letter.
	MaxDeliveries int `toml:"max_deliveries"`
	// Workers is how many batches of events are written at the same time.
	Workers int `toml:"workers"`
}

// XDS is the side that gateways connect to.
type XDS struct {
	// Listen is the host:port for gateways; port 0 takes a free one.
	Listen string `toml:"listen"`
	// Label names the token cache in the log line of each publication.
	Label string `toml:"label"`
	// Insecure allows plaintext beyond loopback.
	Insecure bool `toml:"insecure"`
	// MaxReceiveBytes is the size of the largest accepted request, in bytes. A
	// reconnecting delta client lists every name it holds.
	MaxReceiveBytes int `toml:"max_receive_bytes"`
	// MaxStreams is how many streams all gateways together may hold; 0 is no
	// limit.
	MaxStreams int `toml:"max_streams"`
	// TLS is the section [xds.tls].
	TLS ServerTLS `toml:"tls"`
}

// Receipts says what is remembered of gateways.
type Receipts struct {
	// Memory is how long a gateway that is gone is listed as unreachable.
	Memory Duration `toml:"memory"`
}

// Load reads the file at path with the process's environment, checks it and the
// files it names. The error names path and holds every fault.
func Load(path string) (Config, error) { return strict.Load(path, Default()) }

// Read reads TOML over the defaults and checks the outcome, without looking at
// the files it names. The environment is asked through env, in the manner of
// os.LookupEnv. The error joins every fault.
func Read(source io.Reader, env func(string) (string, bool)) (Config, error) {
	return strict.Read(source, env, Default())
}

// Default is the configuration of an empty file.
func Default() Config {
	return Config{
		Log: Log{Level: "info"},
		Hub: Hub{
			Mode:            ModeEmbedded,
			Listen:          "127.0.0.1:4222",
			Store:           "data/hub",
			Replicas:        3,
			MaxPending:      1_000_000,
			MaxPendingBytes: 1 << 30,
		},
		Revocation: Revocation{
			Grace:           Duration(10 * time.Minute),
			UnknownLifetime: Duration(90 * 24 * time.Hour),
			PurgeInterval:   Duration(time.Minute),
			MaxLive:         10_000_000,
		},
		Rules: Rules{
			ClientClaim:      "azp",
			UserClaim:        "sub",
			Claims:           []string{"sub", "azp", "client_id", "sid", "origin_jti"},
			MaxTokenLifetime: Duration(90 * 24 * time.Hour),
		},
		Ingest:       Ingest{MaxDeliveries: 10, Workers: 2},
		ControlPlane: ControlPlane{Interval: Duration(15 * time.Minute)},
		XDS: XDS{
			Listen:          "127.0.0.1:18000",
			Label:           "commonEnforcerLabel",
			MaxReceiveBytes: 4 << 20,
			MaxStreams:      20_000,
		},
		Receipts: Receipts{Memory: Duration(10 * time.Minute)},
		Control:  Control{Listen: "127.0.0.1:9843", RequestsPerSecond: 1000, MaxBodyBytes: 16 << 20},
		Grants:   Grants{Max: 2_000_000},
		Audit:    Audit{Retention: Duration(400 * 24 * time.Hour), MaxBytes: 1 << 30},
	}
}
