package messaging_test

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"revocation-adapter/messaging"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// revocationOf is a revocation whose key is a secret where the domain says so.
func revocationOf(d revocation.Domain, key string) revocation.Revocation {
	r := revocation.Revocation{
		Domain: d, Key: key, Digest: revocation.DigestOf(d, key), State: revocation.Revoked,
		Expiry: 1_800_000_000_000, Lifetime: revocation.Dated, Time: 1_700_000_000_000_001,
		Tenant: "-1234", Source: "nats", Reason: "stolen",
		Events: []revocation.Event{{ID: "e2", Time: 1_700_000_000_000_001, State: revocation.Revoked, Source: "http", Actor: "alice", Reason: "left \u00e9"}, {ID: "e1", Time: 1_600_000_000_000_000, State: revocation.Approved}},
	}
	switch {
	case d.Secret():
		r.Key = ""
	case d == revocation.DomainRule:
		r.Key, r.Before = "sub="+key, 1_700_000_000_000
		r.Digest = revocation.DigestOf(d, r.Key)
	}
	return r
}

func TestRecordRoundTrip(t *testing.T) {
	for d := revocation.DomainToken; d <= revocation.DomainRule; d++ {
		for _, s := range []revocation.State{revocation.Approved, revocation.Revoked} {
			for k := revocation.KindNone; k <= revocation.KindAPIKey; k++ {
				for l := revocation.Dated; l <= revocation.Forever; l++ {
					r := revocationOf(d, "a key\x00 \u00e9")
					r.State, r.Kind, r.Lifetime = s, k, l
					if l == revocation.Forever {
						r.Expiry = revocation.Never
					}
					t.Run(fmt.Sprint(d, " ", s, " kind ", k, " ", l), func(t *testing.T) { roundTrip(t, r) })
				}
			}
		}
	}
	t.Run("a full sync without time and event", func(t *testing.T) {
		r := revocationOf(revocation.DomainToken, "a")
		r.Time, r.Events = 0, nil
		roundTrip(t, r)
	})
}

func roundTrip(t *testing.T, r revocation.Revocation) {
	t.Helper()
	data, err := messaging.EncodeRecord(r)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := messaging.DecodeRecord(data); !reflect.DeepEqual(got, r) || err != nil {
		t.Errorf("got %+v, %v, want %+v", got, err, r)
	}
}

// The numbers of the states differ on the wire: a cast in place of a mapping
// would read every revocation as an approval.
func TestStatesAreMappedByName(t *testing.T) {
	for state, wire := range map[revocation.State]revocationv1.State{
		revocation.Revoked:  revocationv1.State_STATE_REVOKED,
		revocation.Approved: revocationv1.State_STATE_APPROVED,
	} {
		t.Run(state.String(), func(t *testing.T) {
			r := revocationOf(revocation.DomainToken, "a")
			r.State = state
			data, err := messaging.EncodeRecord(r)
			if err != nil {
				t.Fatal(err)
			}
			rec := &revocationv1.Record{}
			if err := proto.Unmarshal(data, rec); err != nil || rec.GetState() != wire {
				t.Errorf("%s is stored as %s, %v", state, rec.GetState(), err)
			}
			if got, err := messaging.DecodeRecord(data); got.State != state || err != nil {
				t.Errorf("%s is read as %s, %v", wire, got.State, err)
			}
		})
	}
}

