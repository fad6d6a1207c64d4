package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"revocation-adapter/config"
)

func environment(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

func read(text string, env ...string) (config.Config, error) {
	return config.Read(strings.NewReader(text), environment(env...))
}

func TestReadChangesOnlyWhatIsNamed(t *testing.T) {
	cases := map[string]struct {
		text, env string
		change    func(*config.Config)
	}{
		"nothing":        {"", "", func(*config.Config) {}},
		"empty section":  {"[hub]", "", func(*config.Config) {}},
		"windows lines":  {"[log]\r\nlevel = \"debug\"\r\n", "", func(c *config.Config) { c.Log.Level = "debug" }},
		"string":         {`xds.label = "edge"`, "", func(c *config.Config) { c.XDS.Label = "edge" }},
		"integer":        {`ingest.workers = 2`, "", func(c *config.Config) { c.Ingest.Workers = 2 }},
		"wide integer":   {`hub.max_pending_bytes = 0x4_0000_0000`, "", func(c *config.Config) { c.Hub.MaxPendingBytes = 1 << 34 }},
		"boolean":        {`hub.insecure = true`, "", func(c *config.Config) { c.Hub.Insecure = true }},
		"duration":       {`revocation.grace = "1h30m"`, "", func(c *config.Config) { c.Revocation.Grace = config.Duration(90 * time.Minute) }},
		"inline table":   {`ingest = { workers = 2 }`, "", func(c *config.Config) { c.Ingest.Workers = 2 }},
		"empty list":     {`hub.urls = []`, "", func(*config.Config) {}},
		"variable":       {`xds.label = "$env{X}"`, "edge", func(c *config.Config) { c.XDS.Label = "edge" }},
		"within a value": {`xds.label = "a-$env{X}-$env{X}$"`, "1", func(c *config.Config) { c.XDS.Label = "a-1-1$" }},
		"in a duration":  {`revocation.grace = "$env{X}m"`, "7", func(c *config.Config) { c.Revocation.Grace = config.Duration(7 * time.Minute) }},
		"in a list": {"[hub]\nmode = \"external\"\nurls = [\"tls://$env{X}:4222\"]", "nats-1", func(c *config.Config) {
			c.Hub.Mode, c.Hub.URLs = config.ModeExternal, []config.URL{"tls://nats-1:4222"}
		}},
		"a list of names": {`rules.claims = ["sub", "$env{X}"]`, "email", func(c *config.Config) { c.Rules.Claims = []string{"sub", "email"} }},
		"a password": {"[hub]\nmode = \"external\"\nurls = [\"tls://n\"]\nuser = \"u\"\npassword = \"$env{X}\"", "hunter2", func(c *config.Config) {
			c.Hub.Mode, c.Hub.URLs, c.Hub.User, c.Hub.Password = config.ModeExternal, []config.URL{"tls://n"}, "u", "hunter2"
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			want := config.Default()
			tc.change(&want)
			got, err := read(tc.text, "X", tc.env)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, %v\nwant %+v", got, err, want)
			}
		})
	}
}

