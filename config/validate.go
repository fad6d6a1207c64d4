package config

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Validate reports every broken rule that can be seen without touching a file,
// each by its key.
func (c Config) Validate() error { return c.validate().join() }

func (c Config) validate() faults {
	var f faults
	c.Log.check(&f)
	c.Hub.check(&f)
	c.Revocation.check(&f)
	c.Rules.check(&f)
	c.Ingest.check(&f)
	c.AMQP.check(&f)
	c.ControlPlane.check(&f)
	c.Notify.check(&f)
	c.XDS.check(&f)
	c.Control.check(&f)
	return f
}

func (l Log) check(f *faults) {
	switch l.Level {
	case "panic", "fatal", "error", "warn", "info", "debug":
	default:
		f.wrong("log.level", "panic, fatal, error, warn, info or debug", quoted(l.Level))
	}
}

func (r Revocation) check(f *faults) {
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	within(f, "revocation.grace", r.Grace, bounds[Duration]{0, Duration(day)})
	within(f, "revocation.unknown_lifetime", r.UnknownLifetime, bounds[Duration]{Duration(time.Hour), Duration(3 * year)})
	within(f, "revocation.purge_interval", r.PurgeInterval, bounds[Duration]{Duration(time.Second), Duration(time.Hour)})
	within(f, "revocation.max_live", r.MaxLive, bounds[int]{1, 1_000_000_000})
}

func (r Rules) check(f *faults) {
	f.claim("rules.client_claim", r.ClientClaim)
	f.claim("rules.user_claim", r.UserClaim)
	for i, name := range r.Claims {
		f.claim(fmt.Sprintf("rules.claims[%d]", i), name)
	}
	within(f, "rules.max_token_lifetime", r.MaxTokenLifetime, bounds[Duration]{0, Duration(10 * 365 * 24 * time.Hour)})
}

// claim refuses what cannot be the name of a claim in a rule's key.
func (f *faults) claim(key, name string) {
	if name == "" || strings.ContainsFunc(name, func(c rune) bool { return c == '=' || c == ' ' || !unicode.IsPrint(c) }) {
		f.wrong(key, `the name of a claim, without spaces and "="`, quoted(name))
	}
}

func (i Ingest) check(f *faults) {
	within(f, "ingest.max_deliveries", i.MaxDeliveries, bounds[int]{1, 1000})
	within(f, "ingest.workers", i.Workers, bounds[int]{1, 64})
}

func (x XDS) check(f *faults) {
	f.listener("xds", listener{x.Listen, x.TLS.Cert != "", x.Insecure})
	if x.Label == "" || strings.ContainsFunc(x.Label, func(c rune) bool { return c == ' ' || !unicode.IsPrint(c) }) {
		f.wrong("xds.label", "printable and without spaces", quoted(x.Label))
	}
	within(f, "xds.max_receive_bytes", x.MaxReceiveBytes, bounds[int]{64 << 10, 1 << 30})
	atLeast(f, "xds.max_streams", x.MaxStreams, 0)
	x.TLS.check(f, "xds.tls")
}

func (c Control) check(f *faults) {
	f.listener("control", listener{c.Listen, c.TLS.Cert != "", c.Insecure})
	c.TLS.check(f, "control.tls")
}

func (t ServerTLS) check(f *faults, section string) {
	f.pair(section, t.Cert, t.Key)
	if t.ClientCA != "" && t.Cert == "" {
		f.add(section+".client_ca", "needs "+section+".cert")
	}
}

// pair refuses one half of a certificate and its key.
func (f *faults) pair(section, cert, key string) {
	if cert != "" && key == "" {
		f.add(section+".key", "is required with "+section+".cert")
	}
	if cert == "" && key != "" {
		f.add(section+".cert", "is required with "+section+".key")
	}
}

func quoted(text string) string { return fmt.Sprintf("%q", text) }
