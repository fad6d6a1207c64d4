package config_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"revocation-adapter/config"
)

// No way to print or to misspell a secret brings it out.
func TestSecretsStayInErrors(t *testing.T) {
	const head = "[hub]\nmode = \"external\"\n"
	cases := map[string]string{
		"misspelt":                 head + `pasword = "hunter2"`,
		"line before unknown":      head + "password = \"hunter2\"\nx = 1",
		"line after unknown":       head + "x = 1\npassword = \"hunter2\"",
		"inline before unknown":    `hub = { password = "hunter2", x = 1 }`,
		"without quotes":           head + "password = hunter2",
		"quote missing":            head + "password = \"hunter2\nuser = \"x\"",
		"half of a multiline":      head + "password = \"\"\"\nhunter2\nx = 1",
		"text after the value":     head + `password = "a" hunter2`,
		"as a list":                head + `password = ["hunter2"]`,
		"without user":             head + "urls = [\"tls://a\"]\npassword = \"hunter2\"",
		"from environment":         head + "urls = [\"tls://a\"]\npassword = \"$env{SECRET}\"",
		"embedded":                 `hub.password = "hunter2"`,
		"malformed variable":       head + `password = "hunter2 $env{"`,
		"unset variable":           head + `password = "hunter2 $env{NONE}"`,
		"elsewhere":                `log.level = "$env{SECRET}"`,
		"as a duration":            `revocation.grace = "$env{SECRET}"`,
		"as an address":            `xds.listen = "$env{SECRET}"`,
		"as a label":               `xds.label = "$env{SECRET} x"`,
		"as a URL":                 head + `urls = ["$env{SECRET}"]`,
		"beside a variable in URL": head + `urls = ["nats://bob:hunter2$env{AT}"]`,
		"in a URL":                 head + `urls = ["nats://bob:hunter2@a:4222"]`,
		"in a URL that is none":    head + `urls = ["nats://bob:hun ter2 hunter2@a"]`,
		"in a URL without host":    head + `urls = ["nats://bob:hunter2"]`,
		"in a URL without scheme":  head + `urls = ["bob:hunter2@a"]`,
		"in a URL with an @":       head + `urls = ["nats://bob:x@hunter2@a"]`,
		"in a URL with a slash":    head + `urls = ["nats://bob:x/hunter2@a"]`,
		"in a URL's query":         head + `urls = ["tls://a?auth=hunter2"]`,
		"token in a URL":           head + `urls = ["nats://hunter2@a"]`,
		"token before a scheme":    head + `urls = ["hunter2@nats://a"]`,
		"in a control plane":       `control_plane.url = "https://bob:hunter2@a"`,
		"beside a variable there":  `control_plane.url = "bob:hunter2$env{AT}"`,
		"of a control plane":       `control_plane.password = "hunter2"`,
		"of notify":                `notify.password = "hunter2"`,
		"as a hash":                `notify.password_hash = "hunter2"`,
		"in a broker":              `amqp.brokers = ["amqp://bob:hunter2@b:1"]`,
		"in a second broker":       `amqp.brokers = ["amqp://bob:x@b:1?retries='5',amqp://bob:hunter2@c:1"]`,
		"in a broker's options":    `amqp.brokers = ["amqp://bob:x@c/v?brokerlist='tcp://a:1?trust_store_password='hunter2''"]`,
		"in a broker with an @":    `amqp.brokers = ["amqp://bob:x@hunter2@c:x"]`,
		"in a broker with a comma": `amqp.brokers = ["amqp://bob:x,hunter2@c:1"]`,
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := read(text, "SECRET", "hunter2", "AT", "@a")
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestSecretsStayInPrints(t *testing.T) {
	c := config.Default()
	c.Hub.Password = "hunter2"
	c.Hub.URLs = []config.URL{"tls://bob:hunter2@a"}
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	prints := []string{string(asJSON), fmt.Sprint(c.Hub.URLs)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
		prints = append(prints, fmt.Sprintf(verb, c))
	}
	for _, text := range prints {
		if strings.Contains(text, "hunter2") || strings.Contains(text, "68756e74657232") {
			t.Errorf("got %s", text)
		}
	}
	if string(c.Hub.Password) != "hunter2" || string(c.Hub.URLs[0]) != "tls://bob:hunter2@a" {
		t.Error("the values themselves are lost")
	}
}

func TestEffective(t *testing.T) {
	const text = `
log.level = "debug"
[hub]
mode = "external"
urls = ["tls://bob:hunter2@a:4222", "tls://hunter2@b"]
[revocation]
purge_interval = "90s"
[xds]
listen = "$env{XDS}"
`
	c, err := read(text, "XDS", "127.0.0.1:7")
	if err != nil {
		t.Fatal(err)
	}
	shown := effective(t, c)
	for _, want := range []string{
		"level = 'debug'", "urls = ['tls://bob:********@a:4222', 'tls://********@b']",
		"purge_interval = '1m30s'", "listen = '127.0.0.1:7'", "max_pending = 1000000",
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("%s is not in\n%s", want, shown)
		}
	}
	if strings.Contains(shown, "hunter2") {
		t.Errorf("a secret is in\n%s", shown)
	}
}

// A secret that a later section brings must be masked as well.
func TestEffectiveMasksEverySecret(t *testing.T) {
	var c config.Config
	if n := fillSecrets(reflect.ValueOf(&c).Elem()); n != 7 {
		t.Errorf("filled %d secrets", n)
	}
	if shown := effective(t, c); strings.Contains(shown, "hunter2") {
		t.Errorf("a secret is in\n%s", shown)
	}
}

func fillSecrets(section reflect.Value) int {
	filled := 0
	for _, field := range section.Fields() {
		switch target := field.Addr().Interface().(type) {
		case *config.Secret:
			*target = "hunter2"
			filled++
		case *config.URL:
			*target = "https://u:hunter2@a"
			filled++
		case *[]config.URL:
			*target = []config.URL{"tls://hunter2@a"}
			filled++
		case *[]config.BrokerURL:
			*target = []config.BrokerURL{"amqp://u:hunter2@a"}
			filled++
		default:
			if field.Kind() == reflect.Struct {
				filled += fillSecrets(field)
			}
		}
	}
	return filled
}

func TestEffectiveIsReadAgain(t *testing.T) {
	cases := map[string]string{
		"nothing":  "",
		"password": "[hub]\nmode = \"external\"\nurls = [\"tls://a\"]\nuser = \"u\"\npassword = \"hunter2\"",
		"URL":      "[hub]\nmode = \"external\"\nurls = [\"tls://bob:hunter2@a\", \"tls://hunter2@a\"]",
		"notify":   "[notify]\nusername = \"u\"\npassword_hash = \"" + bcryptHash + "\"",
		"brokers":  "amqp.brokers = [\"amqp://u:hunter2@c/carbon?brokerlist='ssl://b:1?retries='5'&connectdelay='50';tcp://127.0.0.1:2'\", \"amqps://bob:x@a,amqps://bob:hunter2@d/v%2Fw\"]",
		"quotes":   "hub.store = \"a'b\\\"c\\\\d\\n\"",
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			c, err := read(text)
			if err != nil {
				t.Fatal(err)
			}
			shown := effective(t, c)
			again, err := read(shown)
			if err != nil {
				t.Fatalf("%v in\n%s", err, shown)
			}
			if twice := effective(t, again); twice != shown || strings.Contains(shown, "hunter2") {
				t.Errorf("got\n%s\nthen\n%s", shown, twice)
			}
			c.Hub.Password, again.Hub.Password, c.Hub.URLs, again.Hub.URLs = "", "", nil, nil
			c.AMQP.Brokers, again.AMQP.Brokers, c.Notify, again.Notify = nil, nil, config.Notify{}, config.Notify{}
			if !reflect.DeepEqual(c, again) {
				t.Errorf("%+v became %+v", c, again)
			}
		})
	}
}

