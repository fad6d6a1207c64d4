package xds_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
	"revocation-adapter/xds"
)

// deciding serves claims, which decide answers after they were checked.
func deciding(t *testing.T, decide xds.ClaimFunc, more ...func(*xds.Config)) (*world, revocationv1.ClaimServiceClient) {
	t.Helper()
	w := start(t, append(more, func(cfg *xds.Config) { cfg.Claims = decide })...)
	return w, revocationv1.NewClaimServiceClient(w.dial())
}

func granting(_ context.Context, c revocation.TokenClaim) (revocation.ClaimOutcome, error) {
	return revocation.ClaimGranted, c.Check()
}

func aClaim() *revocationv1.ClaimRequest {
	return &revocationv1.ClaimRequest{ClaimId: "0123456789abcdef", Jti: "the-jti", ExpiryMillis: later.UnixMilli(), Kind: revocationv1.Kind_KIND_API_KEY, Tenant: "acme"}
}

func TestClaimIsHandedOn(t *testing.T) {
	t.Parallel()
	for outcome, want := range map[revocation.ClaimOutcome]revocationv1.ClaimResponse_Outcome{
		revocation.ClaimGranted: revocationv1.ClaimResponse_OUTCOME_GRANTED,
		revocation.ClaimRevoked: revocationv1.ClaimResponse_OUTCOME_REVOKED,
		revocation.ClaimExpired: revocationv1.ClaimResponse_OUTCOME_EXPIRED,
		0:                       revocationv1.ClaimResponse_OUTCOME_UNSPECIFIED,
		9:                       revocationv1.ClaimResponse_OUTCOME_UNSPECIFIED,
	} {
		var got revocation.TokenClaim
		_, client := deciding(t, func(_ context.Context, c revocation.TokenClaim) (revocation.ClaimOutcome, error) {
			got = c
			return outcome, nil
		})
		resp, err := client.Claim(t.Context(), aClaim())
		if err != nil || resp.GetOutcome() != want {
			t.Errorf("%s: %v, %v", outcome, resp, err)
		}
		if expected := (revocation.TokenClaim{ID: "0123456789abcdef", Key: "the-jti", Kind: revocation.KindAPIKey, Expiry: later.UnixMilli(), Tenant: "acme"}); got != expected {
			t.Errorf("it got %+v", got)
		}
	}
}

// What can never be granted is told so, without a word of the token; what is not
// known is to be asked again.
func TestClaimErrors(t *testing.T) {
	t.Parallel()
	invalid := func(change func(*revocationv1.ClaimRequest)) *revocationv1.ClaimRequest {
		req := aClaim()
		change(req)
		return req
	}
	away := func(context.Context, revocation.TokenClaim) (revocation.ClaimOutcome, error) {
		return 0, errors.New("the hub is away")
	}
	slow := func(ctx context.Context, _ revocation.TokenClaim) (revocation.ClaimOutcome, error) {
		<-ctx.Done()
		return 0, fmt.Errorf("claim: %w", ctx.Err())
	}
	for name, test := range map[string]struct {
		decide xds.ClaimFunc
		req    *revocationv1.ClaimRequest
		want   codes.Code
	}{
		"a short id":        {granting, invalid(func(r *revocationv1.ClaimRequest) { r.ClaimId = "short" }), codes.InvalidArgument},
		"no expiry":         {granting, invalid(func(r *revocationv1.ClaimRequest) { r.ExpiryMillis = 0 }), codes.InvalidArgument},
		"a reserved jti":    {granting, invalid(func(r *revocationv1.ClaimRequest) { r.Jti = "sha256:the-jti" }), codes.InvalidArgument},
		"a kind to come":    {granting, invalid(func(r *revocationv1.ClaimRequest) { r.Kind = 3 }), codes.InvalidArgument},
		"a negative kind":   {granting, invalid(func(r *revocationv1.ClaimRequest) { r.Kind = -255 }), codes.InvalidArgument},
		"a kind of no byte": {granting, invalid(func(r *revocationv1.ClaimRequest) { r.Kind = 257 }), codes.InvalidArgument},
		"nothing":           {granting, &revocationv1.ClaimRequest{}, codes.InvalidArgument},
		"no hub":            {away, aClaim(), codes.Unavailable},
		"nobody decides":    {nil, aClaim(), codes.Unavailable},
		"no answer in time": {slow, aClaim(), codes.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, client := deciding(t, test.decide)
			ctx := t.Context()
			if test.want == codes.DeadlineExceeded {
				short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
				defer cancel()
				ctx = short
			}
			resp, err := client.Claim(ctx, test.req)
			if status.Code(err) != test.want || resp.GetOutcome() != revocationv1.ClaimResponse_OUTCOME_UNSPECIFIED {
				t.Errorf("%v, %v", resp, err)
			}
			if strings.Contains(err.Error(), "the-jti") {
				t.Errorf("it quotes the token: %v", err)
			}
		})
	}
}

// An adapter that is not ready decides nothing, whatever its hub says.
func TestClaimWhileNotReady(t *testing.T) {
	t.Parallel()
	decide := func(context.Context, revocation.TokenClaim) (revocation.ClaimOutcome, error) {
		t.Error("it is decided")
		return revocation.ClaimGranted, nil
	}
	_, client := deciding(t, decide, func(cfg *xds.Config) { cfg.NotReady = func() string { return "it is read" } })
	if _, err := client.Claim(t.Context(), aClaim()); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
}

// Streams take as many places as there are, and claims go on; claims take none.
func TestClaimsTakeNoStreamsPlace(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}, 10), make(chan struct{})
	decide := func(context.Context, revocation.TokenClaim) (revocation.ClaimOutcome, error) {
		entered <- struct{}{}
		<-leave
		return revocation.ClaimGranted, nil
	}
	w, client := deciding(t, decide, func(cfg *xds.Config) { cfg.MaxStreams = 1 })
	var claims sync.WaitGroup
	claim := func() {
		if resp, err := client.Claim(t.Context(), aClaim()); err != nil || resp.GetOutcome() != revocationv1.ClaimResponse_OUTCOME_GRANTED {
			t.Errorf("%v, %v", resp, err)
		}
	}
	for range 5 {
		claims.Go(claim)
		<-entered
	}
	c := w.subscribe(t, streamTokens, "")
	c.accept()
	claims.Go(claim)
	<-entered
	close(leave)
	claims.Wait()
}
