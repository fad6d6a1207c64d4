package config_test

import (
	"math"
	"testing"
	"time"

	"revocation-adapter/config"
)

type change = func(*config.Config)

func TestValidateAccepts(t *testing.T) {
	cases := map[string]change{
		"defaults":         func(*config.Config) {},
		"any free port":    func(c *config.Config) { c.XDS.Listen = "127.0.0.1:0" },
		"localhost":        func(c *config.Config) { c.XDS.Listen = "localhost:1" },
		"other loopback":   func(c *config.Config) { c.XDS.Listen = "127.8.8.8:1" },
		"IPv6 loopback":    func(c *config.Config) { c.XDS.Listen = "[::1]:1" },
		"mapped loopback":  func(c *config.Config) { c.XDS.Listen = "[::ffff:127.0.0.1]:1" },
		"hub insecure":     func(c *config.Config) { c.Hub.Listen, c.Hub.Insecure = "0.0.0.0:1", true },
		"xds insecure":     func(c *config.Config) { c.XDS.Listen, c.XDS.Insecure = ":1", true },
		"control insecure": func(c *config.Config) { c.Control.Listen, c.Control.Insecure = "[::]:1", true },
		"hub with TLS": func(c *config.Config) {
			c.Hub.Listen, c.Hub.TLS = "0.0.0.0:1", config.HubTLS{Cert: "c", Key: "k", CA: "a"}
		},
		"xds with TLS":             func(c *config.Config) { c.XDS.Listen, c.XDS.TLS = "h:1", config.ServerTLS{Cert: "c", Key: "k"} },
		"control with mutual TLS":  func(c *config.Config) { c.Control.TLS = config.ServerTLS{Cert: "c", Key: "k", ClientCA: "a"} },
		"no limit of streams":      func(c *config.Config) { c.XDS.MaxStreams = 0 },
		"label beyond ASCII":       func(c *config.Config) { c.XDS.Label = "é/1" },
		"no claims":                func(c *config.Config) { c.Rules.Claims = nil },
		"rules for ever":           func(c *config.Config) { c.Rules.MaxTokenLifetime = 0 },
		"lowest":                   func(c *config.Config) { set(c, 0, time.Hour, time.Second, 1); c.Hub.MaxPending = 1000 },
		"highest":                  func(c *config.Config) { set(c, 24*time.Hour, 26280*time.Hour, time.Hour, 1_000_000_000) },
		"external over TLS":        external(func(*config.Config) {}),
		"external on this machine": external(func(c *config.Config) { c.Hub.URLs = []config.URL{"nats://localhost", "nats://[::1]:4222/"} }),
		"external insecure":        external(func(c *config.Config) { c.Hub.URLs, c.Hub.Insecure = []config.URL{"nats://n:4222"}, true }),
		"external CA alone":        external(func(c *config.Config) { c.Hub.TLS.CA = "a" }),
		"external client cert":     external(func(c *config.Config) { c.Hub.TLS.Cert, c.Hub.TLS.Key = "c", "k" }),
		"external user":            external(func(c *config.Config) { c.Hub.User, c.Hub.Password = "u", "p" }),
		"external credentials":     external(func(c *config.Config) { c.Hub.Credentials = "c" }),
		"external nkey":            external(func(c *config.Config) { c.Hub.NKey = "n" }),
		"external user in URL":     external(func(c *config.Config) { c.Hub.URLs = []config.URL{"tls://u:p@n", "tls://token@n"} }),
		"external one replica":     external(func(c *config.Config) { c.Hub.Replicas = 1 }),
		"external five replicas":   external(func(c *config.Config) { c.Hub.Replicas = 5 }),
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			c := config.Default()
			change(&c)
			if err := c.Validate(); err != nil {
				t.Error(err)
			}
		})
	}
	for _, level := range []string{"panic", "fatal", "error", "warn", "info", "debug"} {
		c := config.Default()
		c.Log.Level = level
		if err := c.Validate(); err != nil {
			t.Error(err)
		}
	}
}

