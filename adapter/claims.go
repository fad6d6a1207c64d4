package main

import (
	"context"
	"errors"

	"revocation-adapter/revocation"
)

// claim decides a claim of a one-time token, once the hub is open.
func (r *replica) claim(ctx context.Context, c revocation.TokenClaim) (revocation.ClaimOutcome, error) {
	parts := r.hub.Load()
	if parts == nil {
		return 0, errors.New("the hub is not open yet")
	}
	return parts.claims.Claim(ctx, c)
}
