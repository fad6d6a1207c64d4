package config_test

import (
	"reflect"
	"testing"
	"time"

	"revocation-adapter/config"
)

func TestAMQPBrokers(t *testing.T) {
	one := config.Broker{Address: "h1:5672", User: "u", Password: "p", VHost: "/", Tries: 1}
	with := func(b config.Broker, change func(*config.Broker)) config.Broker {
		change(&b)
		return b
	}
	patient := with(one, func(b *config.Broker) { b.Tries, b.Pause = 5, 30*time.Second })
	second := with(one, func(b *config.Broker) { b.Address = "h2:5672" })
	carbon := with(one, func(b *config.Broker) { b.VHost, b.Tries, b.Pause = "carbon", 5, 50*time.Millisecond })
	carbon2 := with(carbon, func(b *config.Broker) { b.Address = "h2:5673" })
	secured := with(one, func(b *config.Broker) { b.TLS, b.Address = true, "h1:8672" })
	cases := map[string]struct {
		text config.BrokerURL
		want []config.Broker
	}{
		"one":              {"amqp://u:p@h1:5672", []config.Broker{one}},
		"without a port":   {"amqp://u:p@h1", []config.Broker{one}},
		"with a slash":     {"amqp://u:p@h1:5672/", []config.Broker{one}},
		"nobody":           {"amqp://h1", []config.Broker{with(one, func(b *config.Broker) { b.User, b.Password = "", "" })}},
		"options":          {"amqp://u:p@h1:5672?retries='5'&connectdelay='30'", []config.Broker{patient}},
		"options unquoted": {"amqp://u:p@h1:5672?retries=5&connectdelay=30", []config.Broker{patient}},
		"options escaped":  {"amqp://u:p@h1:5672?retries=%275%27%26connectdelay=%2730%27", []config.Broker{patient}},
		"retry":            {"amqp://u:p@h1:5672?retry='5'&connectdelay='30'", []config.Broker{patient}},
		"a list": {
			"amqp://u:p@h1:5672?retries='5'&connectdelay='30', amqp://u:p@h2:5672",
			[]config.Broker{patient, second},
		},
		"a comma in a password": {
			"amqp://u:a,b@h1:5672,amqp://u:p@h2:5672",
			[]config.Broker{with(one, func(b *config.Broker) { b.Password = "a,b" }), second},
		},
		"an @ in a password": {"amqp://u:a@b@h1", []config.Broker{with(one, func(b *config.Broker) { b.Password = "a@b" })}},
		"percent-encoded": {
			"amqp://u:a%2Fb%3F@h1/v%2Fw", []config.Broker{with(one, func(b *config.Broker) { b.Password, b.VHost = "a/b?", "v/w" })},
		},
		"TLS":      {"amqps://u:p@h1:8672", []config.Broker{secured}},
		"TLS port": {"amqps://u:p@h1", []config.Broker{with(secured, func(b *config.Broker) { b.Address = "h1:5671" })}},
		"IPv6":     {"amqp://u:p@[::1]:5673", []config.Broker{with(one, func(b *config.Broker) { b.Address = "[::1]:5673" })}},
		"a brokerlist": {
			"amqp://u:p@clientid/carbon?brokerlist='tcp://h1:5672?retries='5'&connectdelay='50';tcp://h2:5673?retries='5'&connectdelay='50''",
			[]config.Broker{carbon, carbon2},
		},
		"failover first": {
			"amqp://u:p@clientid/carbon?failover='roundrobin?cyclecount='2''&brokerlist='tcp://h1:5672?retries='5'&connectdelay='50''",
			[]config.Broker{carbon},
		},
		"failover last": {
			"amqp://u:p@clientid/carbon?brokerlist='tcp://h1:5672?retries='5'&connectdelay='50''&failover='roundrobin'",
			[]config.Broker{carbon},
		},
		"brokerlist escaped as in API-M's file": {
			"amqp://u:p@clientid/carbon?failover='roundrobin'%26cyclecount='2'%26brokerlist='tcp://h1:5672?retries='5'%26connectdelay='50''",
			[]config.Broker{carbon},
		},
		"brokerlist escaped as XML": {
			"amqp://u:p@clientid/carbon?brokerlist='tcp://h1:5672?retries='5'&amp;connectdelay='50''",
			[]config.Broker{carbon},
		},
		"brokerlist with ssl": {"amqp://u:p@c/?brokerlist='tcp://h1:8672?ssl='true'&trust_store='x''", []config.Broker{secured}},
		"brokerlist of ssl":   {"amqp://u:p@c/?brokerlist='ssl://h1:8672'", []config.Broker{secured}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := tc.text.Brokers()
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, tc.want)
			}
		})
	}
}