// The whole text of the error is compared: it is what an operator works with.
func TestReadRefuses(t *testing.T) {
	cases := map[string]struct{ text, want string }{
		"a list of other things":      {"[rules]\nclaims = [\"sub\", 1]", "rules.claims[1]: must be a string, is an integer"},
		"no list of names":            {"[rules]\nclaims = \"sub\"", "rules.claims: must be a list of strings, is a string"},
		"unknown key":                 {"[hub]\n\n  url = \"x\"", "hub.url: unknown key\n   3| url = ********"},
		"unknown key at the top":      {"hub_mode = 3", "hub_mode: unknown key\n   1| hub_mode = ********"},
		"unknown section":             {"[hubb] # x\nmode = 1", "hubb: unknown key\n   1| [hubb]"},
		"unknown section below one":   {"[hub]\n[hub.auth.x]\na = 1", "hub.auth: unknown key\n   2| [hub.auth.x]"},
		"unknown list of sections":    {"[[rule]]\na = 1", "rule: unknown key\n   1| [[rule]]"},
		"unknown inline key":          {"hub = { listen = \"127.0.0.1:0\", pass = \"x\" }", "hub.pass: unknown key\n   1| ..."},
		"unknown inline keys":         {"hub = { a = 1, b = 2 }\nxds = { a = 1 }", "hub.a: unknown key\nhub.b: unknown key\n   1| ...\nxds.a: unknown key"},
		"unknown quoted key":          {"[xds]\n\"a b\" = 1", "xds.\"a b\": unknown key\n   2| \"a b\" = ********"},
		"upper case":                  {"[xds]\nListen = \"127.0.0.1:1\"", "xds.Listen: unknown key, the name is in lower case: listen"},
		"upper case section":          {"[XDS]\nlisten = \"127.0.0.1:1\"", "XDS: unknown key, the name is in lower case: xds"},
		"not TOML":                    {"[log]\nlevel = warn", "line 2, column 9: unexpected character at start of value"},
		"not TOML after a value":      {"[log]\nlevel = info", "line 2, column 12: expected newline but got something else"},
		"not a key":                   {"[log]\n?", "line 2, column 1: invalid character at start of key"},
		"same key twice":              {"[log]\nlevel = \"info\"\nlevel = \"warn\"", "line 3, column 1: key level is already defined"},
		"number for a string":         {"log.level = 3", "log.level: must be a string, is an integer"},
		"string for a number":         {"hub.replicas = \"3\"", "hub.replicas: must be an integer, is a string"},
		"fraction for a number":       {"hub.max_pending = 2e6", "hub.max_pending: must be an integer, is a number with a fraction"},
		"string for a boolean":        {"xds.insecure = \"true\"", "xds.insecure: must be true or false, is a string"},
		"number for a duration":       {"revocation.grace = 10", "revocation.grace: must be a string, is an integer"},
		"days":                        {"revocation.grace = \"1d\"", "revocation.grace: must be a duration such as \"90s\", \"10m\" or \"24h\", is \"1d\""},
		"string for a list":           {"hub.urls = \"nats://a\"", "hub.urls: must be a list of strings, is a string"},
		"number in a list":            {"hub.mode = \"external\"\nhub.urls = [\"tls://a\", 3]", "hub.urls[1]: must be a string, is an integer"},
		"table for a value":           {"[hub.listen]", "hub.listen: must be a string, is a table"},
		"date for a value":            {"hub.listen = 2026-01-01", "hub.listen: must be a string, is a date or a time"},
		"value for a section":         {"hub = 3", "hub: must be a table, is an integer"},
		"list for a section":          {"[[hub]]\nmode = \"x\"", "hub: must be a table, is a list"},
		"variable not set":            {"xds.label = \"$env{NONE}\"", "xds.label: environment variable NONE is not set"},
		"variable without a name":     {"xds.label = \"$env{}\"", "xds.label: has a malformed $env{NAME}"},
		"variable with a blank":       {"xds.label = \"$env{A B}\"", "xds.label: has a malformed $env{NAME}"},
		"variable without an end":     {"xds.label = \"$env{A\"", "xds.label: has a malformed $env{NAME}"},
		"variable in a variable":      {"xds.label = \"$env{NESTED}\"", "xds.label: has $env{ in the value of an environment variable"},
		"variable put together":       {"xds.label = \"$en$env{HALF}\"", "xds.label: has $env{ in the value of an environment variable"},
		"variable not UTF-8":          {"xds.label = \"$env{BYTES}\"", "xds.label: environment variable BYTES is not valid UTF-8"},
		"wrong value from a variable": {"log.level = \"$env{SECRET}\"", "log.level: must be panic, fatal, error, warn, info or debug, is \"$env{SECRET}\""},
		"no duration in a variable":   {"revocation.grace = \"$env{SECRET}\"", "revocation.grace: must be a duration such as \"90s\", \"10m\" or \"24h\", is \"$env{SECRET}\""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := read(tc.text, "SECRET", "hunter2", "NESTED", "$env{SECRET}", "HALF", "v{SECRET}", "BYTES", "\xff")
			if err == nil || err.Error() != tc.want {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
			if !reflect.DeepEqual(got, config.Config{}) {
				t.Errorf("a refused file gave a configuration: %+v", got)
			}
		})
	}
}

