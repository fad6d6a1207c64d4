package control

import (
	"errors"

	"revocation-adapter/adapter/issuers"
	"revocation-adapter/adapter/tokens"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// approveToken approves again what is revoked: a token, with what was issued
// together with it, or a rule.
func (c *call) approveToken() error {
	reason, err := reasonOf(c.form.Get("reason"))
	if err != nil {
		return err
	}
	c.entry.Reason = reason
	if c.form.Has("claim") || c.form.Has("value") {
		return c.liftRule(revocation.Rule{Claim: c.form.Get("claim"), Value: c.form.Get("value")}, reason)
	}
	n, err := c.named()
	if err != nil {
		return err
	}
	cascade, err := c.cascades()
	if err != nil {
		return err
	}
	all, family, err := c.candidates(n)
	if err != nil {
		return err
	}
	if len(all) > 0 {
		c.entry.Target = all[0].Name()
	}
	if cascade {
		all = append(all, family...)
	}
	return c.approveAll(all, reason)
}

// candidates are the keys that a token may be revoked under, and those of what was
// issued with it. Who may approve may name any token, genuine or not, or its jti.
func (c *call) candidates(n tokens.Named) (all, family []messaging.GrantToken, err error) {
	t, err := c.reader().Read(c.r.Context(), n)
	switch {
	case errors.Is(err, tokens.ErrInvalid), errors.Is(err, tokens.ErrUnsupported):
		return nil, nil, nil
	case err != nil && !errors.Is(err, issuers.ErrUnknownIssuer) && !errors.Is(err, tokens.ErrUndecided):
		return nil, nil, readFault(err)
	}
	all = append(all, t.GrantToken)
	if t.Access != (messaging.GrantToken{}) {
		all = append(all, t.Access)
	}
	if t.Proof == tokens.Unproven && t.Domain == revocation.DomainOpaque {
		all = append(all, messaging.RefreshToken(n.Raw, 0))
		if isName(n.Raw) { // of a JWT that fell with its refresh token
			all = append(all, messaging.GrantToken{Domain: revocation.DomainToken, Digest: t.Digest})
		}
		if revocation.CheckKey(n.Raw) == nil {
			all = append(all, tokens.JTI(n.Raw))
		}
	}
	return all, t.Family, nil
}

// approveAll approves those that are revoked and have not expired. Nothing is
// stored of the others.
func (c *call) approveAll(all []messaging.GrantToken, reason string) error {
	e, found := nothing(notSo), []messaging.Record{}
	for _, t := range all {
		record, err := c.core.Hub.Record(c.r.Context(), t.Domain, t.Digest)
		switch {
		case errors.Is(err, messaging.ErrNoRecord):
			continue
		case err != nil:
			return readFault(err)
		case record.Expired(c.cfg.Now(), c.cfg.Grace):
			e.reason = expired
			continue
		case record.State == revocation.Revoked:
			found = append(found, record)
		}
	}
	if len(found) == 0 {
		return c.tell(e)
	}
	return c.approveRecords(found, reason)
}

// approveRecords stores that records are approved. They keep what they say of
// their expiry, kind and tenant.
func (c *call) approveRecords(found []messaging.Record, reason string) error {
	e := effect{state: revocation.Approved, reason: already}
	says := c.says(revocation.Approved, reason)
	c.received(messaging.GrantToken{Domain: found[0].Domain, Kind: found[0].Kind})
	c.entry.Target = found[0].Name() // of all that the caller may have meant
	records := make([]revocation.Revocation, 0, len(found))
	for _, old := range found {
		r := c.dated(messaging.Event{
			ID: says.event, Domain: old.Domain, Key: old.Key, Digest: old.Digest, Kind: old.Kind,
			Expiry: old.Expiry, Lifetime: old.Lifetime, Tenant: old.Tenant,
		}, says)
		r.Expiry, r.Lifetime = old.Expiry, old.Lifetime
		records = append(records, r)
	}
	outcomes := c.core.Decisions.Put(c.lasting.Context(), records...)
	if err := firstError(outcomes); err != nil {
		return err
	}
	for i, o := range outcomes {
		e.note(records[i], o)
		if o.Changed {
			r := records[i]
			e.changed = append(e.changed, messaging.GrantToken{Domain: r.Domain, Key: r.Key, Digest: r.Digest})
			e.reason = ""
		}
	}
	return c.tell(e)
}

// liftRule approves what a rule has revoked.
func (c *call) liftRule(rule revocation.Rule, reason string) error {
	if c.form.Has("token") {
		return invalid("claim and value stand in place of token: give one of them")
	}
	if err := rule.Check(); err != nil {
		return invalid("the rule: " + err.Error())
	}
	c.entry.Target = rule.Key()
	all := []messaging.GrantToken{{Domain: revocation.DomainRule, Key: rule.Key(), Digest: rule.Digest()}}
	return c.approveAll(all, reason)
}
