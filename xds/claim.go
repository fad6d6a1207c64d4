package xds

import (
	"context"
	"errors"
	"math"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// ClaimFunc decides a claim of a one-time token. After an error nobody knows what
// became of the claim, unless it is revocation.ErrClaim.
type ClaimFunc func(context.Context, revocation.TokenClaim) (revocation.ClaimOutcome, error)

// claimService uses up one-time tokens. Its calls are short, and many: they are not
// counted among the streams.
type claimService struct {
	revocationv1.UnimplementedClaimServiceServer
	server *Server
}

// Claim answers a gateway that asks whether a one-time token may be used.
func (s claimService) Claim(ctx context.Context, req *revocationv1.ClaimRequest) (*revocationv1.ClaimResponse, error) {
	if err := s.server.ready(); err != nil {
		return nil, err
	}
	if s.server.cfg.Claims == nil {
		return nil, status.Error(codes.Unavailable, "this adapter decides no claims: try another")
	}
	outcome, err := s.server.cfg.Claims(ctx, revocation.TokenClaim{
		ID: req.GetClaimId(), Key: req.GetJti(), Kind: kindOfClaim(req.GetKind()),
		Expiry: req.GetExpiryMillis(), Tenant: req.GetTenant(),
	})
	switch {
	case errors.Is(err, revocation.ErrClaim):
		return nil, status.Error(codes.InvalidArgument, err.Error()) // it quotes nothing of the claim
	case ctx.Err() != nil:
		return nil, status.FromContextError(ctx.Err()).Err()
	case err != nil:
		return nil, status.Errorf(codes.Unavailable, "not decided, ask again, any adapter, with the same claim_id: %v", err)
	}
	return &revocationv1.ClaimResponse{Outcome: outcomeToWire(outcome)}, nil
}

// kindOfClaim leaves it to the check of the claim to refuse what is no kind.
func kindOfClaim(k revocationv1.Kind) revocation.Kind {
	if k < 0 || k > math.MaxUint8 {
		return math.MaxUint8
	}
	return revocation.Kind(k)
}

// outcomeToWire is OUTCOME_UNSPECIFIED for what is no outcome: nothing passes for
// a mistake.
func outcomeToWire(o revocation.ClaimOutcome) revocationv1.ClaimResponse_Outcome {
	switch o {
	case revocation.ClaimGranted:
		return revocationv1.ClaimResponse_OUTCOME_GRANTED
	case revocation.ClaimRevoked:
		return revocationv1.ClaimResponse_OUTCOME_REVOKED
	case revocation.ClaimExpired:
		return revocationv1.ClaimResponse_OUTCOME_EXPIRED
	}
	return revocationv1.ClaimResponse_OUTCOME_UNSPECIFIED
}
