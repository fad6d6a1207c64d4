package messaging

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
)

// readIssued reads an event of a token that was issued: the envelope of
// DecodeEvent, in which revokedToken or accessToken is the access token. What is
// opaque becomes a digest here.
func readIssued(data []byte) (g Grant, err error) {
	p, err := payloadOf(data)
	if err != nil {
		return Grant{}, err
	}
	var access Token
	var own, refresh, refreshExpiry string
	if err := p.read(members{
		{&access.Token, namesOfIssued()},
		{&access.ID, names{"jti"}},
		{&access.Type, names{"tokenType"}},
		{&own, names{"type"}},
		{&access.Expiry, namesOfExpiry()},
		{&refresh, namesOfRefresh()},
		{&refreshExpiry, namesOfRefreshExpiry()},
		{&g.Client, namesOfClient()},
		{&g.Subject, namesOfUser()},
		{&g.Tenant, names{"tenantId", "organization"}},
	}); err != nil {
		return Grant{}, err
	}
	if access.Type == "" && !strings.EqualFold(own, typeTokenIssued) {
		access.Type = own
	}
	if g.Access, err = access.Granted(); err != nil {
		return Grant{}, err
	}
	if refresh != "" {
		expiry, _, err := normalExpiry(refreshExpiry)
		if err != nil {
			return Grant{}, malformed("the expiry of the refresh token is none")
		}
		g.Refresh = RefreshToken(refresh, expiry)
	}
	if err := g.check(); err != nil {
		return Grant{}, malformed("%v", err)
	}
	return g, nil
}

// typeTokenIssued is what an event may say it is, beside the type of its token.
const typeTokenIssued = "token_issued"

func namesOfIssued() names { return append(namesOfToken(), "access_token", "token") }
func namesOfRefresh() names {
	return names{"refreshToken", "refresh_token"}
}

func namesOfRefreshExpiry() names {
	return names{"refreshExpiryTime", "refresh_expiry_time", "refreshTokenExpiryTime"}
}

func namesOfUser() names { return names{"user", "subject", "sub", "userId", "user_id"} }

// acceptIssued reads what was issued, and logs it. An error means that it is not
// understood.
func (in *Intake) acceptIssued(t *taken) (err error) {
	if t.grant, err = readIssued(t.Data); err != nil {
		in.log.WithFields(logrus.Fields{"subject": t.Subject, "reason": err}).Error("Event goes to the dead letters")
		return err
	}
	t.kind = kindOfKey(t.grant.Access.Domain, t.grant.Access.Kind)
	in.log.WithField("kind", t.kind).Debug("A token that was issued is received")
	return nil
}

// takeIssued puts what messages say was issued into the registry, and answers
// each. What is refused there becomes a dead letter: it can be put again when there
// is room, and must not hold back what is revoked.
func (in *Intake) takeIssued(ctx context.Context, messages []*taken) {
	for batch := range slices.Chunk(messages, maxGranted) {
		grants := make([]*granting, 0, len(batch))
		for _, t := range batch {
			grants = append(grants, &granting{Grant: t.grant})
		}
		in.grants.put(ctx, grants)
		for i, one := range grants {
			in.settleIssued(ctx, batch[i], one)
		}
	}
}

func (in *Intake) settleIssued(ctx context.Context, t *taken, one *granting) {
	switch err := one.err; {
	case err == nil && one.changed:
		t.answer(Result{Fate: FateStored})
	case err == nil:
		t.answer(Result{Fate: FateDuplicate})
	case errors.Is(err, ErrGrantExpired):
		t.answer(Result{Fate: FateExpired})
	case errors.Is(err, ErrGrantsFull), errors.Is(err, ErrGrantsMany), permanent(err):
		in.log.WithError(err).Error("The grant of a token that was issued goes to the dead letters")
		_ = in.bury(ctx, t, err) // it is answered
	default:
		t.answer(Result{FateRetry, err})
	}
}
