package messaging

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// grantFormat is the format of what GRANTS holds, written and read.
const grantFormat = 1

func encodeAccessGrant(g Grant) ([]byte, error) {
	return proto.Marshal(&revocationv1.AccessGrant{
		Format: grantFormat, Access: tokenToWire(g.Access), Refresh: tokenToWire(g.Refresh),
		Client: g.Client, Subject: g.Subject, Tenant: g.Tenant,
	})
}

func encodeRefreshGrant(g RefreshGrant) ([]byte, error) {
	stored := &revocationv1.RefreshGrant{
		Format: grantFormat, Refresh: tokenToWire(g.Refresh), Client: g.Client, Subject: g.Subject, Tenant: g.Tenant,
	}
	for _, t := range g.Access {
		stored.Access = append(stored.Access, tokenToWire(t))
	}
	return proto.Marshal(stored)
}

// decodeAccessGrant reads a grant. Its errors quote none of it.
func decodeAccessGrant(data []byte) (Grant, error) {
	stored := &revocationv1.AccessGrant{}
	if err := proto.Unmarshal(data, stored); err != nil {
		return Grant{}, fmt.Errorf("%w: not a grant", ErrRecord)
	}
	if err := checkGrantFormat(stored.GetFormat()); err != nil {
		return Grant{}, err
	}
	g := Grant{Client: stored.GetClient(), Subject: stored.GetSubject(), Tenant: stored.GetTenant()}
	var err error
	if g.Access, err = tokenFromWire(stored.GetAccess()); err == nil {
		g.Refresh, err = tokenFromWire(stored.GetRefresh())
	}
	if err == nil {
		err = g.check()
	}
	if err != nil {
		return Grant{}, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	return g, nil
}

// decodeRefreshGrant reads what was issued with a refresh token. Its errors quote
// none of it.
func decodeRefreshGrant(data []byte) (RefreshGrant, error) {
	stored := &revocationv1.RefreshGrant{}
	if err := proto.Unmarshal(data, stored); err != nil {
		return RefreshGrant{}, fmt.Errorf("%w: not a grant", ErrRecord)
	}
	if err := checkGrantFormat(stored.GetFormat()); err != nil {
		return RefreshGrant{}, err
	}
	g := RefreshGrant{Client: stored.GetClient(), Subject: stored.GetSubject(), Tenant: stored.GetTenant()}
	var err error
	if g.Refresh, err = tokenFromWire(stored.GetRefresh()); err != nil {
		return RefreshGrant{}, err
	}
	for _, one := range stored.GetAccess() {
		t, err := tokenFromWire(one)
		if err == nil {
			err = Grant{Access: t, Refresh: g.Refresh}.check()
		}
		if err != nil {
			return RefreshGrant{}, fmt.Errorf("%w: %w", ErrRecord, err)
		}
		g.Access = append(g.Access, t)
	}
	return g, nil
}

func checkGrantFormat(format uint32) error {
	switch {
	case format == 0:
		return fmt.Errorf("%w: it has no format", ErrRecord)
	case format > grantFormat:
		return fmt.Errorf("%w: its format is %d, this adapter reads %d; upgrade the adapter", ErrNewerFormat, format, grantFormat)
	}
	return nil
}

func tokenToWire(t GrantToken) *revocationv1.GrantToken {
	if t == (GrantToken{}) {
		return nil
	}
	return &revocationv1.GrantToken{
		Domain: revocationv1.Domain(t.Domain), Key: t.Key, Digest: t.Digest[:],
		ExpiryMillis: t.Expiry, Kind: revocationv1.Kind(t.Kind), ExpiryUnknown: t.Unknown,
	}
}

func tokenFromWire(t *revocationv1.GrantToken) (GrantToken, error) {
	if t == nil {
		return GrantToken{}, nil
	}
	domain, kind := t.GetDomain(), t.GetKind()
	switch {
	case domain < revocationv1.Domain_DOMAIN_TOKEN || domain > revocationv1.Domain_DOMAIN_REFRESH:
		return GrantToken{}, fmt.Errorf("%w: domain %d", ErrRecord, domain)
	case kind < 0 || kind > revocationv1.Kind_KIND_API_KEY:
		return GrantToken{}, fmt.Errorf("%w: kind %d", ErrRecord, kind)
	case len(t.GetDigest()) != len(revocation.Digest{}):
		return GrantToken{}, fmt.Errorf("%w: a digest of %d bytes", ErrRecord, len(t.GetDigest()))
	}
	return GrantToken{
		Domain: revocation.Domain(domain), Key: t.GetKey(), Digest: revocation.Digest(t.GetDigest()),
		Expiry: t.GetExpiryMillis(), Kind: revocation.Kind(kind), Unknown: t.GetExpiryUnknown(),
	}, nil
}