func TestValidateRefuses(t *testing.T) {
	const beyond = "plaintext beyond loopback: "
	cases := map[string]struct {
		change change
		want   string
	}{
		"level trace":          {func(c *config.Config) { c.Log.Level = "trace" }, `log.level: must be panic, fatal, error, warn, info or debug, is "trace"`},
		"level empty":          {func(c *config.Config) { c.Log.Level = "" }, `log.level: must be panic, fatal, error, warn, info or debug, is ""`},
		"mode":                 {func(c *config.Config) { c.Hub.Mode = "cluster" }, `hub.mode: must be "embedded" or "external", is "cluster"`},
		"no port":              {func(c *config.Config) { c.XDS.Listen = "127.0.0.1" }, `xds.listen: must be host:port, is "127.0.0.1"`},
		"empty address":        {func(c *config.Config) { c.Hub.Listen = "" }, `hub.listen: must be host:port, is ""`},
		"named port":           {func(c *config.Config) { c.Control.Listen = "127.0.0.1:http" }, `control.listen: must be host:port, is "127.0.0.1:http"`},
		"port too large":       {func(c *config.Config) { c.Control.Listen = "127.0.0.1:65536" }, `control.listen: must be host:port, is "127.0.0.1:65536"`},
		"no host name":         {func(c *config.Config) { c.XDS.Listen = "a b:1" }, `xds.listen: must be host:port, is "a b:1"`},
		"hub on all addresses": {func(c *config.Config) { c.Hub.Listen = "0.0.0.0:1" }, "hub.listen: " + beyond + "set hub.tls.cert and key, or hub.insecure = true"},
		"xds on all addresses": {func(c *config.Config) { c.XDS.Listen = ":1" }, "xds.listen: " + beyond + "set xds.tls.cert and key, or xds.insecure = true"},
		"control on IPv6":      {func(c *config.Config) { c.Control.Listen = "[::]:1" }, "control.listen: " + beyond + "set control.tls.cert and key, or control.insecure = true"},
		"a named host":         {func(c *config.Config) { c.XDS.Listen = "localhost.example.com:1" }, "xds.listen: " + beyond + "set xds.tls.cert and key, or xds.insecure = true"},
		"another's insecure":   {func(c *config.Config) { c.XDS.Listen, c.Hub.Insecure = "10.0.0.1:1", true }, "xds.listen: " + beyond + "set xds.tls.cert and key, or xds.insecure = true"},
		"hub cert alone":       {func(c *config.Config) { c.Hub.TLS.Cert = "c" }, "hub.tls.key: is required with hub.tls.cert"},
		"xds cert alone":       {func(c *config.Config) { c.XDS.TLS.Cert = "c" }, "xds.tls.key: is required with xds.tls.cert"},
		"control key alone":    {func(c *config.Config) { c.Control.TLS.Key = "k" }, "control.tls.cert: is required with control.tls.key"},
		"hub CA alone":         {func(c *config.Config) { c.Hub.TLS.CA = "a" }, "hub.tls.ca: needs hub.tls.cert"},
		"xds CA alone":         {func(c *config.Config) { c.XDS.TLS.ClientCA = "a" }, "xds.tls.client_ca: needs xds.tls.cert"},
		"control CA alone":     {func(c *config.Config) { c.Control.TLS.ClientCA = "a" }, "control.tls.client_ca: needs control.tls.cert"},
		"no store":             {func(c *config.Config) { c.Hub.Store = "" }, "hub.store: is required, a directory"},
		"grace below":          {func(c *config.Config) { c.Revocation.Grace = -1 }, "revocation.grace: must be from 0s to 24h, is -1ns"},
		"grace above":          {func(c *config.Config) { c.Revocation.Grace = hours(25) }, "revocation.grace: must be from 0s to 24h, is 25h"},
		"unknown below":        {func(c *config.Config) { c.Revocation.UnknownLifetime = hours(1) - 1 }, "revocation.unknown_lifetime: must be from 1h to 26280h, is 59m59.999999999s"},
		"unknown above":        {func(c *config.Config) { c.Revocation.UnknownLifetime = hours(26281) }, "revocation.unknown_lifetime: must be from 1h to 26280h, is 26281h"},
		"purge below":          {func(c *config.Config) { c.Revocation.PurgeInterval = 0 }, "revocation.purge_interval: must be from 1s to 1h, is 0s"},
		"purge above":          {func(c *config.Config) { c.Revocation.PurgeInterval = hours(2) }, "revocation.purge_interval: must be from 1s to 1h, is 2h"},
		"live below":           {func(c *config.Config) { c.Revocation.MaxLive = 0 }, "revocation.max_live: must be from 1 to 1000000000, is 0"},
		"live above":           {func(c *config.Config) { c.Revocation.MaxLive = 1_000_000_001 }, "revocation.max_live: must be from 1 to 1000000000, is 1000000001"},
		"no client claim":      {func(c *config.Config) { c.Rules.ClientClaim = "" }, `rules.client_claim: must be the name of a claim, without spaces and "=", is ""`},
		"user claim":           {func(c *config.Config) { c.Rules.UserClaim = "a=b" }, `rules.user_claim: must be the name of a claim, without spaces and "=", is "a=b"`},
		"a claim":              {func(c *config.Config) { c.Rules.Claims = []string{"sub", "a b"} }, `rules.claims[1]: must be the name of a claim, without spaces and "=", is "a b"`},
		"lifetime below":       {func(c *config.Config) { c.Rules.MaxTokenLifetime = -1 }, "rules.max_token_lifetime: must be from 0s to 87600h, is -1ns"},
		"lifetime above":       {func(c *config.Config) { c.Rules.MaxTokenLifetime = hours(87601) }, "rules.max_token_lifetime: must be from 0s to 87600h, is 87601h"},
		"deliveries below":     {func(c *config.Config) { c.Ingest.MaxDeliveries = 0 }, "ingest.max_deliveries: must be from 1 to 1000, is 0"},
		"deliveries above":     {func(c *config.Config) { c.Ingest.MaxDeliveries = 1001 }, "ingest.max_deliveries: must be from 1 to 1000, is 1001"},
		"workers below":        {func(c *config.Config) { c.Ingest.Workers = 0 }, "ingest.workers: must be from 1 to 64, is 0"},
		"workers above":        {func(c *config.Config) { c.Ingest.Workers = 65 }, "ingest.workers: must be from 1 to 64, is 65"},
		"pending":              {func(c *config.Config) { c.Hub.MaxPending = 999 }, "hub.max_pending: must be at least 1000, is 999"},
		"pending bytes":        {func(c *config.Config) { c.Hub.MaxPendingBytes = 1<<20 - 1 }, "hub.max_pending_bytes: must be at least 1048576, is 1048575"},
		"label empty":          {func(c *config.Config) { c.XDS.Label = "" }, `xds.label: must be printable and without spaces, is ""`},
		"label with space":     {func(c *config.Config) { c.XDS.Label = "a b" }, `xds.label: must be printable and without spaces, is "a b"`},
		"label with line":      {func(c *config.Config) { c.XDS.Label = "a\nb" }, `xds.label: must be printable and without spaces, is "a\nb"`},
		"receive below":        {func(c *config.Config) { c.XDS.MaxReceiveBytes = 1 }, "xds.max_receive_bytes: must be from 65536 to 1073741824, is 1"},
		"receive above":        {func(c *config.Config) { c.XDS.MaxReceiveBytes = math.MaxInt32 }, "xds.max_receive_bytes: must be from 65536 to 1073741824, is 2147483647"},
		"streams":              {func(c *config.Config) { c.XDS.MaxStreams = -1 }, "xds.max_streams: must be at least 0, is -1"},
		"embedded urls":        {func(c *config.Config) { c.Hub.URLs = []config.URL{"x"} }, `hub.urls: has no effect when hub.mode is "embedded"`},
		"embedded user":        {func(c *config.Config) { c.Hub.User = "u" }, `hub.user: has no effect when hub.mode is "embedded"`},
		"embedded password":    {func(c *config.Config) { c.Hub.Password = "p" }, `hub.password: has no effect when hub.mode is "embedded"`},
		"embedded credentials": {func(c *config.Config) { c.Hub.Credentials = "c" }, `hub.credentials: has no effect when hub.mode is "embedded"`},
		"embedded nkey":        {func(c *config.Config) { c.Hub.NKey = "n" }, `hub.nkey: has no effect when hub.mode is "embedded"`},
		"embedded replicas":    {func(c *config.Config) { c.Hub.Replicas = 5 }, `hub.replicas: has no effect when hub.mode is "embedded"`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) { refused(t, tc.change, tc.want) })
	}
}

