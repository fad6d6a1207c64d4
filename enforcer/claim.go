package enforcer

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
)

// The faults of Claim.
var (
	// ErrUnclaimed means that nobody could say whether a claim was granted.
	ErrUnclaimed = errors.New("no adapter answers the claim")
	// ErrNoID means that a token cannot be claimed, because it has no jti.
	ErrNoID = errors.New("the token has no jti, so it cannot be claimed")
)

// Claim uses up a one-time token, once for all gateways, before its call passes.
// What Check refuses is refused without a call. Else it asks the adapters one
// after another, the one that is followed first, with one claim id, until ctx
// ends: Pass, Revoked or Expired. With an error the verdict is never Pass:
// ErrUnclaimed, or that of an adapter that will not have the claim. It works
// while Run runs.
func (e *Enforcer) Claim(ctx context.Context, t Token) (Decision, error) {
	d := e.Check(t)
	if d.Verdict != Pass {
		return d, nil
	}
	d.Verdict = Revoked // until a claim is granted
	if t.ID == "" || t.Opaque != "" {
		return d, ErrNoID
	}
	request := &revocationv1.ClaimRequest{ClaimId: claimID(), Jti: t.ID, ExpiryMillis: t.Expiry}
	for {
		outcome, err := e.askAll(ctx, request)
		if err == nil {
			d.Verdict = verdictOf(outcome)
			return d, nil
		}
		if status.Code(err) == codes.InvalidArgument {
			return d, fmt.Errorf("claim a token: %w", err)
		}
		select {
		case <-ctx.Done():
			return d, fmt.Errorf("%w: %w", ErrUnclaimed, err)
		case <-time.After(e.pace.claimRetry):
		}
	}
}

// claimID names one claim: 128 random bits.
func claimID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	return hex.EncodeToString(id[:])
}

// askAll returns the first answer, or the error of the last adapter.
func (e *Enforcer) askAll(ctx context.Context, request *revocationv1.ClaimRequest) (outcome revocationv1.ClaimResponse_Outcome, err error) {
	for _, adapter := range e.links.order() {
		outcome, err = e.ask(ctx, adapter, request)
		if err == nil || ctx.Err() != nil || status.Code(err) == codes.InvalidArgument {
			break
		}
	}
	return outcome, err
}

var errOutcome = errors.New("the adapter answers the claim with neither yes nor no")

func (e *Enforcer) ask(ctx context.Context, adapter int, request *revocationv1.ClaimRequest) (revocationv1.ClaimResponse_Outcome, error) {
	conn, err := e.links.to(adapter)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, e.pace.claim)
	defer cancel()
	response, err := revocationv1.NewClaimServiceClient(conn).Claim(ctx, request)
	if err != nil {
		return 0, err
	}
	switch outcome := response.GetOutcome(); outcome {
	case revocationv1.ClaimResponse_OUTCOME_GRANTED, revocationv1.ClaimResponse_OUTCOME_REVOKED, revocationv1.ClaimResponse_OUTCOME_EXPIRED:
		return outcome, nil
	}
	return 0, errOutcome
}

func verdictOf(outcome revocationv1.ClaimResponse_Outcome) Verdict {
	switch outcome {
	case revocationv1.ClaimResponse_OUTCOME_GRANTED:
		return Pass
	case revocationv1.ClaimResponse_OUTCOME_EXPIRED:
		return Expired
	}
	return Revoked
}