func TestSourcesAreChecked(t *testing.T) {
	brokers := func(u ...config.BrokerURL) change { return func(c *config.Config) { c.AMQP.Brokers = u } }
	plane := func(u config.URL) change { return func(c *config.Config) { c.ControlPlane.URL = u } }
	const beyond = "plaintext beyond loopback: use "
	const server = "amqp.brokers[0]: must be amqp://user:password@host:port, with retries and connectdelay as numbers between quotes, is "
	cases := map[string]struct {
		change change
		want   string // "": accepted
	}{
		"AMQP on this machine":  {brokers("amqp://u:p@127.0.0.1:5672", "amqp://u:p@localhost?retries='5'"), ""},
		"AMQP over TLS":         {brokers("amqps://u:p@broker", "amqp://u:p@c/v?brokerlist='ssl://broker:8672'"), ""},
		"AMQP insecure":         {func(c *config.Config) { c.AMQP.Brokers, c.AMQP.Insecure = []config.BrokerURL{"amqp://broker"}, true }, ""},
		"AMQP plaintext":        {brokers("amqp://u:p@broker"), "amqp.brokers[0]: " + beyond + "amqps:// or ssl://, or set amqp.insecure = true"},
		"AMQP plaintext second": {brokers("amqps://b", "amqps://c,amqp://broker"), "amqp.brokers[1]: " + beyond + "amqps:// or ssl://, or set amqp.insecure = true"},
		"AMQP plaintext list":   {brokers("amqps://u:p@c/v?brokerlist='tcp://broker:1'"), "amqp.brokers[0]: " + beyond + "amqps:// or ssl://, or set amqp.insecure = true"},
		"AMQP scheme":           {brokers("tcp://u:p@b"), `amqp.brokers[0]: must be amqp:// or amqps://, is "tcp://u:********@b"`},
		"AMQP host":             {brokers("amqp://u:p@"), server + `"amqp://u:********@"`},
		"AMQP retries":          {brokers("amqp://localhost?retries='x'"), server + `"amqp://localhost?********"`},
		"AMQP delay":            {brokers("amqp://localhost?connectdelay='-1'"), server + `"amqp://localhost?********"`},
		"AMQP encoding":         {brokers("amqp://u:%zz@localhost"), `amqp.brokers[0]: must be percent-encoded in user, password and virtual host, is "amqp://u:********@localhost"`},
		"AMQP list":             {brokers("amqp://u:p@c/v?brokerlist='h1:5672'"), `amqp.brokers[0]: must be a brokerlist of tcp:// or ssl:// servers, between quotes, is "amqp://u:********@c/v?********"`},
		"AMQP cert alone":       {func(c *config.Config) { c.AMQP.TLS.Cert = "c" }, "amqp.tls.key: is required with amqp.tls.cert"},

		"control plane":           {plane("https://apim:9443"), ""},
		"control plane here":      {plane("http://127.0.0.1:9763/base"), ""},
		"control plane insecure":  {func(c *config.Config) { c.ControlPlane.URL, c.ControlPlane.Insecure = "http://apim", true }, ""},
		"control plane plaintext": {plane("http://apim:9763"), "control_plane.url: " + beyond + "https://, or set control_plane.insecure = true"},
		"control plane scheme":    {plane("apim:9443"), `control_plane.url: must be http:// or https://, is "apim:9443"`},
		"control plane user":      {plane("https://u:p@apim"), "control_plane.url: names a user: set control_plane.username and password"},
		"control plane query":     {plane("https://apim?x"), `control_plane.url: must be https://host:port, with a path at most, is "https://apim?********"`},
		"control plane nowhere":   {plane("https://"), `control_plane.url: must be https://host:port, with a path at most, is "https://"`},
		"control plane interval":  {func(c *config.Config) { c.ControlPlane.Interval = 0 }, "control_plane.interval: must be from 1s to 24h, is 0s"},
		"control plane password":  {func(c *config.Config) { c.ControlPlane.Password = "p" }, "control_plane.password: needs control_plane.username"},
		"control plane required":  {func(c *config.Config) { c.ControlPlane.RequiredForReadiness = true }, "control_plane.required_for_readiness: needs control_plane.url"},

		"notify":            {func(c *config.Config) { c.Notify.Username, c.Notify.Password = "u", "p" }, ""},
		"notify hash":       {func(c *config.Config) { c.Notify.Username, c.Notify.PasswordHash = "u", bcryptHash }, ""},
		"notify no user":    {func(c *config.Config) { c.Notify.Password = "p" }, "notify.password: needs notify.username"},
		"notify hash alone": {func(c *config.Config) { c.Notify.PasswordHash = bcryptHash }, "notify.password_hash: needs notify.username"},
		"notify no secret":  {func(c *config.Config) { c.Notify.Username = "u" }, "notify.username: needs notify.password or notify.password_hash"},
		"notify both": {func(c *config.Config) {
			c.Notify = config.Notify{Username: "u", Password: "p", PasswordHash: bcryptHash}
		}, "notify.password_hash: cannot be combined with notify.password"},
		"notify no hash": {func(c *config.Config) { c.Notify.Username, c.Notify.PasswordHash = "u", "hunter2" }, "notify.password_hash: must be bcrypt of the password, such as htpasswd -B prints"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if tc.want != "" {
				refused(t, tc.change, tc.want)
				return
			}
			c := config.Default()
			tc.change(&c)
			if err := c.Validate(); err != nil {
				t.Error(err)
			}
		})
	}
}

// bcryptHash is of the right form.
const bcryptHash = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"
