package config

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// AMQP is API-M's own brokers, from which events are taken.
type AMQP struct {
	// Brokers are connection strings as API-M writes them, each for a connection
	// of its own; see URL.Brokers.
	Brokers []URL `toml:"brokers"`
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

func (a AMQP) check(f *faults) {
	for i, u := range a.Brokers {
		key := fmt.Sprintf("amqp.brokers[%d]", i)
		brokers, err := u.Brokers()
		if err != nil {
			f.wrong(key, err.Error(), quoted(u.String()))
			continue
		}
		for _, b := range brokers {
			host, _, _ := net.SplitHostPort(b.Address)
			if !b.TLS && !a.Insecure && !isLoopback(host) {
				f.add(key, "plaintext beyond loopback: use amqps:// or ssl://, or set amqp.insecure = true")
				break
			}
		}
	}
	f.pair("amqp.tls", a.TLS.Cert, a.TLS.Key)
}

func (c ControlPlane) check(f *faults) {
	within(f, "control_plane.interval", c.Interval, bounds[Duration]{Duration(time.Second), Duration(24 * time.Hour)})
	if c.Password != "" && c.Username == "" {
		f.add("control_plane.password", "needs control_plane.username")
	}
	if c.URL == "" {
		if c.RequiredForReadiness {
			f.add("control_plane.required_for_readiness", "needs control_plane.url")
		}
		return
	}
	parsed, err := url.Parse(string(c.URL))
	switch {
	case err != nil || parsed.Scheme != "http" && parsed.Scheme != "https":
		f.wrong("control_plane.url", "http:// or https://", quoted(c.URL.String()))
	case parsed.User != nil:
		f.add("control_plane.url", "names a user: set control_plane.username and password")
	case parsed.Hostname() == "" || !isHost(parsed.Hostname()) || strings.ContainsAny(string(c.URL), "?#"):
		f.wrong("control_plane.url", "https://host:port, with a path at most", quoted(c.URL.String()))
	case parsed.Scheme == "http" && !c.Insecure && !isLoopback(parsed.Hostname()):
		f.add("control_plane.url", "plaintext beyond loopback: use https://, or set control_plane.insecure = true")
	}
}

func (n Notify) check(f *faults) {
	switch {
	case n.Username == "" && n.Password != "":
		f.add("notify.password", "needs notify.username")
	case n.Username == "" && n.PasswordHash != "":
		f.add("notify.password_hash", "needs notify.username")
	case n.Username == "":
	case n.Password == "" && n.PasswordHash == "":
		f.add("notify.username", "needs notify.password or notify.password_hash")
	case n.Password != "" && n.PasswordHash != "":
		f.add("notify.password_hash", "cannot be combined with notify.password")
	}
	if n.PasswordHash != "" && n.PasswordHash != mask { // as Effective shows it
		if _, err := bcrypt.Cost([]byte(n.PasswordHash)); err != nil {
			f.add("notify.password_hash", "must be bcrypt of the password, such as htpasswd -B prints")
		}
	}
}
