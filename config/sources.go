package config

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"revocation-adapter/config/strict"
)

// AMQP is API-M's own brokers, from which events are taken.
type AMQP struct {
	// Brokers are connection strings as API-M writes them, each for a connection
	// of its own; see BrokerURL.Brokers.
	Brokers []BrokerURL `toml:"brokers"`
	// Insecure allows plaintext beyond loopback.
	Insecure bool `toml:"insecure"`
	// TLS is the section [amqp.tls].
	TLS HubTLS `toml:"tls"`
}

// ControlPlane is where everything that is revoked can be read.
type ControlPlane struct {
	// URL is the control plane without a path, https://; empty: it is not read.
	URL URL `toml:"url"`
	// Username is for Basic authentication.
	Username string `toml:"username"`
	// Password belongs to Username.
	Password Secret `toml:"password"`
	// CA is a PEM file that verifies the control plane.
	CA string `toml:"ca"`
	// Insecure allows plaintext beyond loopback.
	Insecure bool `toml:"insecure"`
	// Interval is the time between two reads without another reason.
	Interval Duration `toml:"interval"`
	// RequiredForReadiness keeps the adapter not ready until it was read once.
	RequiredForReadiness bool `toml:"required_for_readiness"`
}

// Notify is the endpoint at which key managers announce revocations. It exists
// where Username is set.
type Notify struct {
	// Username is for Basic authentication.
	Username string `toml:"username"`
	// Password belongs to Username.
	Password Secret `toml:"password"`
	// PasswordHash is bcrypt of the password, in place of it.
	PasswordHash Secret `toml:"password_hash"`
}

func (a AMQP) check(f *strict.Faults) {
	for i, u := range a.Brokers {
		key := fmt.Sprintf("amqp.brokers[%d]", i)
		brokers, err := u.Brokers()
		if err != nil {
			f.Wrong(key, err.Error(), strict.Quoted(u.String()))
			continue
		}
		for _, b := range brokers {
			host, _, _ := net.SplitHostPort(b.Address)
			if !b.TLS && !a.Insecure && !strict.IsLoopback(host) {
				f.Add(key, "plaintext beyond loopback: use amqps:// or ssl://, or set amqp.insecure = true")
				break
			}
		}
	}
	f.Pair("amqp.tls", a.TLS.Cert, a.TLS.Key)
}

func (c ControlPlane) check(f *strict.Faults) {
	strict.Within(f, "control_plane.interval", c.Interval, strict.From[Duration](Duration(time.Second), Duration(24*time.Hour)))
	if c.Password != "" && c.Username == "" {
		f.Add("control_plane.password", "needs control_plane.username")
	}
	if c.URL == "" {
		if c.RequiredForReadiness {
			f.Add("control_plane.required_for_readiness", "needs control_plane.url")
		}
		return
	}
	parsed, err := url.Parse(string(c.URL))
	switch {
	case err != nil || parsed.Scheme != "http" && parsed.Scheme != "https":
		f.Wrong("control_plane.url", "http:// or https://", strict.Quoted(c.URL.String()))
	case parsed.User != nil:
		f.Add("control_plane.url", "names a user: set control_plane.username and password")
	case parsed.Hostname() == "" || !strict.IsHost(parsed.Hostname()) || strings.ContainsAny(string(c.URL), "?#"):
		f.Wrong("control_plane.url", "https://host:port, with a path at most", strict.Quoted(c.URL.String()))
	case parsed.Scheme == "http" && !c.Insecure && !strict.IsLoopback(parsed.Hostname()):
		f.Add("control_plane.url", "plaintext beyond loopback: use https://, or set control_plane.insecure = true")
	}
}

func (n Notify) check(f *strict.Faults) {
	f.Credentials("notify", strict.Credentials{
		Username: n.Username, Password: string(n.Password), PasswordHash: string(n.PasswordHash),
	})
}
