// Package config is the configuration of the enforcer's process: one TOML file
// over defaults.
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

// What becomes of a call.
const (
	Deny  = "deny"
	Allow = "allow" // of what cannot be told
	Pass  = "pass"  // of what a call carries
)

// Config is the whole configuration, one field per section of the file.
type Config struct {
	// Log is the section [log].
	Log Log `toml:"log"`
	// Adapter is the section [adapter].
	Adapter Adapter `toml:"adapter"`
	// Gateway is the section [gateway].
	Gateway Gateway `toml:"gateway"`
	// Set is the section [set].
	Set Set `toml:"set"`
	// Tokens is the section [tokens].
	Tokens Tokens `toml:"tokens"`
	// JWT is the section [jwt].
	JWT JWT `toml:"jwt"`
	// OneTime are the sections [[one_time]].
	OneTime []OneTime `toml:"one_time"`
	// Claims is the section [claims].
	Claims Claims `toml:"claims"`
	// ExtAuthz is the section [ext_authz].
	ExtAuthz ExtAuthz `toml:"ext_authz"`
	// ForwardAuth is the section [forward_auth].
	ForwardAuth ForwardAuth `toml:"forward_auth"`
	// Control is the section [control].
	Control Control `toml:"control"`
}

// Log says what is logged.
type Log struct {
	// Level is the lowest level that is printed, in logrus' words.
	Level string `toml:"level"`
}

// Adapter says whom the enforcer follows.
type Adapter struct {
	// Addresses are host:port of the adapters' xDS ports; one is followed at a time.
	Addresses []string `toml:"addresses"`
	// Insecure allows plaintext beyond loopback.
	Insecure bool `toml:"insecure"`
	// TLS is the section [adapter.tls]; with CA the connection is TLS.
	TLS tlsfiles.Client `toml:"tls"`
}

// Gateway says who asks.
type Gateway struct {
	// Instance is the name of this gateway; empty: the machine's.
	Instance string `toml:"instance"`
	// Tenants are those that the gateway serves; empty: all.
	Tenants []string `toml:"tenants"`
}

// Set is what is known to be revoked.
type Set struct {
	// Grace is added to every expiry, against clock skew.
	Grace strict.Duration `toml:"grace"`
	// MaxStaleness is after how long without news the set is stale; 0: never.
	MaxStaleness strict.Duration `toml:"max_staleness"`
	// OnStale is Deny or Allow.
	OnStale string `toml:"on_stale"`
	// SnapshotFile keeps the set over a restart; empty: it is not kept.
	SnapshotFile string `toml:"snapshot_file"`
	// SnapshotEvery is the time between two writings of it.
	SnapshotEvery strict.Duration `toml:"snapshot_every"`
}

// Tokens says where a call carries its tokens.
type Tokens struct {
	// Bearer takes those of the header Authorization.
	Bearer bool `toml:"bearer"`
	// APIKeyHeader is the header that carries an API key; empty: none.
	APIKeyHeader string `toml:"api_key_header"`
	// Cookie is the name of a cookie with a token; empty: none.
	Cookie string `toml:"cookie"`
	// Query is the name of a query parameter with a token; empty: none.
	Query string `toml:"query"`
	// Missing is Pass or Deny, for a call without a token.
	Missing string `toml:"missing"`
	// Opaque is Pass or Deny, for an opaque token that is not revoked.
	Opaque string `toml:"opaque"`
}

// JWT says how tokens are verified. Without JWKS they are not.
type JWT struct {
	// JWKS are files or URLs of JSON Web Key Sets.
	JWKS []strict.URL `toml:"jwks"`
	// CA is a PEM file that verifies the servers of JWKS.
	CA string `toml:"ca"`
	// Issuer are the values of iss that are accepted; empty: any.
	Issuer []string `toml:"issuer"`
	// Audience are the values of aud of which one must be there; empty: any.
	Audience []string `toml:"audience"`
	// Refresh is the time between two readings of URLs.
	Refresh strict.Duration `toml:"refresh"`
	// Leeway is added to exp, and taken from nbf.
	Leeway strict.Duration `toml:"leeway"`
}

