package revocation_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"revocation-adapter/revocation"
)

func claimOf(id string) revocation.TokenClaim {
	return revocation.TokenClaim{
		ID: "claim-0123456789" + id, Key: "jti", Kind: revocation.KindJWT, Expiry: 1_800_000_000_000, Tenant: "acme",
	}
}

func TestClaimCheck(t *testing.T) {
	t.Parallel()
	const secret = "a-token-nobody-may-see"
	for name, test := range map[string]struct {
		change func(*revocation.TokenClaim)
		ok     bool
	}{
		"a claim":              {func(*revocation.TokenClaim) {}, true},
		"never expires":        {func(c *revocation.TokenClaim) { c.Expiry = revocation.Never }, true},
		"id of 16 bytes":       {func(c *revocation.TokenClaim) { c.ID = strings.Repeat("x", 16) }, true},
		"id of 64 bytes":       {func(c *revocation.TokenClaim) { c.ID = strings.Repeat("x", 64) }, true},
		"id of 15 bytes":       {func(c *revocation.TokenClaim) { c.ID = strings.Repeat("x", 15) }, false},
		"id of 65 bytes":       {func(c *revocation.TokenClaim) { c.ID = strings.Repeat("x", 65) }, false},
		"id with a space":      {func(c *revocation.TokenClaim) { c.ID = strings.Repeat("x ", 10) }, false},
		"id with a line break": {func(c *revocation.TokenClaim) { c.ID = strings.Repeat("x", 20) + "\n" }, false},
		"id beyond ASCII":      {func(c *revocation.TokenClaim) { c.ID = strings.Repeat("é", 10) }, false},
		"no jti":               {func(c *revocation.TokenClaim) { c.Key = "" }, false},
		"a long jti":           {func(c *revocation.TokenClaim) { c.Key = strings.Repeat(secret, 100) }, false},
		"a reserved jti":       {func(c *revocation.TokenClaim) { c.Key = revocation.NamePrefix + secret }, false},
		"no expiry":            {func(c *revocation.TokenClaim) { c.Expiry = 0 }, false},
		"a negative expiry":    {func(c *revocation.TokenClaim) { c.Expiry = -1 }, false},
		"an unknown kind":      {func(c *revocation.TokenClaim) { c.Kind = 3 }, false},
		"a long tenant":        {func(c *revocation.TokenClaim) { c.Tenant = strings.Repeat("x", 257) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := claimOf("")
			test.change(&c)
			err := c.Check()
			if (err == nil) != test.ok || err != nil && !errors.Is(err, revocation.ErrClaim) {
				t.Errorf("got %v", err)
			}
			if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "xx")) {
				t.Errorf("it quotes the claim: %v", err)
			}
		})
	}
}

// Without grace: whoever is late is refused.
func TestClaimExpires(t *testing.T) {
	t.Parallel()
	c := claimOf("")
	at := time.UnixMilli(c.Expiry)
	if !c.Expired(at) || c.Expired(at.Add(-time.Millisecond)) {
		t.Error("it expires at another time than its token")
	}
	if c.Expiry = revocation.Never; c.Expired(at) {
		t.Error("what never expires has expired")
	}
}

// What is kept for longer than a duration can be is kept for ever.
func TestClaimOfADistantExpiry(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_700_000_000_000)
	for expiry, want := range map[int64]revocation.Lifetime{
		now.Add(time.Hour).UnixMilli(): revocation.Dated,
		now.UnixMilli() + 3.2e12:       revocation.Forever, // 101 years
		revocation.Never - 1:           revocation.Forever,
		revocation.Never:               revocation.Forever,
	} {
		c := claimOf("")
		c.Expiry = expiry
		r := c.Use(now)
		if r.Lifetime != want || (r.Expiry == revocation.Never) != (want == revocation.Forever) {
			t.Errorf("expiry %d is kept as %d, %s", expiry, r.Expiry, r.Lifetime)
		}
	}
}

// Whatever was known of a token that is approved, whatever the clocks say: once it
// is used it is revoked, by this claim, for at least as long.
func TestUseAgainAlwaysRevokes(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	tried := 0
	for range 20_000 {
		old := claimOf("other").Use(time.UnixMicro(random.Int64N(1000)))
		for i := range random.IntN(6) {
			e := revocation.Event{ID: string(rune('a' + i)), Time: random.Int64N(1000), State: revocation.State(1 + random.IntN(2))}
			if random.IntN(3) == 0 {
				e.ID = ""
			}
			old = revocation.Merge(old, revocation.Revocation{
				Domain: old.Domain, Key: old.Key, Digest: old.Digest, State: e.State, Time: e.Time,
				Expiry: 1 + random.Int64N(2*old.Expiry), Lifetime: revocation.Dated, Events: []revocation.Event{e},
			})
		}
		if old.State != revocation.Approved {
			continue
		}
		tried++
		c := claimOf("mine")
		if c.GrantedBy(old) {
			t.Fatalf("%+v grants a claim that was not made", old)
		}
		used := c.UseAgain(old, time.UnixMicro(random.Int64N(1000)))
		if used.State != revocation.Revoked || !used.Used() || !c.GrantedBy(used) || used.Time <= old.Time || used.Expiry < max(old.Expiry, c.Expiry) {
			t.Fatalf("%+v becomes %+v", old, used)
		}
	}
	if tried < 1000 {
		t.Errorf("only %d were approved", tried)
	}
}

// Publishers choose the ids of their events. One that happens to be a claim's is
// no claim.
func TestAnEventIsNoClaim(t *testing.T) {
	t.Parallel()
	c := claimOf("")
	r := c.Use(time.UnixMicro(1))
	r.Events[0].ID = c.ID
	if c.GrantedBy(r) || r.Used() {
		t.Error("an event of a publisher grants a claim")
	}
}

// An approval that undoes a use ends it; a revocation that comes later is none.
func TestUsed(t *testing.T) {
	t.Parallel()
	used := claimOf("").Use(time.UnixMicro(10))
	event := func(state revocation.State, at int64) revocation.Revocation {
		r := used
		r.State, r.Time, r.Events = state, at, []revocation.Event{{ID: "e", Time: at, State: state}}
		return revocation.Merge(used, r)
	}
	for name, test := range map[string]struct {
		record revocation.Revocation
		want   bool
	}{
		"used":              {used, true},
		"approved later":    {event(revocation.Approved, 11), false},
		"approved earlier":  {event(revocation.Approved, 9), true},
		"revoked later too": {event(revocation.Revoked, 11), false},
	} {
		if test.record.Used() != test.want {
			t.Errorf("%s: %+v", name, test.record)
		}
	}
}
