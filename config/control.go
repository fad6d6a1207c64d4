package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"revocation-adapter/config/jwks"
	"revocation-adapter/config/strict"
)

// Control is the side that operators and clients connect to: health, metrics, the
// control API.
type Control struct {
	// Listen is the host:port for operators; port 0 takes a free one.
	Listen string `toml:"listen"`
	// Insecure allows plaintext beyond loopback.
	Insecure bool `toml:"insecure"`
	// AllowQueryCredentials takes client_id and client_secret from the query of a
	// request, where proxies and browsers log them.
	AllowQueryCredentials bool `toml:"allow_query_credentials"`
	// RequestsPerSecond is how often one client may call, in the long run; 0: no
	// limit. It may call twice as often at once.
	RequestsPerSecond int `toml:"requests_per_second"`
	// MaxBodyBytes is the largest body of POST /revocations.
	MaxBodyBytes int `toml:"max_body_bytes"`
	// TLS is the section [control.tls].
	TLS ServerTLS `toml:"tls"`
}

// The roles of a client.
const (
	RoleRevoke    = "revoke"       // its own tokens
	RoleRevokeAny = "revoke_any"   // any token, rules and lists
	RoleApprove   = "approve"      // re-approve what is revoked
	RoleGrants    = "grants"       // tell which tokens were issued together
	RoleAPIKey    = "apim:api_key" // revoke API keys with a token of its own
	RoleOperator  = "operator"     // names of gateways, explain, audit, dead letters, the page
)

// Roles are all there are.
func Roles() []string {
	return []string{RoleRevoke, RoleRevokeAny, RoleApprove, RoleGrants, RoleAPIKey, RoleOperator}
}

// Client may use the control API.
type Client struct {
	// ID is what RFC 6749 calls client_id.
	ID string `toml:"id"`
	// SecretHash is bcrypt of the secret.
	SecretHash Secret `toml:"secret_hash"`
	// Roles say what it may do.
	Roles []string `toml:"roles"`
	// RequestsPerSecond stands in for control.requests_per_second; 0: it does not.
	RequestsPerSecond int `toml:"requests_per_second"`
	// MaxBodyBytes stands in for control.max_body_bytes; 0: it does not.
	MaxBodyBytes int `toml:"max_body_bytes"`
}

// Issuer signs tokens that clients may revoke.
type Issuer struct {
	// Name is the claim iss, byte for byte.
	Name string `toml:"name"`
	// JWKS are files or URLs of JSON Web Key Sets.
	JWKS []strict.URL `toml:"jwks"`
	// CA is a PEM file that verifies the servers of JWKS.
	CA string `toml:"ca"`
	// Refresh is the time between two readings of the URLs.
	Refresh Duration `toml:"refresh"`
}

// Grants is the registry of tokens that were issued together.
type Grants struct {
	// Max is how many tokens are held, access and refresh; beyond that new ones are
	// refused.
	Max int `toml:"max"`
}

// Audit is the record of who did what.
type Audit struct {
	// Retention is how long entries are kept in the hub.
	Retention Duration `toml:"retention"`
	// MaxBytes is how much they may take there; the oldest go first.
	MaxBytes int64 `toml:"max_bytes"`
	// File is appended to, a JSON object per line; "": there is none.
	File string `toml:"file"`
}

// DefaultRefresh is that of an issuer that names none.
const DefaultRefresh = Duration(5 * time.Minute)

func (c Control) check(f *strict.Faults) {
	f.Listener("control", strict.Listener{Address: c.Listen, Secured: c.TLS.Cert != "", Insecure: c.Insecure})
	strict.Within(f, "control.requests_per_second", c.RequestsPerSecond, strict.From(0, 1_000_000))
	strict.Within(f, "control.max_body_bytes", c.MaxBodyBytes, strict.From(minBody, maxBody))
	c.TLS.Check(f, "control.tls")
}

