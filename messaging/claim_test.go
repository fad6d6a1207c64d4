package messaging_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nuid"

	"revocation-adapter/messaging"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// claiming is a replica that decides claims.
type claiming struct {
	*replica
	claims *messaging.Claims
}

// decide runs a replica that only follows and decides claims.
func decide(t *testing.T, cfg messaging.Config) claiming {
	t.Helper()
	r := prepare(t, cfg)
	c := claiming{r, messaging.NewClaims(r.follower)}
	r.run(t, r.follower.Run, c.claims.Run)
	r.awaitReady(t)
	return c
}

// claimOf is a claim of a JWT that expires in an hour.
func claimOf(jti string) revocation.TokenClaim {
	return revocation.TokenClaim{ID: nuid.Next(), Key: jti, Kind: revocation.KindJWT, Expiry: inAnHour()}
}

// claim claims until somebody knows, with one id, now here and now there.
func claim(ctx context.Context, c revocation.TokenClaim, at ...claiming) (revocation.ClaimOutcome, error) {
	for try := 0; ; try++ {
		outcome, err := at[try%len(at)].claims.Claim(ctx, c)
		if err == nil || errors.Is(err, revocation.ErrClaim) || ctx.Err() != nil {
			return outcome, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// contend has many claims of each token at the same time, in random order over the
// replicas, and returns those that were granted, by token.
func contend(t *testing.T, tokens []string, contenders int, at ...claiming) map[string][]revocation.TokenClaim {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var all []revocation.TokenClaim
	for _, jti := range tokens {
		for range contenders {
			all = append(all, claimOf(jti))
		}
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	granted := map[string][]revocation.TokenClaim{}
	var mu sync.Mutex
	var group sync.WaitGroup
	for _, c := range all {
		from := rand.N(len(at))
		group.Go(func() {
			outcome, err := claim(ctx, c, append(at[from:len(at):len(at)], at[:from]...)...)
			switch {
			case err != nil:
				t.Errorf("a claim is not decided: %v", err)
			case outcome == revocation.ClaimGranted:
				mu.Lock()
				granted[c.Key] = append(granted[c.Key], c)
				mu.Unlock()
			case outcome != revocation.ClaimRevoked:
				t.Errorf("a claim is %s", outcome)
			}
		})
	}
	group.Wait()
	return granted
}

// expect asks for one answer.
func (c claiming) expect(t *testing.T, claim revocation.TokenClaim, want revocation.ClaimOutcome) {
	t.Helper()
	if got, err := c.claims.Claim(t.Context(), claim); got != want || err != nil {
		t.Errorf("it is %s, %v, want %s", got, err, want)
	}
}

// refuses wants an error that says why, and nothing granted.
func (c claiming) refuses(t *testing.T, claim revocation.TokenClaim, why error) {
	t.Helper()
	outcome, err := c.claims.Claim(t.Context(), claim)
	if !errors.Is(err, why) || outcome != 0 || strings.Contains(err.Error(), claim.Key) {
		t.Errorf("it is %s, %v, want %v", outcome, err, why)
	}
}

// refusesWithin is refuses, and says how long the quickest of three took: the machine
// may be busy.
func (c claiming) refusesWithin(t *testing.T, claim revocation.TokenClaim, why error) time.Duration {
	t.Helper()
	quickest := patience
	for range 3 {
		began := time.Now()
		c.refuses(t, claim, why)
		quickest = min(quickest, time.Since(began))
	}
	return quickest
}

func tokens(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprint(prefix, "-", i)
	}
	return all
}

// Thousands of claims at three replicas on one hub: of each token one is granted,
// and one more after each approval. Who repeats his claim gets his answer.
func TestClaimedOnceOverAllReplicas(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	a, b, c := decide(t, external(s)), decide(t, external(s)), decide(t, external(s))
	all := tokens("jti", 60)
	approver := messaging.NewWriter(a.hub, a.log)
	won := contend(t, all, 32, a, b, c)
	for _, jti := range all {
		if len(won[jti]) != 1 {
			t.Errorf("%s is granted %d times", jti, len(won[jti]))
		}
	}
	for round := range 3 {
		free := map[string]int{}
		for _, jti := range all {
			if rand.N(2) == 0 {
				free[jti] = 1
				count(t, approver.Put(t.Context(), approved(jti, time.Now())))
			}
		}
		again := contend(t, all, 16, a, b, c)
		for _, jti := range all {
			if len(again[jti]) != free[jti] {
				t.Errorf("round %d: %s is granted %d times, want %d", round, jti, len(again[jti]), free[jti])
			}
			for _, w := range append(won[jti], again[jti]...) {
				b.expect(t, w, revocation.ClaimGranted)
			}
			won[jti] = append(won[jti], again[jti]...)
		}
	}
	a.settle(t)
	for jti, state := range a.held() {
		if state != revocation.Revoked {
			t.Errorf("%s is %s", jti, state)
		}
	}
}

// A claim that was granted is granted when it is repeated, though the token was
// approved since: it takes that from nobody.
func TestARepeatedClaimUsesNoApproval(t *testing.T) {
	t.Parallel()
	r := decide(t, embedded(t))
	first, second := claimOf("jti"), claimOf("jti")
	r.expect(t, first, revocation.ClaimGranted)
	count(t, messaging.NewWriter(r.hub, r.log).Put(t.Context(), approved("jti", time.Now())))
	r.settle(t)
	r.expect(t, first, revocation.ClaimGranted)
	r.expect(t, second, revocation.ClaimGranted)
	r.expect(t, claimOf("jti"), revocation.ClaimRevoked)
	r.expect(t, first, revocation.ClaimGranted)
}

// The same claim many times at once is one claim.
func TestOneClaimManyTimesAtOnce(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	a, b := decide(t, external(s)), decide(t, external(s))
	for _, jti := range tokens("jti", 20) {
		c := claimOf(jti)
		var group sync.WaitGroup
		for i := range 20 {
			group.Go(func() { []claiming{a, b}[i%2].expect(t, c, revocation.ClaimGranted) })
		}
		group.Wait()
		a.expect(t, claimOf(jti), revocation.ClaimRevoked)
	}
}

// What was used is a revocation like any other, as long as its token lives.
func TestAUsedTokenIsRevoked(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	cfg.Grace = 0
	r := decide(t, cfg)
	c := claimOf("used")
	c.Tenant, c.Kind = "acme", revocation.KindAPIKey
	r.expect(t, c, revocation.ClaimGranted)
	r.settle(t)
	rec, msg := r.record(t, revocation.DomainToken, "used")
	if r.held()["used"] != revocation.Revoked || rec.GetExpiryMillis() != c.Expiry || rec.GetSource() != "claim" ||
		rec.GetTenant() != "acme" || rec.GetKind() != revocationv1.Kind_KIND_API_KEY || rec.GetReason() == "" {
		t.Errorf("it is kept as %v", rec)
	}
	ttl, err := strconv.Atoi(msg.Header.Get("Nats-TTL"))
	if err != nil || time.Duration(ttl)*time.Second < time.Hour+30*time.Second {
		t.Errorf("the hub keeps it for %d s, %v: a clock that is a little behind would grant it again", ttl, err)
	}
	r.close()
	r = decide(t, cfg)
	r.expect(t, claimOf("used"), revocation.ClaimRevoked)
	r.expect(t, c, revocation.ClaimGranted)
}

func TestClaimOfARevokedToken(t *testing.T) {
	t.Parallel()
	r := decide(t, embedded(t))
	now := time.Now()
	mine := claimOf("with-my-id")
	same := revoked("with-my-id", now)
	same.Events = []revocation.Event{{ID: mine.ID, Time: same.Time, State: revocation.Revoked}}
	count(t, messaging.NewWriter(r.hub, r.log).Put(t.Context(), revoked("revoked", now), same))
	r.expect(t, claimOf("revoked"), revocation.ClaimRevoked) // whether or not its log has heard
	r.expect(t, mine, revocation.ClaimRevoked)
	r.settle(t)
	r.expect(t, claimOf("revoked"), revocation.ClaimRevoked)
}

// An approval that is dated ahead of the clock does not outlive the claim.
func TestClaimOfWhatIsApprovedInTheFuture(t *testing.T) {
	t.Parallel()
	r := decide(t, embedded(t))
	count(t, messaging.NewWriter(r.hub, r.log).Put(t.Context(), approved("jti", time.Now().Add(time.Hour))))
	won := contend(t, []string{"jti"}, 20, r)
	if len(won["jti"]) != 1 {
		t.Errorf("it is granted %d times", len(won["jti"]))
	}
	r.settle(t)
	if r.held()["jti"] != revocation.Revoked {
		t.Errorf("it is %s", r.held()["jti"])
	}
}

func TestClaimOfAnExpiredToken(t *testing.T) {
	t.Parallel()
	now := &clock{}
	cfg := embedded(t)
	cfg.Now = now.Now
	r := decide(t, cfg)
	before := r.state(t, messaging.LogStream).LastSeq
	late := claimOf("late")
	now.advance(time.Hour)
	r.expect(t, late, revocation.ClaimExpired) // though the grace has not passed
	if last := r.state(t, messaging.LogStream).LastSeq; last != before {
		t.Errorf("it was written at %d", last)
	}
}

func TestWhatIsNoClaim(t *testing.T) {
	t.Parallel()
	r := decide(t, embedded(t))
	c := claimOf("jti")
	c.ID = "short"
	r.refuses(t, c, revocation.ErrClaim)
	if n := r.metric(t, "claims_total", "outcome", "invalid"); n != 1 {
		t.Errorf("%v are counted", n)
	}
}

func TestClaimsAreCounted(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	r := decide(t, external(s))
	contend(t, tokens("jti", 3), 5, r)
	old := claimOf("old")
	old.Expiry = 1
	r.expect(t, old, revocation.ClaimExpired)
	failed := r.metric(t, "claims_total", "outcome", "failed") // a busy machine's
	shutdown(s)
	eventually(t, "the hub is missed", func() bool { return !r.hub.Connected() })
	if took := r.refusesWithin(t, claimOf("jti"), messaging.ErrClaimsNotReady); took > time.Second { // another replica can be asked
		t.Errorf("it took %s", took)
	}
	for outcome, want := range map[string]float64{"granted": 3, "revoked": 12, "expired": 1, "failed": failed + 3} {
		if n := r.metric(t, "claims_total", "outcome", outcome); n != want {
			t.Errorf("%v are %s, want %v", n, outcome, want)
		}
	}
	if strings.Contains(r.book.text(), "jti") {
		t.Errorf("a token is logged:\n%s", r.book.text())
	}
}

// Many tokens are claimed in one batch, of which another replica has used some. It
// delays and refuses only these, whether or not this replica has heard of it.
func TestABatchOfClaimsWithSomeInConflict(t *testing.T) {
	t.Parallel()
	for name, deaf := range map[string]int{"it has heard": 0, "it has not": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := standalone(t, t.TempDir(), -1)
			r, other := prepare(t, external(s)), decide(t, external(s))
			mine := claiming{r, messaging.NewClaims(r.follower)}
			r.run(t, r.follower.Run)
			r.awaitReady(t)
			if deaf > 0 {
				r.stop()
			}
			r.run(t, mine.claims.Run)
			all := tokens("jti", 400)
			taken := contend(t, []string{all[7], all[200], all[201], all[399]}, 1, other)
			won := contend(t, all, 2, mine)
			for _, jti := range all {
				if len(won[jti])+len(taken[jti]) != 1 {
					t.Errorf("%s is granted %d times here, %d there", jti, len(won[jti]), len(taken[jti]))
				}
			}
		})
	}
}

// Claims that nobody decides any more end with an error at once.
func TestClaimsEndWithTheReplica(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	r := decide(t, external(s))
	restore := r.removeLog(t)
	stuck, err := r.conn.SubscribeSync("revoked.>") // hears the write, and never answers
	fatal(t, err)
	ended := make(chan error, 1)
	go func() {
		_, err := r.claims.Claim(t.Context(), claimOf("jti"))
		ended <- err
	}()
	_, err = stuck.NextMsg(patience)
	fatal(t, err)
	began := time.Now()
	go r.stop()
	if err := <-ended; err == nil || time.Since(began) > 4*time.Second { // alone, it would take longer
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	restore()
	if took := r.refusesWithin(t, claimOf("jti"), messaging.ErrClaimsNotReady); took > time.Second {
		t.Errorf("after the end it took %s", took)
	}
}
