package enforcer_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"revocation-adapter/enforcer"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// claims is what adapters agree on: who used up which jti.
type claims struct {
	revocationv1.UnimplementedClaimServiceServer
	mu      sync.Mutex
	winners map[string]string
	asked   []*revocationv1.ClaimRequest
	answer  func(n int, r *revocationv1.ClaimRequest) error // of the nth call; nil: as it is
	lose    bool                                            // the answer to what was granted
}

// Claim implements the service.
func (c *claims) Claim(ctx context.Context, r *revocationv1.ClaimRequest) (*revocationv1.ClaimResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, r)
	if c.answer != nil {
		if err := c.answer(len(c.asked), r); err != nil {
			return nil, err
		}
	}
	if r.GetExpiryMillis() <= epoch.UnixMilli() {
		return &revocationv1.ClaimResponse{Outcome: revocationv1.ClaimResponse_OUTCOME_EXPIRED}, nil
	}
	winner, used := c.winners[r.GetJti()]
	if used && winner != r.GetClaimId() {
		return &revocationv1.ClaimResponse{Outcome: revocationv1.ClaimResponse_OUTCOME_REVOKED}, nil
	}
	c.winners[r.GetJti()] = r.GetClaimId()
	if c.lose && !used {
		return nil, status.Error(codes.Unavailable, "the answer is lost")
	}
	return &revocationv1.ClaimResponse{Outcome: revocationv1.ClaimResponse_OUTCOME_GRANTED}, ctx.Err()
}

func (c *claims) seen() []*revocationv1.ClaimRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

func (c *claims) server() *grpc.Server {
	s := grpc.NewServer()
	revocationv1.RegisterClaimServiceServer(s, c)
	return s
}

// claiming is an Enforcer that runs, with n adapters that serve claims.
func claiming(t *testing.T, n int) (*enforcer.Enforcer, *claims, *hub) {
	t.Helper()
	h, c := newHub(), &claims{winners: map[string]string{}}
	h.completeAt(epoch)
	var adapters []*adapter
	for range n {
		adapters = append(adapters, serveWith(t, h, c.server(), "127.0.0.1:0"))
	}
	e := start(t, configOf(clockAt(epoch), adapters...))
	reaches(t, e, h.revoke("revoked"))
	eventually(t, "the set is complete", func() bool { return !e.Freshness().Stale })
	return e, c, h
}

func wantClaim(t *testing.T, e *enforcer.Enforcer, token enforcer.Token, want enforcer.Verdict) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if d, err := e.Claim(ctx, token); err != nil || d.Verdict != want {
		t.Errorf("%+v, %v, want verdict %d", d, err, want)
	}
}

func TestClaim(t *testing.T) {
	e, c, _ := claiming(t, 1)
	token := jwtOf("once")
	token.Expiry = epoch.UnixMilli() + 1
	wantClaim(t, e, token, enforcer.Pass)
	wantClaim(t, e, token, enforcer.Revoked)
	asked := c.seen()
	for _, r := range asked {
		if len(r.GetClaimId()) != 32 || r.GetJti() != "once" || r.GetExpiryMillis() != token.Expiry {
			t.Errorf("asked %v", r)
		}
	}
	if len(asked) != 2 || asked[0].GetClaimId() == asked[1].GetClaimId() {
		t.Errorf("asked %v, want two claims", asked)
	}
	token.Expiry = epoch.UnixMilli() // within grace: only the adapter says that it has expired
	wantClaim(t, e, token, enforcer.Expired)
}

// What Check refuses is not asked for, nor used up.
func TestClaimOfWhatIsRefused(t *testing.T) {
	e, c, h := claiming(t, 1)
	wantClaim(t, e, jwtOf("revoked"), enforcer.Revoked)
	expired := jwtOf("expired")
	expired.Expiry = 1
	wantClaim(t, e, expired, enforcer.Expired)
	h.rule("azp", "client", epoch.Add(time.Hour))
	reaches(t, e, h.version)
	ruled := jwtOf("ruled")
	ruled.Claims = map[string][]string{"azp": {"client"}}
	wantClaim(t, e, ruled, enforcer.Revoked)
	for _, token := range []enforcer.Token{jwtOf(""), opaqueToken("x")} {
		if d, err := e.Claim(t.Context(), token); !errors.Is(err, enforcer.ErrNoID) || d.Verdict == enforcer.Pass {
			t.Errorf("%+v, %v", d, err)
		}
	}
	if asked := c.seen(); len(asked) > 0 {
		t.Errorf("asked %v", asked)
	}
}

// One answer that is lost is asked for again, with the same claim.
func TestClaimWhoseAnswerIsLost(t *testing.T) {
	for _, adapters := range []int{1, 3} {
		e, c, _ := claiming(t, adapters)
		c.lose = true
		wantClaim(t, e, jwtOf("once"), enforcer.Pass)
		asked := c.seen()
		if len(asked) != 2 || asked[0].GetClaimId() != asked[1].GetClaimId() {
			t.Errorf("asked %v, want one claim twice", asked)
		}
	}
}

