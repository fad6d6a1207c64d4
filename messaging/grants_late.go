package messaging

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"revocation-adapter/revocation"
)

// revokeLate revokes the access tokens of a batch that are registered only now that
// their refresh token is revoked: the word of them was on its way. Whether access
// tokens were to fall with it is not kept, so they do. What was registered before is
// left as it is.
func (g *Grants) revokeLate(ctx context.Context, pages map[string]*grantPage, batch []*granting) error {
	var all []*late
	for _, one := range batch {
		access, refresh := pages[accessSubject(one.Access.Domain, one.Access.Digest)], pages[refreshSubject(one.Refresh.Digest)]
		if refresh != nil && refresh.last > 0 && access.last == 0 { // one that is not known has no revocation
			all = append(all, &late{grant: one.Grant})
		}
	}
	each(all, func(l *late) { l.falls, l.err = g.fallenWith(ctx, l.grant) })
	var fall []revocation.Revocation
	for _, l := range all {
		if l.err != nil {
			return l.err
		}
		if l.falls.Events != nil {
			fall = append(fall, l.falls)
		}
	}
	if len(fall) == 0 {
		return nil
	}
	for _, o := range g.writer.Put(ctx, fall...) {
		if o.Err != nil {
			return fmt.Errorf("revoke an access token whose refresh token is revoked: %w", o.Err)
		}
	}
	return nil
}

// late is a grant whose refresh token was known before.
type late struct {
	grant Grant
	falls revocation.Revocation // without events: nothing does
	err   error
}

// fallenWith is what becomes of an access token by the event that revoked its refresh
// token: without events if nothing does.
func (g *Grants) fallenWith(ctx context.Context, grant Grant) (r revocation.Revocation, err error) {
	record, err := g.hub.Record(ctx, grant.Refresh.Domain, grant.Refresh.Digest)
	switch {
	case errors.Is(err, ErrNoRecord):
		return r, nil
	case err != nil:
		return r, fmt.Errorf("read a refresh token: %w", err)
	}
	i := slices.IndexFunc(record.Events, func(e revocation.Event) bool { return e.State == revocation.Revoked })
	if record.State != revocation.Revoked || i < 0 || record.Expired(g.hub.cfg.Now(), g.hub.cfg.Grace) {
		return r, nil
	}
	access, life := g.join(grant.Access, GrantToken{}), revocation.Dated
	if access.Unknown {
		life = revocation.Unknown
	}
	return revocation.Revocation{
		Domain: access.Domain, Key: access.Key, Digest: access.Digest, Kind: access.Kind, State: revocation.Revoked,
		Expiry: access.Expiry, Lifetime: life, Time: record.Time, Tenant: record.Tenant,
		Source: record.Source, Reason: record.Reason, Events: []revocation.Event{record.Events[i]},
	}, nil
}
