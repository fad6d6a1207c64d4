package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"revocation-adapter/config/strict"
	"revocation-adapter/enforcer/cmd/config"
)

func read(text string) (config.Config, error) {
	env := func(name string) (string, bool) { return "hunter2", name == "SECRET" }
	return config.Read(strings.NewReader(text), env)
}

type change = func(*config.Config)

func TestCheck(t *testing.T) {
	const route = "one_time[0].path: must be a decoded path such as \"/pay\", or a prefix such as \"/pay/*\", is "
	const asked = `one_time[0].path: is what gateways ask forward_auth itself, "GET /", so that every call would use up its token: ` +
		`name a longer path or other methods, or for all calls "/*" without methods, or set forward_auth.listen = "" if no gateway asks over HTTP`
	oneTime := func(o config.OneTime) change { return func(c *config.Config) { c.OneTime = []config.OneTime{o} } }
	jwks := func(u strict.URL) change { return func(c *config.Config) { c.JWT.JWKS = []strict.URL{u} } }
	for name, tc := range map[string]struct {
		change change
		want   string // "": accepted
	}{
		"defaults":                {func(*config.Config) {}, ""},
		"level":                   {func(c *config.Config) { c.Log.Level = "x" }, "log.level: must be panic, fatal, error, warn, info or debug, is \"x\""},
		"no adapter":              {func(c *config.Config) { c.Adapter.Addresses = nil }, "adapter.addresses: is required, host:port of one adapter at least"},
		"no port":                 {func(c *config.Config) { c.Adapter.Addresses = []string{"a"} }, "adapter.addresses[0]: must be host:port, is \"a\""},
		"plaintext":               {func(c *config.Config) { c.Adapter.Addresses = []string{"127.0.0.1:1", "a:1"} }, "adapter.addresses[1]: plaintext beyond loopback: set adapter.tls.ca, or adapter.insecure = true"},
		"plaintext, allowed":      {func(c *config.Config) { c.Adapter.Addresses, c.Adapter.Insecure = []string{"a:1"}, true }, ""},
		"TLS":                     {func(c *config.Config) { c.Adapter.Addresses, c.Adapter.TLS.CA = []string{"a:1"}, "ca" }, ""},
		"half a certificate":      {func(c *config.Config) { c.Adapter.TLS.CA, c.Adapter.TLS.Cert = "ca", "c" }, "adapter.tls.key: is required with adapter.tls.cert"},
		"a certificate alone":     {func(c *config.Config) { c.Adapter.TLS.Cert, c.Adapter.TLS.Key = "c", "k" }, "adapter.tls.ca: is required with adapter.tls.cert"},
		"tenant":                  {func(c *config.Config) { c.Gateway.Tenants = []string{"a,b"} }, "gateway.tenants[0]: must be a name of at most 256 bytes, without a comma, is \"a,b\""},
		"grace":                   {func(c *config.Config) { c.Set.Grace = -1 }, "set.grace: must be from 0s to 24h, is -1ns"},
		"never stale":             {func(c *config.Config) { c.Set.MaxStaleness = 0 }, ""},
		"stale at once":           {func(c *config.Config) { c.Set.MaxStaleness = 1 }, "set.max_staleness: must be from 5s to 24h, is 1ns"},
		"stale between two signs": {func(c *config.Config) { c.Set.MaxStaleness = strict.Duration(4 * time.Second) }, "set.max_staleness: must be from 5s to 24h, is 4s"},
		"on stale":                {func(c *config.Config) { c.Set.OnStale = "pass" }, "set.on_stale: must be \"deny\" or \"allow\", is \"pass\""},
		"snapshot":                {func(c *config.Config) { c.Set.SnapshotEvery = 0 }, "set.snapshot_every: must be from 1s to 1h, is 0s"},
		"no token":                {func(c *config.Config) { c.Tokens.Bearer, c.Tokens.APIKeyHeader = false, "" }, "tokens.bearer: is false, and no other way to a token is set: every call would pass"},
		"a cookie alone":          {func(c *config.Config) { c.Tokens = config.Tokens{Cookie: "a", Missing: "deny", Opaque: "deny"} }, ""},
		"header":                  {func(c *config.Config) { c.Tokens.APIKeyHeader = "a b" }, "tokens.api_key_header: must be a name as HTTP has them, is \"a b\""},
		"header taken":            {func(c *config.Config) { c.Tokens.APIKeyHeader = "authorization" }, "tokens.api_key_header: cannot be Authorization: set tokens.bearer or tokens.cookie"},
		"cookie":                  {func(c *config.Config) { c.Tokens.Cookie = "a;b" }, "tokens.cookie: must be a name as HTTP has them, is \"a;b\""},
		"query":                   {func(c *config.Config) { c.Tokens.Query = "a%20" }, "tokens.query: must be the name of a parameter as it is when decoded, is \"a%20\""},
		"missing":                 {func(c *config.Config) { c.Tokens.Missing = "allow" }, "tokens.missing: must be \"pass\" or \"deny\", is \"allow\""},
		"opaque":                  {func(c *config.Config) { c.Tokens.Opaque = "" }, "tokens.opaque: must be \"pass\" or \"deny\", is \"\""},
		"keys of a file":          {jwks("keys.json"), ""},
		"keys of a URL":           {jwks("https://a/jwks"), ""},
		"keys on this machine":    {jwks("http://127.0.0.1:1/jwks"), ""},
		"keys in plaintext":       {jwks("http://a/jwks"), "jwt.jwks[0]: plaintext beyond loopback: use https://"},
		"keys by FTP":             {jwks("ftp://a/jwks"), "jwt.jwks[0]: must be a file or an https:// URL, is \"ftp://a/jwks\""},
		"keys with a password":    {jwks("https://u:hunter2@a/jwks"), "jwt.jwks[0]: names a user, which is not supported"},
		"no keys":                 {jwks(""), "jwt.jwks[0]: is empty: a file or an https:// URL"},
		"issuer without keys":     {func(c *config.Config) { c.JWT.Issuer = []string{"i"} }, "jwt.issuer: has no effect without jwt.jwks"},
		"audience without keys":   {func(c *config.Config) { c.JWT.Audience = []string{"i"} }, "jwt.audience: has no effect without jwt.jwks"},
		"refresh":                 {func(c *config.Config) { c.JWT.Refresh = 0 }, "jwt.refresh: must be from 10s to 24h, is 0s"},
		"leeway":                  {func(c *config.Config) { c.JWT.Leeway = -1 }, "jwt.leeway: must be from 0s to 10m, is -1ns"},
		"a route":                 {oneTime(config.OneTime{Path: "/pay/*", Methods: []string{"POST"}, Scope: "OTT"}), ""},
		"every route":             {oneTime(config.OneTime{Path: "/*", All: true}), ""},
		"every route, POST":       {oneTime(config.OneTime{Path: "/*", Methods: []string{"POST"}, All: true}), ""},
		"every route, get":        {oneTime(config.OneTime{Path: "/*", Methods: []string{"POST", "get"}, All: true}), asked},
		"the root":                {oneTime(config.OneTime{Path: "/", All: true}), asked},
		"the root, POST":          {oneTime(config.OneTime{Path: "/", Methods: []string{"POST"}, Scope: "OTT"}), ""},
		"the root, gRPC alone": {func(c *config.Config) {
			oneTime(config.OneTime{Path: "/", All: true})(c)
			c.ForwardAuth.Listen = ""
		}, ""},
		"a route without a path":  {oneTime(config.OneTime{All: true}), route + `""`},
		"a star inside":           {oneTime(config.OneTime{Path: "/*/a", All: true}), route + `"/*/a"`},
		"a route with dots":       {oneTime(config.OneTime{Path: "/a/../b/*", All: true}), route + `"/a/../b/*"`},
		"a route with a dot":      {oneTime(config.OneTime{Path: "/./b", All: true}), route + `"/./b"`},
		"a route with a slash":    {oneTime(config.OneTime{Path: "/a.b/c/", All: true}), ""},
		"an encoded route":        {oneTime(config.OneTime{Path: "/a%2f", All: true}), route + `"/a%2f"`},
		"a route without a scope": {oneTime(config.OneTime{Path: "/a"}), "one_time[0].scope: is required, or one_time[0].all = true"},
		"scope and all":           {oneTime(config.OneTime{Path: "/a", Scope: "a", All: true}), "one_time[0].all: cannot be combined with one_time[0].scope"},
		"two scopes":              {oneTime(config.OneTime{Path: "/a", Scope: "a b"}), "one_time[0].scope: must be one scope, is \"a b\""},
		"no method":               {oneTime(config.OneTime{Path: "/a", All: true, Methods: []string{""}}), "one_time[0].methods[0]: must be a name as HTTP has them, is \"\""},
		"unreachable":             {func(c *config.Config) { c.Claims.OnUnreachable = "x" }, "claims.on_unreachable: must be \"deny\" or \"allow\", is \"x\""},
		"timeout":                 {func(c *config.Config) { c.Claims.Timeout = 0 }, "claims.timeout: must be from 50ms to 30s, is 0s"},
		"Envoy in plaintext":      {func(c *config.Config) { c.ExtAuthz.Listen = ":8081" }, "ext_authz.listen: plaintext beyond loopback: set ext_authz.tls.cert and key, or ext_authz.insecure = true"},
		"no Envoy":                {func(c *config.Config) { c.ExtAuthz.Listen = "" }, ""},
		"nginx in plaintext":      {func(c *config.Config) { c.ForwardAuth.Listen = ":8082" }, "forward_auth.listen: plaintext beyond loopback: set forward_auth.tls.cert and key, or forward_auth.insecure = true"},
		"nginx, allowed":          {func(c *config.Config) { c.ForwardAuth.Listen, c.ForwardAuth.Insecure = ":8082", true }, ""},
		"nginx's header":          {func(c *config.Config) { c.ForwardAuth.OriginalURI = []string{""} }, "forward_auth.original_uri[0]: must be a name as HTTP has them, is \"\""},
		"nginx's method":          {func(c *config.Config) { c.ForwardAuth.OriginalMethod = []string{"a b"} }, "forward_auth.original_method[0]: must be a name as HTTP has them, is \"a b\""},
		"control in plaintext":    {func(c *config.Config) { c.Control.Listen = ":9001" }, "control.listen: plaintext beyond loopback: set control.tls.cert and key, or control.insecure = true"},
		"password without a name": {func(c *config.Config) { c.Control.Password = "hunter2" }, "control.password: needs control.username"},
		"name without a password": {func(c *config.Config) { c.Control.Username = "u" }, "control.username: needs control.password or control.password_hash"},
		"authority alone":         {func(c *config.Config) { c.Control.TLS.ClientCA = "a" }, "control.tls.client_ca: needs control.tls.cert"},
	} {
		t.Run(name, func(t *testing.T) {
			c := config.Default()
			tc.change(&c)
			var f strict.Faults
			c.Check(&f)
			got := ""
			if err := f.Join(); err != nil {
				got = err.Error()
			}
			if got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestFilesAreLookedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "enforcer.toml")
	text := "[adapter.tls]\nca = \"/nowhere/ca\"\n[jwt]\njwks = [\"https://a/b\", \"/nowhere/keys\"]\n[ext_authz.tls]\ncert = \"/nowhere/cert\"\nkey = \"SECRET\"\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := config.Load(path)
	want := "configuration " + path + `:
adapter.tls.ca: cannot read the file: no such file or directory, is "/nowhere/ca"
jwt.jwks[1]: cannot read the file: no such file or directory, is "/nowhere/keys"
ext_authz.tls.cert: cannot read the file: no such file or directory, is "/nowhere/cert"
ext_authz.tls.key: cannot read the file: no such file or directory`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestEffectiveIsReadAgain(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":  "",
		"routes":   "[[one_time]]\npath = \"/a\"\nall = true\n[[one_time]]\npath = \"/b/*\"\nmethods = [\"POST\"]\nscope = \"OTT\"",
		"password": "[control]\nusername = \"u\"\npassword = \"$env{SECRET}\"",
		"hash":     "[control]\nusername = \"u\"\npassword_hash = \"$2a$04$7hVwHbkdHZpJ6LqvnJQ0zuOl5dF7CwT1wVT6jyjfjjZP5NgMPRw.q\"",
		"keys":     "[jwt]\njwks = [\"https://a/b?hunter2\", \"keys.json\"]\nissuer = [\"i\"]",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := read(text)
			if err != nil {
				t.Fatal(err)
			}
			shown, err := c.Effective()
			if err != nil || strings.Contains(string(shown), "hunter2") || strings.Contains(string(shown), "7hVwH") {
				t.Fatalf("got %s, %v", shown, err)
			}
			again, err := read(string(shown))
			if err != nil {
				t.Fatalf("%v in\n%s", err, shown)
			}
			if twice, err := again.Effective(); err != nil || string(twice) != string(shown) {
				t.Errorf("got\n%s\nthen\n%s, %v", shown, twice, err)
			}
		})
	}
}
