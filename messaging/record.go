package messaging

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// recordFormat is the format that is written. A reader reads it and the one
// before.
const recordFormat = 1

// ErrRecord means that a stored record cannot be understood. That is an alarm,
// never an approval.
var ErrRecord = errors.New("the record cannot be understood")

func encodeRecord(r revocation.Revocation) ([]byte, error) {
	rec := &revocationv1.Record{
		Format: recordFormat, Domain: revocationv1.Domain(r.Domain), Key: r.Key, Digest: r.Digest[:],
		State: stateToWire(r.State), Kind: revocationv1.Kind(r.Kind),
		ExpiryMillis: r.Expiry, Lifetime: revocationv1.Lifetime(r.Lifetime), TimeMicros: r.Time,
		Tenant: r.Tenant, Source: r.Source, Reason: r.Reason,
	}
	for _, e := range r.Events {
		rec.Events = append(rec.Events, &revocationv1.Event{Id: e.ID, TimeMicros: e.Time})
	}
	return proto.Marshal(rec)
}

// decodeRecord reads a record. Its errors quote none of it.
func decodeRecord(data []byte) (revocation.Revocation, error) {
	var rec revocationv1.Record
	if err := proto.Unmarshal(data, &rec); err != nil {
		return revocation.Revocation{}, fmt.Errorf("%w: not a record", ErrRecord)
	}
	if rec.GetFormat() != recordFormat {
		return revocation.Revocation{}, fmt.Errorf("%w: its format is %d, this adapter reads %d; upgrade the adapter",
			ErrRecord, rec.GetFormat(), recordFormat)
	}
	r := revocation.Revocation{
		Domain: revocation.Domain(rec.GetDomain()), Key: rec.GetKey(), //nolint:gosec // checked below
		State: stateFromWire(rec.GetState()), Kind: revocation.Kind(rec.GetKind()), //nolint:gosec // checked below
		Expiry: rec.GetExpiryMillis(), Lifetime: revocation.Lifetime(rec.GetLifetime()), //nolint:gosec // checked below
		Time: rec.GetTimeMicros(), Tenant: rec.GetTenant(), Source: rec.GetSource(), Reason: rec.GetReason(),
	}
	copy(r.Digest[:], rec.GetDigest())
	for _, e := range rec.GetEvents() {
		r.Events = append(r.Events, revocation.Event{ID: e.GetId(), Time: e.GetTimeMicros()})
	}
	return r, checkRecord(&rec, r)
}

func checkRecord(rec *revocationv1.Record, r revocation.Revocation) error {
	switch {
	case rec.GetDomain() < revocationv1.Domain_DOMAIN_TOKEN || rec.GetDomain() > revocationv1.Domain_DOMAIN_RULE:
		return fmt.Errorf("%w: domain %d", ErrRecord, rec.GetDomain())
	case r.State == 0:
		return fmt.Errorf("%w: state %d", ErrRecord, rec.GetState())
	case rec.GetKind() < 0 || rec.GetKind() > revocationv1.Kind_KIND_API_KEY:
		return fmt.Errorf("%w: kind %d", ErrRecord, rec.GetKind())
	case rec.GetLifetime() < revocationv1.Lifetime_LIFETIME_DATED || rec.GetLifetime() > revocationv1.Lifetime_LIFETIME_NEVER:
		return fmt.Errorf("%w: lifetime %d", ErrRecord, rec.GetLifetime())
	case r.Expiry <= 0 || (r.Lifetime == revocation.Forever) != (r.Expiry == revocation.Never):
		return fmt.Errorf("%w: expiry %d, lifetime %s", ErrRecord, r.Expiry, r.Lifetime)
	case len(rec.GetDigest()) != len(r.Digest):
		return fmt.Errorf("%w: a digest of %d bytes", ErrRecord, len(rec.GetDigest()))
	case r.Domain.Secret() != (r.Key == ""):
		return fmt.Errorf("%w: domain %s and a key of %d bytes", ErrRecord, r.Domain, len(r.Key))
	case !r.Domain.Secret() && (len(r.Key) > revocation.MaxKey || revocation.DigestOf(r.Domain, r.Key) != r.Digest):
		return fmt.Errorf("%w: the digest is not the key's", ErrRecord)
	}
	return nil
}

// The states are mapped by name: on the wire 0 is nothing and 1 is revoked, in
// the domain the greater wins a tie.
func stateToWire(s revocation.State) revocationv1.State {
	switch s {
	case revocation.Revoked:
		return revocationv1.State_STATE_REVOKED
	case revocation.Approved:
		return revocationv1.State_STATE_APPROVED
	}
	return revocationv1.State_STATE_UNSPECIFIED
}

func stateFromWire(s revocationv1.State) revocation.State {
	switch s {
	case revocationv1.State_STATE_REVOKED:
		return revocation.Revoked
	case revocationv1.State_STATE_APPROVED:
		return revocation.Approved
	}
	return 0
}
