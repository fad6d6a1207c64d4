package revocation_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"revocation-adapter/revocation"
)

func ruleOf(key string, before int64, expiry time.Time) revocation.Revocation {
	r := revoke(key, expiry)
	r.Domain, r.Digest, r.Before = revocation.DomainRule, revocation.DigestOf(revocation.DomainRule, key), before
	return r
}

// compareSeries checks what each series says, in which order, and that nothing
// is in both.
func (m model) compareSeries(t *testing.T, s *revocation.Snapshot, since uint64, now time.Time) {
	t.Helper()
	n := 0
	for _, of := range []revocation.Series{revocation.Tokens, revocation.Rules} {
		last := since
		for c := range s.SinceOf(of, since, now) {
			e := m[c.Name()]
			if c.Domain.Series() != of || strings.HasPrefix(c.Name(), "azp=") != (of == revocation.Rules) {
				t.Fatalf("%s is in series %d", c.Name(), of)
			}
			if c.Version <= last || c.Version != e.version || c.Version > s.Changed(of) {
				t.Fatalf("%s at %d after %d, want %d; the series changed at %d", c.Name(), c.Version, last, e.version, s.Changed(of))
			}
			if c.Tenant != e.rev.Tenant || c.Before() != e.rev.Before {
				t.Fatalf("%s: %q before %d, want %q before %d", c.Name(), c.Tenant, c.Before(), e.rev.Tenant, e.rev.Before)
			}
			last = c.Version
			n++
		}
	}
	if want := len(m.since(since, now)); n != want {
		t.Fatalf("%d keys in both series, want %d", n, want)
	}
}

func TestRulesAreLookedUpByKey(t *testing.T) {
	l := revocation.NewLog(grace)
	rule := ruleOf("azp=client", 1234, epoch.Add(time.Hour))
	rule.Tenant = "acme"
	mustAppend(t, l, 1, rule)
	mustAppend(t, l, 2, revoke("azp=other", epoch.Add(time.Hour)))
	c, found := l.LookupRule("azp=client")
	if !found || c.Version != 1 || c.Before() != 1234 || c.Tenant != "acme" || c.Name() != "azp=client" {
		t.Errorf("found %v: %+v", found, c)
	}
	if _, found := l.Lookup("azp=client"); found {
		t.Error("a rule is found as a token")
	}
	if _, found := l.LookupRule("azp=other"); found {
		t.Error("a token is found as a rule")
	}
	if v, state, found := l.Find(revocation.DomainRule, rule.Key, rule.Digest); !found || v != 1 || state != revocation.Revoked {
		t.Errorf("Find: %v at %d, %v", state, v, found)
	}
}

func TestOneSeriesDoesNotChangeTheOther(t *testing.T) {
	l := revocation.NewLog(grace)
	mustAppend(t, l, 5, ruleOf("azp=client", 1, epoch.Add(time.Hour)))
	l.Publish(5)
	mustAppend(t, l, 8, revoke("jti", epoch.Add(time.Hour)))
	l.Publish(9)
	s := l.Snapshot()
	if s.Version() != 9 || s.Changed(revocation.Rules) != 5 || s.Changed(revocation.Tokens) != 8 {
		t.Errorf("at %d rules changed at %d and tokens at %d", s.Version(), s.Changed(revocation.Rules), s.Changed(revocation.Tokens))
	}
	if n := s.Counts().Revoked(); n != 2 {
		t.Errorf("%d revoked, want both", n)
	}
}

// One tenant too many is told to everybody, never taken for another.
func TestTenantsBeyondTheBound(t *testing.T) {
	const many = 1 << 16
	l := revocation.NewLog(grace)
	put := func(version uint64, tenant string) {
		r := revoke(fmt.Sprint("jti ", version), epoch.Add(time.Hour))
		r.Tenant = tenant
		mustAppend(t, l, version, r)
	}
	for i := range uint64(many + 10) {
		put(i+1, fmt.Sprint("tenant ", i))
	}
	put(many+11, "tenant 0")
	put(many+12, strings.Repeat("x", revocation.MaxTenant+1))
	l.Publish(many + 12)
	var got []string
	for c := range l.Snapshot().Since(many-2, epoch) {
		got = append(got, c.Tenant)
	}
	want := slices.Concat([]string{fmt.Sprint("tenant ", many-2)}, make([]string, 11), []string{"tenant 0", ""})
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// BenchmarkRulesBesideAMillionTokens reads all of 100 rules, the oldest and the
// newest of a log.
func BenchmarkRulesBesideAMillionTokens(b *testing.B) {
	l, version := millionTokens(b)
	for range uint64(100) {
		version++
		mustAppend(b, l, version, ruleOf(fmt.Sprint("azp=", version), 1, epoch.Add(time.Hour)))
	}
	l.Publish(version)
	b.ResetTimer()
	for range b.N {
		n := 0
		for range l.Snapshot().SinceOf(revocation.Rules, 0, epoch) {
			n++
		}
		if n != 100 {
			b.Fatalf("%d rules", n)
		}
	}
}
