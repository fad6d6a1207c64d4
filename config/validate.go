package config

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"revocation-adapter/config/strict"
)

// Validate reports every broken rule that can be seen without touching a file,
// each by its key.
func (c Config) Validate() error {
	var f strict.Faults
	c.Check(&f)
	return f.Join()
}

// Check is what package strict asks.
func (c Config) Check(f *strict.Faults) {
	f.Level("log.level", c.Log.Level)
	c.Hub.check(f)
	c.Revocation.check(f)
	c.Rules.check(f)
	c.Ingest.check(f)
	c.AMQP.check(f)
	c.ControlPlane.check(f)
	c.Notify.check(f)
	c.XDS.check(f)
	strict.Within(f, "receipts.memory", c.Receipts.Memory, strict.From[Duration](Duration(time.Second), Duration(24*time.Hour)))
	c.Control.check(f)
	checkClients(f, c.Clients)
	checkIssuers(f, c.Issuers)
	c.Grants.check(f)
	c.Audit.check(f)
}

func (r Revocation) check(f *strict.Faults) {
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	strict.Within(f, "revocation.grace", r.Grace, strict.From[Duration](0, Duration(day)))
	strict.Within(f, "revocation.unknown_lifetime", r.UnknownLifetime, strict.From[Duration](Duration(time.Hour), Duration(3*year)))
	strict.Within(f, "revocation.purge_interval", r.PurgeInterval, strict.From[Duration](Duration(time.Second), Duration(time.Hour)))
	strict.Within(f, "revocation.max_live", r.MaxLive, strict.From[int](1, 1_000_000_000))
}

func (r Rules) check(f *strict.Faults) {
	claim(f, "rules.client_claim", r.ClientClaim)
	claim(f, "rules.user_claim", r.UserClaim)
	for i, name := range r.Claims {
		claim(f, fmt.Sprintf("rules.claims[%d]", i), name)
	}
	strict.Within(f, "rules.max_token_lifetime", r.MaxTokenLifetime, strict.From[Duration](0, Duration(10*365*24*time.Hour)))
}

// claim refuses what cannot be the name of a claim in a rule's key.
func claim(f *strict.Faults, key, name string) {
	if name == "" || strings.ContainsFunc(name, func(c rune) bool { return c == '=' || c == ' ' || !unicode.IsPrint(c) }) {
		f.Wrong(key, `the name of a claim, without spaces and "="`, strict.Quoted(name))
	}
}

func (i Ingest) check(f *strict.Faults) {
	strict.Within(f, "ingest.max_deliveries", i.MaxDeliveries, strict.From[int](1, 1000))
	strict.Within(f, "ingest.workers", i.Workers, strict.From[int](1, 64))
}

func (x XDS) check(f *strict.Faults) {
	f.Listener("xds", strict.Listener{Address: x.Listen, Secured: x.TLS.Cert != "", Insecure: x.Insecure})
	if x.Label == "" || strings.ContainsFunc(x.Label, func(c rune) bool { return c == ' ' || !unicode.IsPrint(c) }) {
		f.Wrong("xds.label", "printable and without spaces", strict.Quoted(x.Label))
	}
	strict.Within(f, "xds.max_receive_bytes", x.MaxReceiveBytes, strict.From[int](64<<10, 1<<30))
	strict.AtLeast(f, "xds.max_streams", x.MaxStreams, 0)
	x.TLS.Check(f, "xds.tls")
}
