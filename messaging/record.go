package messaging

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// writtenFormat is the format that is written. A release that brings a new one
// reads it (newestFormat) and still writes the one before; the next release
// writes it. So replicas of two releases run side by side, and who goes back
// finds nothing that he cannot read.
const writtenFormat = 1

// The faults of a stored record.
var (
	// ErrRecord means that it cannot be understood. That is an alarm, never an
	// approval.
	ErrRecord = errors.New("the record cannot be understood")
	// ErrNewerFormat means that a newer adapter wrote it. Who cannot read the log
	// must not serve it.
	ErrNewerFormat = errors.New("the record was written by a newer adapter")
)

func encodeRecord(r revocation.Revocation) ([]byte, error) {
	rec := &revocationv1.Record{
		Format: writtenFormat, Domain: revocationv1.Domain(r.Domain), Key: r.Key, Digest: r.Digest[:],
		State: stateToWire(r.State), Kind: revocationv1.Kind(r.Kind),
		ExpiryMillis: r.Expiry, Lifetime: revocationv1.Lifetime(r.Lifetime), TimeMicros: r.Time,
		Tenant: r.Tenant, Source: r.Source, Reason: r.Reason, IssuedBeforeMillis: r.Before,
	}
	for _, e := range r.Events {
		rec.Events = append(rec.Events, &revocationv1.Event{
			Id: e.ID, TimeMicros: e.Time, State: stateToWire(e.State), Source: e.Source, Actor: e.Actor, Reason: e.Reason,
		})
	}
	return proto.Marshal(rec)
}

// detail is how much of the events of a record is read.
type detail uint8

const (
	whatIsServed detail = iota // whether a claim decided; no other event is kept
	whatIsSaid                 // all
)

// decodeRecord reads a record, all of it. Its errors quote none of it.
func decodeRecord(data []byte) (revocation.Revocation, error) {
	return readRecord(data, whatIsSaid)
}

// readRecord reads a record. It reads the wire form itself: a replica that starts
// reads every record there is, and the general decoder took a fifth of that time.
func readRecord(data []byte, of detail) (revocation.Revocation, error) {
	f := fieldsOf(data)
	var r revocation.Revocation
	var format, domain, state, kind, lifetime, events uint64
	var digest []byte
	for f.next() {
		switch f.number {
		case 1:
			format = f.varint()
		case 2:
			domain = f.varint()
		case 3:
			r.Key = f.text()
		case 4:
			digest = f.bytes()
		case 5:
			state = f.varint()
		case 6:
			kind = f.varint()
		case 7:
			r.Expiry = int64(f.varint()) // two's complement is the wire form
		case 8:
			lifetime = f.varint()
		case 9:
			r.Time = int64(f.varint()) // two's complement is the wire form
		case 10:
			r.Tenant = f.text()
		case 11:
			r.Source = f.text()
		case 12:
			r.Reason = f.text()
		case 13:
			fields := f.message()
			e := readEvent(&fields, of)
			f.broken = f.broken || fields.broken
			if events++; of == whatIsSaid || events == 1 && revocation.IsClaim(e.ID) {
				r.Events = append(r.Events, e)
			}
		case 14:
			r.Before = int64(f.varint()) // two's complement is the wire form
		default:
			f.skip()
		}
	}
	switch {
	case f.broken:
		return revocation.Revocation{}, fmt.Errorf("%w: not a record", ErrRecord)
	case format > newestFormat:
		return revocation.Revocation{}, fmt.Errorf("%w: its format is %d, this adapter reads %d; upgrade the adapter",
			ErrNewerFormat, format, newestFormat)
	case format == 0:
		return revocation.Revocation{}, fmt.Errorf("%w: it has no format", ErrRecord)
	}
	return checkRecord(r, recordEnums{domain, state, kind, lifetime}, digest)
}

func readEvent(f *recordFields, of detail) revocation.Event {
	var e revocation.Event
	for f.next() {
		switch {
		case f.number == 1:
			e.ID = f.text()
		case f.number == 2:
			e.Time = int64(f.varint()) // two's complement is the wire form
		case f.number == 3:
			e.State = stateFromWire(f.varint())
		case of == whatIsSaid && f.number == 4:
			e.Source = f.text()
		case of == whatIsSaid && f.number == 5:
			e.Actor = f.text()
		case of == whatIsSaid && f.number == 6:
			e.Reason = f.text()
		default:
			f.skip()
		}
	}
	return e
}

// recordEnums are a record's enums as they are on the wire.
type recordEnums struct{ domain, state, kind, lifetime uint64 }

// checkRecord completes r with its enums and digest, and refuses what no writer
// of this format writes.
func checkRecord(r revocation.Revocation, e recordEnums, digest []byte) (revocation.Revocation, error) {
	refuse := func(format string, args ...any) (revocation.Revocation, error) {
		return revocation.Revocation{}, fmt.Errorf("%w: %s", ErrRecord, fmt.Sprintf(format, args...))
	}
	switch {
	case e.domain < uint64(revocation.DomainToken) || e.domain > uint64(revocation.DomainRule):
		return refuse("domain %d", e.domain)
	case e.kind > uint64(revocation.KindAPIKey):
		return refuse("kind %d", e.kind)
	case e.lifetime < uint64(revocation.Dated) || e.lifetime > uint64(revocation.Forever):
		return refuse("lifetime %d", e.lifetime)
	case len(digest) != len(r.Digest):
		return refuse("a digest of %d bytes", len(digest))
	}
	r.Domain, r.Kind, r.Lifetime = revocation.Domain(e.domain), revocation.Kind(e.kind), revocation.Lifetime(e.lifetime)
	r.State, r.Digest = stateFromWire(e.state), revocation.Digest(digest)
	switch {
	case r.State == 0:
		return refuse("state %d", e.state)
	case r.Expiry <= 0 || (r.Lifetime == revocation.Forever) != (r.Expiry == revocation.Never):
		return refuse("expiry %d, lifetime %s", r.Expiry, r.Lifetime)
	case r.Domain.Secret() != (r.Key == "") || len(r.Key) > revocation.MaxKey:
		return refuse("domain %s and a key of %d bytes", r.Domain, len(r.Key))
	case r.Domain == revocation.DomainRule && !isRule(r):
		return refuse("a rule without claim, value or time")
	case r.Domain != revocation.DomainRule && r.Before != 0:
		return refuse("domain %s, issued before %d", r.Domain, r.Before)
	case !r.Domain.Secret() && revocation.DigestOf(r.Domain, r.Key) != r.Digest:
		return refuse("the digest is not the key's")
	}
	for i := range r.Events {
		if e := &r.Events[i]; e.State == 0 { // written before events had one
			e.State = r.State
		}
	}
	return r, nil
}

// isRule says whether r is one; of a rule that was never in force only the
// approval may be known.
func isRule(r revocation.Revocation) bool {
	_, err := revocation.ParseRule(r.Key)
	return err == nil && r.Before >= 0 && (r.Before > 0 || r.State == revocation.Approved)
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

func stateFromWire(s uint64) revocation.State {
	switch revocationv1.State(min(s, math.MaxInt32)) { // bounded by min
	case revocationv1.State_STATE_REVOKED:
		return revocation.Revoked
	case revocationv1.State_STATE_APPROVED:
		return revocation.Approved
	}
	return 0
}