// What a client or an issuer may not be, each fault by its key.
func TestValidateRefusesClientsAndIssuers(t *testing.T) {
	client := config.Client{ID: "a", SecretHash: someHash, Roles: []string{config.RoleRevoke}}
	issuer := config.Issuer{Name: "i", JWKS: []config.URL{"https://a/jwks"}}
	for want, change := range map[string]func(*config.Client, *config.Issuer){
		`clients[0].id: must be 1 to 128 printable ASCII characters without a space or a colon, is "a:b"`: func(c *config.Client, _ *config.Issuer) { c.ID = "a:b" },
		"clients[0].secret_hash: is required: adapter client add prints one":                              func(c *config.Client, _ *config.Issuer) { c.SecretHash = "" },
		"clients[0].secret_hash: must be bcrypt of the password, such as htpasswd -B prints":              func(c *config.Client, _ *config.Issuer) { c.SecretHash = "hunter2" },
		"clients[0].roles: must be some of revoke, revoke_any, approve, grants, apim:api_key, operator, is []": func(c *config.Client, _ *config.Issuer) {
			c.Roles = nil
		},
		`clients[0].roles[0]: must be one of revoke, revoke_any, approve, grants, apim:api_key, operator, is "king"`: func(c *config.Client, _ *config.Issuer) {
			c.Roles = []string{"king"}
		},
		"clients[0].max_body_bytes: must be from 4096 to 268435456, is 1":  func(c *config.Client, _ *config.Issuer) { c.MaxBodyBytes = 1 },
		"issuers[0].name: is required: the claim iss of its tokens":        func(_ *config.Client, i *config.Issuer) { i.Name = "" },
		"issuers[0].jwks: is required: files or https:// URLs of its keys": func(_ *config.Client, i *config.Issuer) { i.JWKS = nil },
		"issuers[0].jwks[0]: plaintext beyond loopback: use https://":      func(_ *config.Client, i *config.Issuer) { i.JWKS = []config.URL{"http://a/jwks"} },
		"issuers[0].refresh: must be from 10s to 24h, is 1s":               func(_ *config.Client, i *config.Issuer) { i.Refresh = config.Duration(time.Second) },
	} {
		cfg := config.Default()
		c, i := client, issuer
		change(&c, &i)
		cfg.Clients, cfg.Issuers = []config.Client{c}, []config.Issuer{i}
		if err := cfg.Validate(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	cfg := config.Default()
	cfg.Clients, cfg.Issuers = []config.Client{client, client}, []config.Issuer{issuer, issuer}
	const twice = "clients[1].id: must be different for every client, is \"a\"\nissuers[1].name: must be different for every issuer, is \"i\""
	if err := cfg.Validate(); err == nil || err.Error() != twice {
		t.Errorf("twice: %v", err)
	}
}

func TestValidateRefusesOfExternalHub(t *testing.T) {
	server := func(u config.URL) change { return external(func(c *config.Config) { c.Hub.URLs = []config.URL{u} }) }
	scheme, only := "hub.urls[0]: must be nats:// or tls://, is ", "hub.urls[0]: must be scheme://host:port and nothing more, is "
	cases := map[string]struct {
		change change
		want   string
	}{
		"no urls":               {external(func(c *config.Config) { c.Hub.URLs = nil }), `hub.urls: is required when hub.mode is "external"`},
		"no scheme":             {server("foo"), scheme + `"foo"`},
		"host and port":         {server("nats-1:4222"), scheme + `"nats-1:4222"`},
		"other scheme":          {server("http://a"), scheme + `"http://a"`},
		"two in one":            {server("tls://a:1,tls://b:1"), only + `"tls://a:********"`},
		"password without host": {server("tls://bob:hunter2"), scheme + `"tls://bob:********"`},
		"password not encoded":  {server("tls://bob:hun%ter2@n"), scheme + `"tls://bob:********@n"`},
		"no host":               {server("tls://:4222"), only + `"tls://:4222"`},
		"no port":               {server("tls://a:"), only + `"tls://a:********"`},
		"port too large":        {server("tls://a:65536"), only + `"tls://a:********"`},
		"path":                  {server("tls://a/b"), only + `"tls://a/b"`},
		"query":                 {server("tls://a?token=b"), only + `"tls://a?********"`},
		"fragment":              {server("tls://a#"), only + `"tls://a#********"`},
		"plaintext":             {server("nats://a:4222"), "hub.urls[0]: plaintext beyond loopback: use tls://, or set hub.insecure = true"},
		"second server":         {external(func(c *config.Config) { c.Hub.URLs = append(c.Hub.URLs, "x://") }), `hub.urls[1]: must be nats:// or tls://, is "x://"`},
		"replicas":              {external(func(c *config.Config) { c.Hub.Replicas = 2 }), "hub.replicas: must be 1, 3 or 5, is 2"},
		"user and credentials":  {external(func(c *config.Config) { c.Hub.User, c.Hub.Credentials = "u", "c" }), "hub.credentials: cannot be combined with hub.user"},
		"user and nkey":         {external(func(c *config.Config) { c.Hub.User, c.Hub.NKey = "u", "n" }), "hub.nkey: cannot be combined with hub.user"},
		"credentials and nkey":  {external(func(c *config.Config) { c.Hub.Credentials, c.Hub.NKey = "c", "n" }), "hub.nkey: cannot be combined with hub.credentials"},
		"password without user": {external(func(c *config.Config) { c.Hub.Password = "p" }), "hub.password: needs hub.user"},
		"user twice":            {external(func(c *config.Config) { c.Hub.URLs, c.Hub.User = []config.URL{"tls://u:p@a"}, "u" }), "hub.urls[0]: names a user, which cannot be combined with hub.user"},
		"token and nkey":        {external(func(c *config.Config) { c.Hub.URLs, c.Hub.NKey = []config.URL{"tls://t@a"}, "n" }), "hub.urls[0]: names a user, which cannot be combined with hub.nkey"},
		"listen":                {external(func(c *config.Config) { c.Hub.Listen = "127.0.0.1:1" }), `hub.listen: has no effect when hub.mode is "external"`},
		"cert alone":            {external(func(c *config.Config) { c.Hub.TLS.Cert = "c" }), "hub.tls.key: is required with hub.tls.cert"},
		"key alone":             {external(func(c *config.Config) { c.Hub.TLS.Key = "k" }), "hub.tls.cert: is required with hub.tls.key"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) { refused(t, tc.change, tc.want) })
	}
}

func refused(t *testing.T, change change, want string) {
	t.Helper()
	c := config.Default()
	change(&c)
	if err := c.Validate(); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func external(more change) change {
	return func(c *config.Config) {
		c.Hub.Mode, c.Hub.URLs = config.ModeExternal, []config.URL{"tls://nats-1:4222"}
		more(c)
	}
}

func set(c *config.Config, grace, unknown, purge time.Duration, live int) {
	c.Revocation.Grace = config.Duration(grace)
	c.Revocation.UnknownLifetime = config.Duration(unknown)
	c.Revocation.PurgeInterval = config.Duration(purge)
	c.Revocation.MaxLive = live
}

func hours(n int) config.Duration { return config.Duration(time.Duration(n) * time.Hour) }