func TestReadReportsAllFaultsAtOnce(t *testing.T) {
	_, err := read(`
surplus = 1
[hub]
mode = "external"
url = "nats://a"
urls = ["http://a", "$env{NONE}"]
user = "$env{NONE}"
password = "x"
replicas = 2
[hub.tls]
key = 3
[revocation]
grace = "soon"
purge_interval = "1ms"
[xds]
listen = "0.0.0.0:18000"
`)
	want := `surplus: unknown key
   2| surplus = ********
hub.url: unknown key
   5| url = ********
hub.urls[1]: environment variable NONE is not set
hub.user: environment variable NONE is not set
hub.tls.key: must be a string, is an integer
revocation.grace: must be a duration such as "90s", "10m" or "24h", is "soon"
hub.urls[0]: must be nats:// or tls://, is "http://a"
hub.replicas: must be 1, 3 or 5, is 2
hub.tls.cert: is required with hub.tls.key
revocation.purge_interval: must be from 1s to 1h, is 1ms
xds.listen: plaintext beyond loopback: set xds.tls.cert and key, or xds.insecure = true`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestReadPassesOnWhatTheSourceSays(t *testing.T) {
	broken := errors.New("disk on fire")
	if _, err := config.Read(iotest.ErrReader(broken), environment()); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CONFIG_TEST_LABEL", "edge")
	t.Setenv("CONFIG_TEST_MISSING", filepath.Join(dir, "none.pem"))
	pem := filepath.Join(dir, "some.pem")
	if err := os.WriteFile(pem, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct{ text, want string }{
		"environment":    {"xds.label = \"$env{CONFIG_TEST_LABEL}\"", ""},
		"files there":    {"[xds.tls]\ncert = \"" + pem + "\"\nkey = \"" + pem + "\"\nclient_ca = \"" + pem + "\"", ""},
		"fault":          {"log.level = \"x\"", "log.level: must be panic, fatal, error, warn, info or debug, is \"x\""},
		"missing file":   {"[control.tls]\ncert = \"/nowhere\"\nkey = \"" + pem + "\"", "control.tls.cert: cannot read the file: no such file or directory, is \"/nowhere\""},
		"directory":      {"[hub.tls]\ncert = \"" + dir + "\"\nkey = \"" + pem + "\"", "hub.tls.cert: cannot read the file: not a regular file, is \"" + dir + "\""},
		"from variable":  {"[hub.tls]\ncert = \"$env{CONFIG_TEST_MISSING}\"\nkey = \"" + pem + "\"", "hub.tls.cert: cannot read the file: no such file or directory, is \"$env{CONFIG_TEST_MISSING}\""},
		"pasted key":     {"[xds.tls]\ncert = \"" + pem + "\"\nkey = \"SECRET\"", "xds.tls.key: cannot read the file: no such file or directory"},
		"pasted chain":   {"[xds.tls]\ncert = \"SECRET\\nSECRET\"\nkey = \"" + pem + "\"", "xds.tls.cert: cannot read the file: no such file or directory"},
		"pasted seed":    {"[hub]\nmode = \"external\"\nurls = [\"tls://n\"]\nnkey = \"SECRET\"", "hub.nkey: cannot read the file: no such file or directory"},
		"no credentials": {"[hub]\nmode = \"external\"\nurls = [\"tls://n\"]\ncredentials = \"/nowhere\"", "hub.credentials: cannot read the file: no such file or directory"},
		"no effect":      {"hub.nkey = \"/nowhere\"", "hub.nkey: has no effect when hub.mode is \"embedded\""},
		"with others":    {"log.level = \"x\"\n[hub.tls]\nca = \"/nowhere\"", "log.level: must be panic, fatal, error, warn, info or debug, is \"x\"\nhub.tls.ca: needs hub.tls.cert"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "adapter.toml")
			if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := config.Load(path)
			if tc.want == "" && err == nil {
				return
			}
			if err == nil || err.Error() != "configuration "+path+":\n"+tc.want {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
		})
	}
	if _, err := config.Load(filepath.Join(dir, "none.toml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
}