func effective(t *testing.T, c config.Config) string {
	t.Helper()
	text, err := c.Effective()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// FuzzRead: no text stops the reader with a panic, and what it accepts can be
// shown and read again.
func FuzzRead(f *testing.F) {
	f.Add("", "")
	f.Add("[hub]\nmode = \"external\"\nurls = [\"tls://u:$env{A}@a:1\"]", "x")
	f.Add("[hub]\nmode = \"external\"\ninsecure = true\nurls = [\"nats://t@a/\"]\nuser = \"\"", "x")
	f.Add("hub = { listen = \"$env{A}\", pass = 1 }\n[xds]\nlabel = \"$env{A}\"", "[::1]:0")
	f.Add("[revocation]\ngrace = \"1h0m0.5s\"\nmax_live = 0x10\n[xds.tls]\ncert = '''\n$env{A}'''\nkey = \"\"\"k\"\"\"", "c")
	f.Fuzz(func(t *testing.T, text, variable string) {
		c, err := config.Read(strings.NewReader(text), func(string) (string, bool) { return variable, variable != "" })
		if err != nil {
			return
		}
		shown := effective(t, c)
		again, err := read(shown)
		if err != nil {
			t.Fatalf("%v in\n%s", err, shown)
		}
		if twice := effective(t, again); twice != shown {
			t.Errorf("got\n%s\nthen\n%s", shown, twice)
		}
	})
}