// What the adapter that is followed does not know, another one may.
func TestClaimAtAnotherAdapter(t *testing.T) {
	h := newHub()
	h.completeAt(epoch)
	without, with := &claims{winners: map[string]string{}}, &claims{winners: map[string]string{}}
	without.answer = func(int, *revocationv1.ClaimRequest) error { return status.Error(codes.Unavailable, "no hub") }
	followed, other := serveWith(t, h, without.server(), "127.0.0.1:0"), serveWith(t, h, with.server(), "127.0.0.1:0")
	other.set(func(a *adapter) { a.refuse = status.Error(codes.Unavailable, "not ready") })
	for _, adapters := range [][]*adapter{{followed, other}, {other, followed}} {
		e := start(t, configOf(clockAt(epoch), adapters...))
		reaches(t, e, h.revoke("revoked"))
		eventually(t, "the set is complete", func() bool { return !e.Freshness().Stale })
		token := jwtOf(fmt.Sprint("once ", len(with.seen())))
		wantClaim(t, e, token, enforcer.Pass)
		wantClaim(t, e, token, enforcer.Revoked)
	}
	if len(with.seen()) != 4 || len(without.seen()) == 0 {
		t.Errorf("asked %d times, and %d times in vain", len(with.seen()), len(without.seen()))
	}
}

// An adapter that does not answer is not waited for.
func TestClaimThatHangs(t *testing.T) {
	e, c, _ := claiming(t, 1)
	free := make(chan struct{})
	c.answer = func(n int, _ *revocationv1.ClaimRequest) error {
		if n == 1 {
			c.mu.Unlock() // others may ask
			<-free
			c.mu.Lock()
			return status.Error(codes.Unavailable, "too late")
		}
		return nil
	}
	defer close(free)
	wantClaim(t, e, jwtOf("once"), enforcer.Pass)
}

func TestClaimThatNobodyAnswers(t *testing.T) {
	e, c, _ := claiming(t, 2)
	c.answer = func(int, *revocationv1.ClaimRequest) error { return status.Error(codes.Unavailable, "no hub") }
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	go func() { // who gives up
		defer cancel()
		for ctx.Err() == nil && len(c.seen()) < 4 {
			<-time.After(time.Millisecond)
		}
	}()
	defer cancel()
	if d, err := e.Claim(ctx, jwtOf("once")); !errors.Is(err, enforcer.ErrUnclaimed) || d.Verdict == enforcer.Pass {
		t.Errorf("%+v, %v", d, err)
	}
	if asked := c.seen(); len(asked) < 4 {
		t.Errorf("asked %d times", len(asked))
	}
}

func TestClaimThatIsNoClaim(t *testing.T) {
	e, c, _ := claiming(t, 2)
	c.answer = func(int, *revocationv1.ClaimRequest) error {
		return status.Error(codes.InvalidArgument, "the jti is reserved")
	}
	if d, err := e.Claim(t.Context(), jwtOf("once")); err == nil || errors.Is(err, enforcer.ErrUnclaimed) || d.Verdict == enforcer.Pass {
		t.Errorf("%+v, %v", d, err)
	}
	if asked := c.seen(); len(asked) != 1 {
		t.Errorf("asked %d times", len(asked))
	}
}

// Without Run there is nobody to ask.
func TestClaimWithoutRun(t *testing.T) {
	e := holding(t, revocation.DomainToken, "x")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if d, err := e.Claim(ctx, jwtOf("once")); !errors.Is(err, enforcer.ErrUnclaimed) || d.Verdict == enforcer.Pass {
		t.Errorf("%+v, %v", d, err)
	}
}

// Of many claims at many gateways, one is granted, whatever breaks meanwhile.
func TestClaimsWhileStreamsBreak(t *testing.T) {
	h, c := newHub(), &claims{winners: map[string]string{}}
	h.completeAt(epoch)
	a, b := serveWith(t, h, c.server(), "127.0.0.1:0"), serveWith(t, h, c.server(), "127.0.0.1:0")
	h.revoke("x")
	gateways := make([]*enforcer.Enforcer, 4)
	for i := range gateways {
		gateways[i] = start(t, configOf(clockAt(epoch), a, b))
		reaches(t, gateways[i], h.version)
		eventually(t, "the set is complete", func() bool { return !gateways[i].Freshness().Stale })
	}
	for round := range 20 {
		id := jti(round)
		granted := make(chan enforcer.Decision, 16)
		var claimers sync.WaitGroup
		for i := range cap(granted) {
			claimers.Go(func() {
				d, err := gateways[i%4].Claim(t.Context(), jwtOf(id))
				if err != nil {
					t.Error(err)
				}
				granted <- d
			})
		}
		a.set(func(*adapter) {})
		b.set(func(*adapter) {})
		claimers.Wait()
		won := 0
		for range cap(granted) {
			if d := <-granted; d.Verdict == enforcer.Pass {
				won++
			}
		}
		if won != 1 {
			t.Errorf("round %d: %d were granted", round, won)
		}
	}
}
