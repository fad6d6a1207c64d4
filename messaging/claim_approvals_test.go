package messaging_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// Tokens are approved again and again while many claim them at three replicas: an
// approval is used once at most, and the last one by the next claim.
func TestClaimsWhileTokensAreApproved(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	at := []claiming{decide(t, external(s)), decide(t, external(s)), decide(t, external(s))}
	all := tokens("jti", 4)
	granted, approvals := make([]atomic.Int64, len(all)), make([]int64, len(all))
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for i, jti := range all {
		for contender := range 12 {
			group.Go(func() {
				for ctx.Err() == nil {
					ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
					outcome, err := claim(ctx, claimOf(jti), at[contender%3])
					cancel()
					if err != nil {
						t.Error(err)
					}
					if outcome == revocation.ClaimGranted {
						granted[i].Add(1)
					}
				}
			})
		}
	}
	approver := messaging.NewWriter(at[0].hub, at[0].log)
	approve := func() {
		for i, jti := range all {
			approvals[i] += int64(count(t, approver.Put(t.Context(), approved(jti, time.Now()))))
		}
	}
	for end := time.After(2 * time.Second); ; {
		approve()
		select {
		case <-time.After(10 * time.Millisecond):
			continue
		case <-end:
		}
		break
	}
	cancel()
	group.Wait()
	for i := range all {
		t.Logf("%d approvals, %d granted", approvals[i], granted[i].Load())
		if n := granted[i].Load(); n > 1+approvals[i] || n < approvals[i]/2 {
			t.Errorf("%d are granted by %d approvals", n, approvals[i])
		}
	}
	approve()
	won := contend(t, all, 20, at...)
	for _, jti := range all {
		if len(won[jti]) != 1 {
			t.Errorf("at last %s is granted %d times", jti, len(won[jti]))
		}
	}
}
