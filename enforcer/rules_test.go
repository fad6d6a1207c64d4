package enforcer_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"revocation-adapter/enforcer"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

func TestExpiry(t *testing.T) {
	expiry := epoch.Add(time.Hour)
	c, h := clockAt(epoch), newHub()
	h.put(tokenDigest("dated"), item{revoked: true, seconds: expiry.Unix()})
	h.revoke("for ever")
	rule := &revocationv1.Rule{Claim: "azp", Value: "c", IssuedBeforeMillis: epoch.UnixMilli() + 1, Expirytime: expiry.UnixMilli() - 1}
	h.put(revocation.Rule{Claim: "azp", Value: "c"}.Digest(), item{revoked: true, rule: rule})
	cfg := configOf(c, &adapter{address: "127.0.0.1:1"})
	cfg.MaxStaleness = 0
	e := build(t, cfg)
	b, _ := h.batch(0, h.version, true, 100)
	if err := e.Take(respond(b, "hub")); err != nil {
		t.Fatal(err)
	}
	ruled := jwtOf("ruled")
	ruled.Claims = map[string][]string{"azp": {"c"}}
	own := jwtOf("own")
	own.Expiry = expiry.UnixMilli()
	c.advance(time.Hour + grace - time.Millisecond)
	wantVerdict(t, e, jwtOf("dated"), enforcer.Revoked)
	wantVerdict(t, e, ruled, enforcer.Revoked) // expiries are rounded up
	wantVerdict(t, e, own, enforcer.Pass)
	c.advance(time.Millisecond)
	wantVerdict(t, e, jwtOf("dated"), enforcer.Pass)
	wantVerdict(t, e, ruled, enforcer.Pass)
	wantVerdict(t, e, own, enforcer.Expired)
	c.advance(200 * 365 * 24 * time.Hour)
	wantVerdict(t, e, jwtOf("for ever"), enforcer.Revoked)
	own.Expiry = revocation.Never - 1
	wantVerdict(t, e, own, enforcer.Pass)
}

func TestRulesMatch(t *testing.T) {
	h := newHub()
	h.rule("azp", "client", epoch)
	h.rule("sub", "alice=x", epoch)
	e := build(t, configOf(clockAt(epoch), &adapter{address: "127.0.0.1:1"}))
	b, _ := h.batch(0, h.version, true, 100)
	b.CompleteAtMicros = epoch.UnixMicro()
	if err := e.Take(respond(b, "hub")); err != nil {
		t.Fatal(err)
	}
	before := epoch.UnixMilli()
	tests := []struct {
		name   string
		iat    int64
		claims map[string][]string
		rule   string
	}{
		{"issued before", before - 1, map[string][]string{"azp": {"client"}}, "azp"},
		{"issued then", before, map[string][]string{"azp": {"client"}}, ""},
		{"issued nobody knows when", 0, map[string][]string{"azp": {"client"}}, "azp"},
		{"issued before the epoch", -5, map[string][]string{"azp": {"client"}}, "azp"},
		{"another value", 1, map[string][]string{"azp": {"clients", "Client", ""}}, ""},
		{"another claim", 1, map[string][]string{"sub": {"client"}, "": {"x"}}, ""},
		{"one of many values", 1, map[string][]string{"azp": {"x", "client"}}, "azp"},
		{"a value with a =", 1, map[string][]string{"sub": {"alice=x"}}, "sub"},
		{"where the = is moved", 1, map[string][]string{"sub=alice": {"x"}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := e.Check(enforcer.Token{ID: "j", IssuedAt: tt.iat, Expiry: revocation.Never, Claims: tt.claims})
			if d.Rule != tt.rule || (d.Verdict == enforcer.Revoked) != (tt.rule != "") {
				t.Errorf("%+v, want rule %q", d, tt.rule)
			}
		})
	}
}

// What comes twice refuses as long as either says.
func TestTheLaterExpiryCounts(t *testing.T) {
	at := func(seconds ...int64) step { return step{to: 10, head: 10, from: 5, seconds: seconds} }
	tests := []struct {
		name  string
		steps []step
	}{
		{"in one batch", []step{at(100, 200)}},
		{"in one batch, the other way round", []step{at(200, 100)}},
		{"one after another", []step{at(100), at(200)}},
		{"one after another, the other way round", []step{at(200), at(100)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := clockAt(epoch)
			cfg := configOf(c, &adapter{address: "127.0.0.1:1"})
			cfg.MaxStaleness = 0
			e := build(t, cfg)
			step{reset: true, to: 5, head: 5, version: 5}.check(t, e)
			for _, s := range tt.steps {
				if err := e.Take(s.twice()); err != nil {
					t.Fatal(err)
				}
			}
			c.advance(grace + 150*time.Second)
			wantVerdict(t, e, jwtOf("a"), enforcer.Revoked)
			token := jwtOf("other")
			token.Claims = map[string][]string{"azp": {"a"}}
			token.IssuedAt = epoch.Unix()*1000 + 150
			wantVerdict(t, e, token, enforcer.Revoked)
			if e.Held() != 1 {
				t.Errorf("%d tokens", e.Held())
			}
			c.advance(50 * time.Second)
			wantVerdict(t, e, jwtOf("a"), enforcer.Pass)
			wantVerdict(t, e, token, enforcer.Pass)
		})
	}
}

