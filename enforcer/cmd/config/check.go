package config

import (
	"fmt"
	"net"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"

	"revocation-adapter/config/jwks"
	"revocation-adapter/config/strict"
)

// Check reports every broken rule that can be seen without touching a file.
func (c Config) Check(f *strict.Faults) {
	f.Level("log.level", c.Log.Level)
	c.Adapter.check(f)
	c.Gateway.check(f)
	c.Set.check(f)
	c.Tokens.check(f)
	c.JWT.check(f)
	for i, route := range c.OneTime {
		section := fmt.Sprintf("one_time[%d]", i)
		route.check(f, section)
		if c.ForwardAuth.Listen != "" && route.isAsked() {
			f.Add(section+".path", `is what gateways ask forward_auth itself, "GET /", so that every call would use up its token: `+
				`name a longer path or other methods, or for all calls "/*" without methods, or set forward_auth.listen = "" if no gateway asks over HTTP`)
		}
	}
	c.Claims.check(f)
	c.ExtAuthz.check(f)
	c.ForwardAuth.check(f)
	c.Control.check(f)
}

func (a Adapter) check(f *strict.Faults) {
	if len(a.Addresses) == 0 {
		f.Add("adapter.addresses", "is required, host:port of one adapter at least")
	}
	for i, address := range a.Addresses {
		key := fmt.Sprintf("adapter.addresses[%d]", i)
		host, port, err := net.SplitHostPort(address)
		if err != nil || !strict.IsHost(host) || !strict.IsPort(port) {
			f.Wrong(key, "host:port", strict.Quoted(address))
			continue
		}
		if !strict.IsLoopback(host) && a.TLS.CA == "" && !a.Insecure {
			f.Add(key, "plaintext beyond loopback: set adapter.tls.ca, or adapter.insecure = true")
		}
	}
	f.Pair("adapter.tls", a.TLS.Cert, a.TLS.Key)
	if a.TLS.Cert != "" && a.TLS.CA == "" {
		f.Add("adapter.tls.ca", "is required with adapter.tls.cert")
	}
}

func (g Gateway) check(f *strict.Faults) {
	for i, tenant := range g.Tenants {
		if tenant == "" || len(tenant) > 256 || strings.Contains(tenant, ",") {
			f.Wrong(fmt.Sprintf("gateway.tenants[%d]", i), "a name of at most 256 bytes, without a comma", strict.Quoted(tenant))
		}
	}
}

func (s Set) check(f *strict.Faults) {
	const day = strict.Duration(24 * time.Hour)
	strict.Within(f, "set.grace", s.Grace, strict.From(0, day))
	if s.MaxStaleness != 0 {
		strict.Within(f, "set.max_staleness", s.MaxStaleness, strict.From(strict.Duration(5*time.Second), day)) // adapters give a sign every 2s
	}
	oneOf(f, "set.on_stale", s.OnStale, [2]string{Deny, Allow})
	strict.Within(f, "set.snapshot_every", s.SnapshotEvery, strict.From(strict.Duration(time.Second), strict.Duration(time.Hour)))
}

func (t Tokens) check(f *strict.Faults) {
	if !t.Bearer && t.APIKeyHeader == "" && t.Cookie == "" && t.Query == "" {
		f.Add("tokens.bearer", "is false, and no other way to a token is set: every call would pass")
	}
	if t.APIKeyHeader != "" {
		header(f, "tokens.api_key_header", t.APIKeyHeader)
	}
	for _, name := range []string{"Authorization", "Cookie"} {
		if strings.EqualFold(t.APIKeyHeader, name) {
			f.Add("tokens.api_key_header", "cannot be "+name+": set tokens.bearer or tokens.cookie")
		}
	}
	if t.Cookie != "" {
		header(f, "tokens.cookie", t.Cookie) // a cookie's name has the letters of a header's
	}
	if strings.ContainsFunc(t.Query, func(c rune) bool { return !unicode.IsPrint(c) || strings.ContainsRune(" &;=+%", c) }) {
		f.Wrong("tokens.query", "the name of a parameter as it is when decoded", strict.Quoted(t.Query))
	}
	oneOf(f, "tokens.missing", t.Missing, [2]string{Pass, Deny})
	oneOf(f, "tokens.opaque", t.Opaque, [2]string{Pass, Deny})
}

func (j JWT) check(f *strict.Faults) {
	for i, source := range j.JWKS {
		jwks.CheckSource(f, fmt.Sprintf("jwt.jwks[%d]", i), source)
	}
	for _, key := range []struct {
		name string
		set  bool
	}{{"jwt.ca", j.CA != ""}, {"jwt.issuer", len(j.Issuer) > 0}, {"jwt.audience", len(j.Audience) > 0}} {
		if key.set && len(j.JWKS) == 0 {
			f.Add(key.name, "has no effect without jwt.jwks")
		}
	}
	strict.Within(f, "jwt.refresh", j.Refresh, strict.From(strict.Duration(10*time.Second), strict.Duration(24*time.Hour)))
	strict.Within(f, "jwt.leeway", j.Leeway, strict.From(0, strict.Duration(10*time.Minute)))
}

