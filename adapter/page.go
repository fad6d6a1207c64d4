package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"revocation-adapter/adapter/clients"
	"revocation-adapter/adapter/control"
	"revocation-adapter/adapter/page"
	"revocation-adapter/adapter/receipts"
	"revocation-adapter/config"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// newPage is the operator's page.
func (r *replica) newPage() (*page.Page, error) {
	return page.New(page.Config{
		Revocations: r.revocations, Log: r.log, Now: now,
		Status: func() any { return r.status() }, Sources: func() any { return r.sources.List() },
		DeadLetters: func(ctx context.Context) (int, error) {
			core, err := r.openCore()
			if err != nil {
				return 0, err
			}
			return messaging.CountDeadLetters(ctx, core.Hub.Conn())
		},
		Gateways: func(ctx context.Context) ([]receipts.Gateway, error) {
			core, err := r.openCore()
			if err != nil {
				return nil, err
			}
			return core.Receipts.Gateways(ctx)
		},
		Await: func(ctx context.Context, q receipts.Query, wait time.Duration) (receipts.Receipt, error) {
			core, err := r.openCore()
			if err != nil {
				return receipts.Receipt{}, err
			}
			return core.Receipts.Await(ctx, q, wait)
		},
		Stored: func(ctx context.Context, c revocation.Change) (time.Time, error) {
			core, err := r.openCore()
			if err != nil {
				return time.Time{}, err
			}
			record, err := core.Hub.Record(ctx, c.Domain, c.Digest())
			return record.Stored, err
		},
		Authenticate: r.signIn,
		Operator: func(id string) bool {
			c := r.clients.Find(id)
			return c != nil && c.Has(config.RoleOperator)
		},
		Secret: func(id string) string {
			if c := r.clients.Find(id); c != nil {
				return c.SecretHash
			}
			return ""
		},
	})
}

// openCore is core, or why there is none.
func (r *replica) openCore() (*control.Core, error) {
	if core := r.core(); core != nil {
		return core, nil
	}
	return nil, receipts.ErrNotReady
}

// signIn returns the roles of who shows its secret, and keeps that it was tried.
func (r *replica) signIn(ctx context.Context, from, id, secret string) ([]string, error) {
	c, err := r.clients.Authenticate(from, id, secret)
	if too := (clients.TooManyError{}); errors.As(err, &too) { // the secret was not looked at, and there may be many
		return nil, fmt.Errorf("%w: %w", page.ErrCannotTell, err)
	}
	r.auditSignIn(ctx, r.signInEntry(from, id, c))
	if err != nil {
		return nil, err
	}
	return c.Roles, nil
}

// signInEntry is the entry of somebody who has signed in as c, or has not: c is nil.
func (r *replica) signInEntry(from, id string, c *clients.Client) messaging.AuditEntry {
	e := messaging.AuditEntry{Time: now().UTC(), Actor: "-", Action: "sign_in", Outcome: "refused", From: from, Replica: r.name}
	if r.clients.Find(id) != nil { // anything else may be a secret in the wrong place
		e.Actor = id
	}
	if c != nil && c.Has(config.RoleOperator) {
		e.Outcome = "signed_in"
	}
	return e
}

func (r *replica) auditSignIn(ctx context.Context, e messaging.AuditEntry) {
	core, err := r.openCore()
	if err == nil {
		err = core.Audit.Add(ctx, e)
	}
	if err != nil {
		r.log.WithError(err).WithField("outcome", e.Outcome).Error("A sign-in is not in the audit")
	}
}