// What a body may have, in bytes.
const (
	minBody = 4 << 10
	maxBody = 256 << 20
)

func checkClients(f *strict.Faults, clients []Client) {
	seen := map[string]bool{}
	for i, c := range clients {
		section := fmt.Sprintf("clients[%d]", i)
		if seen[c.ID] {
			f.Wrong(section+".id", "different for every client", strict.Quoted(c.ID))
		}
		seen[c.ID] = true
		c.check(f, section)
	}
}

func (c Client) check(f *strict.Faults, section string) {
	if err := CheckClientID(c.ID); err != nil {
		f.Wrong(section+".id", err.Error(), strict.Quoted(c.ID))
	}
	if c.SecretHash == "" {
		f.Add(section+".secret_hash", "is required: adapter client add prints one")
	}
	f.Bcrypt(section+".secret_hash", string(c.SecretHash))
	if len(c.Roles) == 0 {
		f.Wrong(section+".roles", "some of "+strings.Join(Roles(), ", "), "[]")
	}
	for i, role := range c.Roles {
		if !slices.Contains(Roles(), role) {
			f.Wrong(fmt.Sprintf("%s.roles[%d]", section, i), "one of "+strings.Join(Roles(), ", "), strict.Quoted(role))
		}
	}
	strict.Within(f, section+".requests_per_second", c.RequestsPerSecond, strict.From(0, 1_000_000))
	if c.MaxBodyBytes != 0 {
		strict.Within(f, section+".max_body_bytes", c.MaxBodyBytes, strict.From(minBody, maxBody))
	}
}

type clientIDError struct{}

func (clientIDError) Error() string {
	return "1 to 128 printable ASCII characters without a space or a colon"
}

// CheckClientID reports why id cannot be that of a client, or nil: it stands in
// Basic credentials, where a colon would end it.
func CheckClientID(id string) error {
	strange := func(c rune) bool { return c <= ' ' || c > '~' || c == ':' }
	if id == "" || len(id) > 128 || strings.ContainsFunc(id, strange) {
		return clientIDError{}
	}
	return nil
}

func checkIssuers(f *strict.Faults, issuers []Issuer) {
	seen := map[string]bool{}
	for i, s := range issuers {
		section := fmt.Sprintf("issuers[%d]", i)
		switch {
		case s.Name == "":
			f.Add(section+".name", "is required: the claim iss of its tokens")
		case seen[s.Name]:
			f.Wrong(section+".name", "different for every issuer", strict.Quoted(s.Name))
		}
		seen[s.Name] = true
		if len(s.JWKS) == 0 {
			f.Add(section+".jwks", "is required: files or https:// URLs of its keys")
		}
		for j, source := range s.JWKS {
			jwks.CheckSource(f, fmt.Sprintf("%s.jwks[%d]", section, j), source)
		}
		if s.Refresh != 0 {
			strict.Within(f, section+".refresh", s.Refresh, strict.From(Duration(10*time.Second), Duration(24*time.Hour)))
		}
	}
}

func (g Grants) check(f *strict.Faults) {
	strict.Within(f, "grants.max", g.Max, strict.From(1, 1_000_000_000))
}

func (a Audit) check(f *strict.Faults) {
	strict.Within(f, "audit.retention", a.Retention, strict.From(Duration(time.Hour), Duration(10*365*24*time.Hour)))
	strict.Within(f, "audit.max_bytes", a.MaxBytes, strict.From[int64](1<<20, 1<<40))
}

// issuerFiles are those that issuers name.
func issuerFiles(issuers []Issuer) (files []strict.File) {
	for i, s := range issuers {
		section := fmt.Sprintf("issuers[%d]", i)
		files = append(files, strict.File{Key: section + ".ca", Path: s.CA})
		for j, source := range s.JWKS {
			if jwks.IsFile(source) {
				files = append(files, strict.File{Key: fmt.Sprintf("%s.jwks[%d]", section, j), Path: string(source)})
			}
		}
	}
	return files
}