// twice revokes "a" and everything of client "a", with each of the seconds after
// epoch as expiry, and in milliseconds as watermark.
func (s step) twice() *discovery.DiscoveryResponse {
	b := &revocationv1.Batch{FromVersion: s.from, ToVersion: s.to, HeadVersion: s.head}
	d, last := tokenDigest("a"), int64(0)
	for _, after := range s.seconds {
		b.Digests = append(b.Digests, d[:]...)
		b.Expiries, last = appendExpiry(b.Expiries, epoch.Unix()+after, last)
		b.Rules = append(b.Rules, &revocationv1.Rule{
			Claim: "azp", Value: "a", IssuedBeforeMillis: epoch.UnixMilli() + after, Expirytime: epoch.UnixMilli() + 1000*after,
		})
	}
	return respond(b, "hub")
}

// Claims that no rule names any more are not read any more, and the rules that
// stay keep theirs.
func TestClaimsInUse(t *testing.T) {
	h := newHub()
	e := build(t, configOf(clockAt(epoch), &adapter{address: "127.0.0.1:1"}))
	position := uint64(0)
	tell := func() {
		b, _ := h.batch(position, h.version, position == 0, 100)
		b.CompleteAtMicros = epoch.UnixMicro()
		if err := e.Take(respond(b, "hub")); err != nil {
			t.Fatal(err)
		}
		position = h.version
	}
	kept := func(want ...string) {
		t.Helper()
		token, err := e.Parse(signed(`{"iat":1,"a":"x","b":"x","c":"x","d":"x"}`))
		if err != nil || fmt.Sprint(slices.Sorted(maps.Keys(token.Claims))) != fmt.Sprint(want) {
			t.Errorf("kept %v, want %v", token.Claims, want)
		}
		d := e.Check(token)
		if !slices.Contains(want, d.Rule) {
			t.Errorf("%+v", d)
		}
	}
	h.rule("a", "x", epoch)
	h.rule("b", "x", epoch)
	h.rule("b", "y", epoch)
	tell()
	kept("a", "b")
	h.put(revocation.Rule{Claim: "a", Value: "x"}.Digest(), item{})
	tell()
	kept("b")
	h.rule("c", "y", epoch)
	h.rule("d", "y", epoch)
	tell()
	kept("b", "c", "d")
	h.put(revocation.Rule{Claim: "b", Value: "y"}.Digest(), item{})
	h.rule("a", "y", epoch)
	tell()
	kept("a", "b", "c", "d")
	h.put(revocation.Rule{Claim: "b", Value: "x"}.Digest(), item{})
	h.rule("c", "x", epoch)
	tell()
	kept("a", "c", "d")
}

// What has expired is dropped, from a set that is being loaded too, and loading
// goes on.
func TestPurge(t *testing.T) {
	c := clockAt(epoch)
	e := build(t, configOf(c, &adapter{address: "127.0.0.1:1"}))
	take := func(proof string, from, to uint64, tokens int, version uint64) {
		t.Helper()
		b := &revocationv1.Batch{Reset_: from == 0, FromVersion: from, ToVersion: to, HeadVersion: 3000}
		for i, last := from, int64(0); i < to; i++ {
			d := tokenDigest(jti(int(i)))
			b.Digests = append(b.Digests, d[:]...)
			b.Expiries, last = appendExpiry(b.Expiries, epoch.Unix()+int64(i%2), last)
		}
		if err := e.Take(respond(b, proof)); err != nil {
			t.Fatal(err)
		}
		if e.Held() != tokens || e.Freshness().Version != version {
			t.Errorf("%d tokens at %d, want %d at %d", e.Held(), e.Freshness().Version, tokens, version)
		}
	}
	take("hub", 0, 1000, 1000, 1000)
	c.micros.Store(epoch.Add(grace).UnixMicro())
	e.Purge()
	if e.Held() != 500 {
		t.Errorf("%d tokens, want those that have not expired", e.Held())
	}
	take("hub", 1000, 2000, 1500, 2000)
	take("hub", 2000, 3000, 2500, 3000)
	take("new", 0, 1000, 3000, 3000)
	e.Purge()
	take("new", 1000, 3000, 2500, 3000)
	c.advance(time.Second)
	e.Purge()
	if e.Held() != 0 {
		t.Errorf("%d tokens, want none", e.Held())
	}
}

func TestCheckAllocatesNothing(t *testing.T) {
	h := newHub()
	h.revoke("one")
	h.rule("azp", "client", epoch)
	e := build(t, configOf(clockAt(epoch), &adapter{address: "127.0.0.1:1"}))
	b, _ := h.batch(0, h.version, true, 10)
	if err := e.Take(respond(b, "hub")); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 200)
	for name, token := range map[string]enforcer.Token{
		"a jti":          jwtOf(jti(1)),
		"a long jti":     jwtOf(long),
		"an RSA of 4096": {Signature: strings.Repeat("a", 683), Expiry: revocation.Never},
		"claims":         {ID: "x", IssuedAt: epoch.UnixMilli(), Expiry: revocation.Never, Claims: map[string][]string{"azp": {"client", long}}},
		"opaque":         opaqueToken(long),
	} {
		if n := testing.AllocsPerRun(100, func() { e.Check(token) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