// The fields keep their numbers: what is stored today must be read by every
// later version.
func TestRecordKeepsItsFieldNumbers(t *testing.T) {
	stored := []byte("\x08\x01\x10\x01\x1a\x01a\x22\x10")
	digest := revocation.DigestOf(revocation.DomainToken, "a")
	stored = append(stored, digest[:]...)
	stored = append(stored, "\x28\x01\x30\x02\x38\x64\x40\x01\x48\x07\x52\x01t\x5a\x01s\x62\x01r\x6a\x05\x0a\x01e\x10\x07"...)
	want := revocation.Revocation{
		Domain: revocation.DomainToken, Key: "a", Digest: digest, State: revocation.Revoked, Kind: revocation.KindAPIKey,
		Expiry: 100, Lifetime: revocation.Dated, Time: 7, Tenant: "t", Source: "s", Reason: "r",
		Events: []revocation.Event{{ID: "e", Time: 7, State: revocation.Revoked}},
	}
	if got, err := messaging.DecodeRecord(stored); !reflect.DeepEqual(got, want) || err != nil {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// What events say of themselves is in fields of their own, of the same format: an
// adapter of before skips them.
func TestEventTextsKeepTheirFieldNumbers(t *testing.T) {
	r := revocationOf(revocation.DomainToken, "a")
	data, err := messaging.EncodeRecord(r)
	if err != nil {
		t.Fatal(err)
	}
	rec := &revocationv1.Record{}
	if err := proto.Unmarshal(data, rec); err != nil {
		t.Fatal(err)
	}
	e := rec.GetEvents()[0].ProtoReflect()
	for number, want := range map[protoreflect.FieldNumber]string{4: "http", 5: "alice", 6: "left \u00e9"} {
		if got := e.Get(e.Descriptor().Fields().ByNumber(number)).String(); got != want {
			t.Errorf("field %d is %q, want %q", number, got, want)
		}
	}
	if rec.GetFormat() != 1 {
		t.Errorf("the format is %d", rec.GetFormat())
	}
}

func TestRecordsThatCannotBeUnderstood(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(*revocationv1.Record)
	}{
		{"no format", func(r *revocationv1.Record) { r.Format = 0 }},
		{"no domain", func(r *revocationv1.Record) { r.Domain = 0 }},
		{"a later domain", func(r *revocationv1.Record) { r.Domain = 5 }},
		{"a domain that a cast would wrap", func(r *revocationv1.Record) { r.Domain = 257 }},
		{"a negative domain", func(r *revocationv1.Record) { r.Domain = -255 }},
		{"no state", func(r *revocationv1.Record) { r.State = 0 }},
		{"a later state", func(r *revocationv1.Record) { r.State = 3 }},
		{"a state that a cast would wrap", func(r *revocationv1.Record) { r.State = 257 }},
		{"a later kind", func(r *revocationv1.Record) { r.Kind = 3 }},
		{"a negative kind", func(r *revocationv1.Record) { r.Kind = -256 }},
		{"no lifetime", func(r *revocationv1.Record) { r.Lifetime = 0 }},
		{"a later lifetime", func(r *revocationv1.Record) { r.Lifetime = 4 }},
		{"no expiry", func(r *revocationv1.Record) { r.ExpiryMillis = 0 }},
		{"a negative expiry", func(r *revocationv1.Record) { r.ExpiryMillis = -1 }},
		{"never with an expiry", func(r *revocationv1.Record) { r.Lifetime = revocationv1.Lifetime_LIFETIME_NEVER }},
		{"the expiry of never without it", func(r *revocationv1.Record) { r.ExpiryMillis = revocation.Never }},
		{"no digest", func(r *revocationv1.Record) { r.Digest = nil }},
		{"a short digest", func(r *revocationv1.Record) { r.Digest = r.Digest[:15] }},
		{"a long digest", func(r *revocationv1.Record) { r.Digest = append(r.Digest, 0) }},
		{"another key's digest", func(r *revocationv1.Record) { r.Digest[0]++ }},
		{"another domain's digest", func(r *revocationv1.Record) {
			rule := revocation.Rule{Claim: "sub", Value: secret}.Key()
			r.Domain, r.Key, r.IssuedBeforeMillis = revocationv1.Domain_DOMAIN_RULE, rule, 1
			digest := revocation.DigestOf(revocation.DomainToken, rule)
			r.Digest = digest[:]
		}},
		{"a token issued before", func(r *revocationv1.Record) { r.IssuedBeforeMillis = 1 }},
		{"a rule without a value", func(r *revocationv1.Record) { setRule(r, "sub=", 1) }},
		{"a rule without a claim", func(r *revocationv1.Record) { setRule(r, "alice", 1) }},
		{"a rule without a time", func(r *revocationv1.Record) { setRule(r, "sub=alice", 0) }},
		{"a rule before the epoch", func(r *revocationv1.Record) { setRule(r, "sub=alice", -1) }},
		{"no key", func(r *revocationv1.Record) { r.Key = "" }},
		{"a key that is too long", func(r *revocationv1.Record) { setKey(r, strings.Repeat("x", revocation.MaxKey+1)) }},
		{"an opaque token in clear", func(r *revocationv1.Record) { r.Domain = revocationv1.Domain_DOMAIN_OPAQUE }},
		{"a refresh token in clear", func(r *revocationv1.Record) { r.Domain = revocationv1.Domain_DOMAIN_REFRESH }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rec := &revocationv1.Record{
				Format: 1, Domain: revocationv1.Domain_DOMAIN_TOKEN, State: revocationv1.State_STATE_REVOKED,
				ExpiryMillis: 1_800_000_000_000, Lifetime: revocationv1.Lifetime_LIFETIME_DATED,
			}
			setKey(rec, secret)
			if _, err := decodeWire(t, rec); err != nil {
				t.Fatalf("unspoilt: %v", err)
			}
			tt.spoil(rec)
			if r, err := decodeWire(t, rec); !errors.Is(err, messaging.ErrRecord) || strings.Contains(err.Error(), secret) {
				t.Errorf("got %+v, %v, want it refused without its key", r, err)
			}
		})
	}
	t.Run("a later format", func(t *testing.T) {
		rec := revokedRecord(secret, time.Now())
		rec.Format = 2
		if r, err := decodeWire(t, rec); !errors.Is(err, messaging.ErrNewerFormat) || errors.Is(err, messaging.ErrRecord) ||
			strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "upgrade") {
			t.Errorf("got %+v, %v", r, err)
		}
	})
	t.Run("no record", func(t *testing.T) {
		whole, err := messaging.EncodeRecord(revocationOf(revocation.DomainToken, secret))
		if err != nil {
			t.Fatal(err)
		}
		for _, data := range []string{
			"", secret, "\xff\xff", "{}", string(whole[:len(whole)-1]), string(whole) + "\x00",
			string(whole) + "\x42\x02\x30\x00", // a lifetime that is a string
			string(whole) + "\x60\x00",         // a reason that is a number
			string(whole) + "\x62\x01\xff",     // a reason that is no UTF-8
			string(whole) + "\x6a\x02\x0a\x05", // an event that is cut off
		} {
			if r, err := messaging.DecodeRecord([]byte(data)); !errors.Is(err, messaging.ErrRecord) {
				t.Errorf("%q is %+v, %v", data, r, err)
			}
		}
	})
}