// OneTime is a route on which a token is used up.
type OneTime struct {
	// Path is exact, or a prefix that ends with /*.
	Path string `toml:"path"`
	// Methods are those of the route; empty: all.
	Methods []string `toml:"methods"`
	// Scope marks the tokens that are used up.
	Scope string `toml:"scope"`
	// All uses up every token.
	All bool `toml:"all"`
}

// Claims says how tokens are used up.
type Claims struct {
	// OnUnreachable is Deny or Allow, while no adapter answers.
	OnUnreachable string `toml:"on_unreachable"`
	// Timeout is how long all claims of a call may take.
	Timeout strict.Duration `toml:"timeout"`
}

// ExtAuthz is the gRPC service that Envoy asks.
type ExtAuthz struct {
	// Listen is host:port; empty: there is none.
	Listen string `toml:"listen"`
	// Insecure allows plaintext beyond loopback.
	Insecure bool `toml:"insecure"`
	// TLS is the section [ext_authz.tls].
	TLS tlsfiles.Server `toml:"tls"`
}

// ForwardAuth is the HTTP service that other gateways ask.
type ForwardAuth struct {
	// Listen is host:port; empty: there is none.
	Listen string `toml:"listen"`
	// Insecure allows plaintext beyond loopback.
	Insecure bool `toml:"insecure"`
	// OriginalURI are the headers that name the URI of the call.
	OriginalURI []string `toml:"original_uri"`
	// OriginalMethod are the headers that name its method.
	OriginalMethod []string `toml:"original_method"`
	// TLS is the section [forward_auth.tls].
	TLS tlsfiles.Server `toml:"tls"`
}

// Control is the side that operators connect to.
type Control struct {
	// Listen is host:port; port 0 takes a free one.
	Listen string `toml:"listen"`
	// Insecure allows plaintext beyond loopback.
	Insecure bool `toml:"insecure"`
	// Username is for /revoked_tokens, which does not exist without it.
	Username string `toml:"username"`
	// Password belongs to Username.
	Password strict.Secret `toml:"password"`
	// PasswordHash is bcrypt of the password, in place of it.
	PasswordHash strict.Secret `toml:"password_hash"`
	// TLS is the section [control.tls].
	TLS tlsfiles.Server `toml:"tls"`
}

// Default is the configuration of an empty file.
func Default() Config {
	return Config{
		Log:     Log{Level: "info"},
		Adapter: Adapter{Addresses: []string{"127.0.0.1:18000"}},
		Set: Set{
			Grace:         strict.Duration(10 * time.Minute),
			MaxStaleness:  strict.Duration(5 * time.Minute),
			OnStale:       Deny,
			SnapshotFile:  "data/enforcer.snapshot",
			SnapshotEvery: strict.Duration(30 * time.Second),
		},
		Tokens:   Tokens{Bearer: true, APIKeyHeader: "ApiKey", Missing: Pass, Opaque: Pass},
		JWT:      JWT{Refresh: strict.Duration(5 * time.Minute)},
		Claims:   Claims{OnUnreachable: Deny, Timeout: strict.Duration(2 * time.Second)},
		ExtAuthz: ExtAuthz{Listen: "127.0.0.1:8081"},
		ForwardAuth: ForwardAuth{
			Listen:         "127.0.0.1:8082",
			OriginalURI:    []string{"X-Original-URI", "X-Forwarded-Uri"},
			OriginalMethod: []string{"X-Original-Method", "X-Forwarded-Method"},
		},
		Control: Control{Listen: "127.0.0.1:9001"},
	}
}

// Load reads the file at path with the process's environment, checks it and the
// files it names.
func Load(path string) (Config, error) { return strict.Load(path, Default()) }

// Read reads TOML over the defaults and checks the outcome, without looking at
// the files it names. The environment is asked through env.
func Read(source io.Reader, env strict.Environment) (Config, error) {
	return strict.Read(source, env, Default())
}

// Effective is the configuration as TOML with secrets masked. Read accepts it.
func (c Config) Effective() ([]byte, error) { return strict.Effective(c) }
