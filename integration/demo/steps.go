package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
)

func accessToken(ctx context.Context, p *path) error {
	token, err := p.token(nil)
	if err != nil {
		return err
	}
	return p.revokeAndApprove(ctx, token, bearer(token))
}

func apiKey(ctx context.Context, p *path) error {
	key, err := p.issuer.APIKey(p.jti())
	if err != nil {
		return err
	}
	return p.revokeAndApprove(ctx, key, call{"/", "ApiKey", key})
}

// revokeAndApprove takes a token through all that can become of it.
func (p *path) revokeAndApprove(ctx context.Context, token string, c call) error {
	if err := p.expect(ctx, "passes", c, http.StatusOK); err != nil {
		return err
	}
	if err := p.adapter.Command(ctx, "revoke", token); err != nil {
		return err
	}
	if err := p.become(ctx, "is rejected once it is revoked", c, http.StatusUnauthorized); err != nil {
		return err
	}
	if err := p.adapter.Command(ctx, "approve", token); err != nil {
		return err
	}
	return p.become(ctx, "passes once it is approved again", c, http.StatusOK)
}

// simultaneous is how many calls try to use a one-time token at once.
const simultaneous = 50

func oneTime(ctx context.Context, p *path) error {
	token, err := p.token(map[string]any{"scope": "OTT"})
	if err != nil {
		return err
	}
	pay := bearer(token)
	pay.at = "/pay"
	if err := p.expect(ctx, "elsewhere it passes, and is not used up", bearer(token), http.StatusOK); err != nil {
		return err
	}
	var all sync.WaitGroup
	var passed atomic.Int64
	for range simultaneous {
		all.Go(func() {
			if status, err := p.call(ctx, pay.at, pay.header, pay.value); err == nil && status == http.StatusOK {
				passed.Add(1)
			}
		})
	}
	all.Wait()
	if passed.Load() != 1 {
		return fmt.Errorf("of %d simultaneous calls %d passed", simultaneous, passed.Load())
	}
	fmt.Printf("  of %d simultaneous calls that use it one passes\n", simultaneous)
	if err := p.expect(ctx, "is rejected from then on", pay, http.StatusUnauthorized); err != nil {
		return err
	}
	return p.become(ctx, "elsewhere too", bearer(token), http.StatusUnauthorized)
}

func stopped(ctx context.Context, p *path) error { return p.outage(ctx, p.adapter.Stop) }

func killed(ctx context.Context, p *path) error { return p.outage(ctx, p.adapter.Kill) }

// outage takes the adapter away and brings it back.
func (p *path) outage(ctx context.Context, end func() error) error {
	old, valid, err := p.oldAndValid(ctx)
	if err != nil {
		return err
	}
	if err := end(); err != nil {
		return err
	}
	if err := p.expect(ctx, "without the adapter: what was revoked is rejected", old, http.StatusUnauthorized); err != nil {
		return err
	}
	if err := p.expect(ctx, "without the adapter: what is valid passes", valid, http.StatusOK); err != nil {
		return err
	}
	if err := p.adapter.Start(); err != nil {
		return err
	}
	if err := p.adapter.Ready(ctx); err != nil {
		return err
	}
	if err := p.adapter.Command(ctx, "revoke", valid.value[len("Bearer "):]); err != nil {
		return err
	}
	return p.become(ctx, "is rejected once it is revoked after the restart", valid, http.StatusUnauthorized)
}

// oldAndValid are a call whose token is revoked, and one whose token is not.
func (p *path) oldAndValid(ctx context.Context) (old, valid call, err error) {
	tokens := [2]string{}
	for i := range tokens {
		if tokens[i], err = p.token(nil); err != nil {
			return old, valid, err
		}
	}
	old, valid = bearer(tokens[0]), bearer(tokens[1])
	if err := p.adapter.Command(ctx, "revoke", tokens[0]); err != nil {
		return old, valid, err
	}
	return old, valid, p.become(ctx, "a token is revoked", old, http.StatusUnauthorized)
}

func alone(ctx context.Context, p *path) error {
	old, valid, err := p.oldAndValid(ctx)
	if err != nil {
		return err
	}
	if err := p.adapter.Kill(); err != nil {
		return err
	}
	if err := p.enforcer.Stop(); err != nil {
		return err
	}
	if err := p.enforcer.Start(); err != nil {
		return err
	}
	if err := p.enforcer.Ready(ctx); err != nil {
		return err
	}
	if err := p.expect(ctx, "what was revoked is rejected", old, http.StatusUnauthorized); err != nil {
		return err
	}
	return p.expect(ctx, "what is valid passes", valid, http.StatusOK)
}