func (o OneTime) check(f *strict.Faults, section string) {
	base := strings.TrimSuffix(o.Path, "/*")
	resolved := path.Clean("/"+base) == "/"+strings.Trim(base, "/")
	if !strings.HasPrefix(o.Path, "/") || !resolved || strings.ContainsAny(base, "*?#%;\\ ") || strings.Contains(base, "//") {
		f.Wrong(section+".path", `a decoded path such as "/pay", or a prefix such as "/pay/*"`, strict.Quoted(o.Path))
	}
	for i, method := range o.Methods {
		header(f, fmt.Sprintf("%s.methods[%d]", section, i), method)
	}
	switch {
	case o.Scope == "" && !o.All:
		f.Add(section+".scope", "is required, or "+section+".all = true")
	case o.Scope != "" && o.All:
		f.Add(section+".all", "cannot be combined with "+section+".scope")
	case strings.ContainsFunc(o.Scope, unicode.IsSpace):
		f.Wrong(section+".scope", "one scope", strict.Quoted(o.Scope))
	}
}

// isAsked says whether the route is for "GET /", by which gateways ask whatever the
// call is, and not for every call anyway.
func (o OneTime) isAsked() bool {
	get := slices.ContainsFunc(o.Methods, func(m string) bool { return strings.EqualFold(m, "GET") })
	return o.Path == "/" && (get || len(o.Methods) == 0) || o.Path == "/*" && get
}

func (c Claims) check(f *strict.Faults) {
	oneOf(f, "claims.on_unreachable", c.OnUnreachable, [2]string{Deny, Allow})
	strict.Within(f, "claims.timeout", c.Timeout, strict.From(strict.Duration(50*time.Millisecond), strict.Duration(30*time.Second)))
}

func (e ExtAuthz) check(f *strict.Faults) {
	if e.Listen != "" {
		f.Listener("ext_authz", strict.Listener{Address: e.Listen, Secured: e.TLS.Cert != "", Insecure: e.Insecure})
	}
	e.TLS.Check(f, "ext_authz.tls")
}

func (a ForwardAuth) check(f *strict.Faults) {
	if a.Listen != "" {
		f.Listener("forward_auth", strict.Listener{Address: a.Listen, Secured: a.TLS.Cert != "", Insecure: a.Insecure})
	}
	for i, name := range a.OriginalURI {
		header(f, fmt.Sprintf("forward_auth.original_uri[%d]", i), name)
	}
	for i, name := range a.OriginalMethod {
		header(f, fmt.Sprintf("forward_auth.original_method[%d]", i), name)
	}
	a.TLS.Check(f, "forward_auth.tls")
}

func (c Control) check(f *strict.Faults) {
	f.Listener("control", strict.Listener{Address: c.Listen, Secured: c.TLS.Cert != "", Insecure: c.Insecure})
	f.Credentials("control", strict.Credentials{
		Username: c.Username, Password: string(c.Password), PasswordHash: string(c.PasswordHash),
	})
	c.TLS.Check(f, "control.tls")
}

func oneOf(f *strict.Faults, key, value string, of [2]string) {
	if value != of[0] && value != of[1] {
		f.Wrong(key, fmt.Sprintf("%q or %q", of[0], of[1]), strict.Quoted(value))
	}
}

// header refuses what cannot be the name of a header, a cookie or a method.
func header(f *strict.Faults, key, name string) {
	if name == "" || strings.ContainsFunc(name, func(c rune) bool {
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		return !alphanumeric && !strings.ContainsRune("!#$%&'*+-.^_`|~", c)
	}) {
		f.Wrong(key, "a name as HTTP has them", strict.Quoted(name))
	}
}

// Files are those that the configuration names, except the snapshot, which need
// not be there yet.
func (c Config) Files() []strict.File {
	files := []strict.File{
		{Key: "adapter.tls.ca", Path: c.Adapter.TLS.CA},
		{Key: "adapter.tls.cert", Path: c.Adapter.TLS.Cert},
		{Key: "adapter.tls.key", Path: c.Adapter.TLS.Key, Secret: true},
		{Key: "jwt.ca", Path: c.JWT.CA},
	}
	for i, source := range c.JWT.JWKS {
		if jwks.IsFile(source) {
			files = append(files, strict.File{Key: fmt.Sprintf("jwt.jwks[%d]", i), Path: string(source)})
		}
	}
	files = append(files, c.ExtAuthz.TLS.Files("ext_authz.tls")...)
	files = append(files, c.ForwardAuth.TLS.Files("forward_auth.tls")...)
	return append(files, c.Control.TLS.Files("control.tls")...)
}