func setKey(r *revocationv1.Record, key string) {
	digest := revocation.DigestOf(revocation.Domain(r.GetDomain()), key) // a valid one
	r.Key, r.Digest = key, digest[:]
}

func setRule(r *revocationv1.Record, key string, issuedBefore int64) {
	r.Domain, r.IssuedBeforeMillis = revocationv1.Domain_DOMAIN_RULE, issuedBefore
	setKey(r, key)
}

func decodeWire(t *testing.T, rec *revocationv1.Record) (revocation.Revocation, error) {
	t.Helper()
	data, err := proto.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	return messaging.DecodeRecord(data)
}

// FuzzDecodeRecord: no record makes DecodeRecord panic or quote it. What it
// accepts, the general decoder of protobuf reads as the same, and it is written
// as it was read.
func FuzzDecodeRecord(f *testing.F) {
	for _, r := range []revocation.Revocation{
		revocationOf(revocation.DomainToken, secret),
		revocationOf(revocation.DomainOpaque, secret),
		revocationOf(revocation.DomainRule, secret),
	} {
		used := r
		used.Events = []revocation.Event{{ID: "claim:0123456789abcdef", Time: r.Time, State: revocation.Revoked}, r.Events[1]}
		if data, err := messaging.EncodeRecord(used); err == nil {
			f.Add(data)
		}
		data, err := messaging.EncodeRecord(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(append(data, "\x28\x02\x7a\x01x\x6a\x02\x10\x07"...)) // another state, an unknown field, another event
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := messaging.DecodeRecord(data)
		if err != nil {
			known := errors.Is(err, messaging.ErrRecord) || errors.Is(err, messaging.ErrNewerFormat)
			if !known || strings.Contains(err.Error(), secret) {
				t.Fatalf("the error is none of ours, or quotes the key: %v", err)
			}
			return
		}
		roundTrip(t, r)
		rec := &revocationv1.Record{}
		if err := proto.Unmarshal(data, rec); err != nil {
			t.Fatalf("read %+v of what is no record: %v", r, err)
		}
		if got := general(rec); !reflect.DeepEqual(got, r) {
			t.Fatalf("read %+v, want %+v", r, got)
		}
		served := r // all that the follower needs
		if served.Events = nil; len(r.Events) > 0 && revocation.IsClaim(r.Events[0].ID) {
			e := r.Events[0]
			served.Events = []revocation.Event{{ID: e.ID, Time: e.Time, State: e.State}}
		}
		got, err := messaging.ReadWhatIsServed(data)
		if !reflect.DeepEqual(got, served) || err != nil || got.Used() != r.Used() {
			t.Fatalf("the follower reads %+v, %v, want %+v", got, err, served)
		}
	})
}

// general is what the general decoder of protobuf reads.
func general(rec *revocationv1.Record) revocation.Revocation {
	r := revocation.Revocation{
		Domain: revocation.Domain(rec.GetDomain()), Key: rec.GetKey(), Digest: revocation.Digest(rec.GetDigest()), //nolint:gosec // a valid one
		Kind: revocation.Kind(rec.GetKind()), Expiry: rec.GetExpiryMillis(), Lifetime: revocation.Lifetime(rec.GetLifetime()), //nolint:gosec // valid ones
		Time: rec.GetTimeMicros(), Before: rec.GetIssuedBeforeMillis(), Tenant: rec.GetTenant(), Source: rec.GetSource(), Reason: rec.GetReason(),
	}
	states := map[revocationv1.State]revocation.State{
		revocationv1.State_STATE_REVOKED:  revocation.Revoked,
		revocationv1.State_STATE_APPROVED: revocation.Approved,
	}
	r.State = states[rec.GetState()]
	for _, e := range rec.GetEvents() {
		r.Events = append(r.Events, revocation.Event{
			ID: e.GetId(), Time: e.GetTimeMicros(), State: cmp.Or(states[e.GetState()], r.State),
			Source: e.GetSource(), Actor: e.GetActor(), Reason: e.GetReason(),
		})
	}
	return r
}
