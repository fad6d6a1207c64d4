package messaging_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"revocation-adapter/messaging"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// inner is what an event of a rule or a batch carries as revokedToken.
func inner(object any) string {
	data, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(data)
}

func ruleOf(typ string, object fields) fields {
	return fields{"eventId": "e1", "type": typ, "revokedToken": inner(object), "expiryTime": 0, "tenantId": -1234}
}

// rule is the event of a rule that happened when its watermark says.
func rule(key, typ string, before int64) messaging.Event {
	return messaging.Event{
		ID: "e1", Type: typ, Domain: revocation.DomainRule, Key: key, Digest: revocation.DigestOf(revocation.DomainRule, key),
		Lifetime: revocation.Unknown, Tenant: "-1234", Before: before, Happened: before,
	}
}

// ours is a rule that happens when it comes.
func ours(key string, before int64) messaging.Event {
	e := rule(key, messaging.TypeClaimRule, before)
	e.Happened = 0
	return e
}

const (
	clientEvent = messaging.TypeConsumerApp
	entityEvent = messaging.TypeSubjectEntity
	claimEvent  = messaging.TypeClaimRule
	someTime    = int64(1_716_000_000_000)
)

func TestDecodeRule(t *testing.T) {
	tests := []struct {
		name  string
		event fields
		want  messaging.Event
	}{
		{"a client on the bus", ruleOf(clientEvent, fields{"consumer_key": "app", "revocationTime": "1716000000000"}), rule("azp=app", clientEvent, someTime)},
		{"a client of an HTTP body", ruleOf(clientEvent, fields{"consumerKey": "app", "revocationTime": someTime}), rule("azp=app", clientEvent, someTime)},
		{"a user", ruleOf(entityEvent, fields{"entityId": "alice", "entityType": "USER_ID", "revocationTime": "1716000000000"}), rule("sub=alice", entityEvent, someTime)},
		{"a client as an entity", ruleOf(entityEvent, fields{"entity_id": "app", "entity_type": "CLIENT_ID", "revocation_time": "1716000000000"}), rule("azp=app", entityEvent, someTime)},
		{"a claim", ruleOf(claimEvent, fields{"claim": "sid", "value": "s1", "issuedBefore": "1716000000000"}), ours("sid=s1", someTime)},
		{"a value with the sign of a key", ruleOf(claimEvent, fields{"claim": "sub", "value": "a=b= c", "issuedBefore": someTime}), ours("sub=a=b= c", someTime)},
		{"a value that is a number", ruleOf(claimEvent, fields{"claim": "sub", "value": 17, "issuedBefore": 1.716e12}), ours("sub=17", someTime)},
		{"a type in upper case", ruleOf("CLAIM_RULE", fields{"claim": "sub", "value": "a", "issued_before": someTime}), typed(ours("sub=a", someTime), "CLAIM_RULE")},
		{"an expiry of WSO2's is none", with(ruleOf(clientEvent, fields{"consumer_key": "app", "revocationTime": someTime}), "expiryTime", someTime+1), rule("azp=app", clientEvent, someTime)},
		{"an expiry of ours counts", with(ruleOf(claimEvent, fields{"claim": "sub", "value": "a", "issuedBefore": someTime}), "expiryTime", someTime+1), until(ours("sub=a", someTime), someTime+1, revocation.Dated)},
		{"the organization", with(ruleOf(clientEvent, fields{"consumer_key": "app", "revocationTime": someTime, "organization": "acme"}), "tenantId", nil), tenant(rule("azp=app", clientEvent, someTime), "acme")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := decodeOne(tt.event.event(), messaging.StatusRevoked); got != tt.want || err != nil {
				t.Errorf("got %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}

func with(f fields, name string, value any) fields {
	f[name] = value
	return f
}

func typed(e messaging.Event, typ string) messaging.Event {
	e.Type = typ
	return e
}

func tenant(e messaging.Event, tenant string) messaging.Event {
	e.Tenant = tenant
	return e
}

// The bus and HTTP bodies disagree on base64 too.
func TestDecodeRuleInEveryBase64(t *testing.T) {
	object := []byte(`{"consumer_key":"????>>>>~~~~","revocationTime":"1716000000000"}`)
	for name, enc := range map[string]*base64.Encoding{
		"padded": base64.StdEncoding, "unpadded": base64.RawStdEncoding, "url": base64.URLEncoding, "unpadded url": base64.RawURLEncoding,
	} {
		t.Run(name, func(t *testing.T) {
			text := enc.EncodeToString(object)
			event := fields{"type": clientEvent, "revokedToken": text}.event()
			if e, err := decodeOne(event, messaging.StatusRevoked); err != nil || e.Key != "azp=????>>>>~~~~" {
				t.Errorf("%s: got %+v, %v", text, e, err)
			}
		})
	}
}

func TestDecodeRuleRefusesWithoutQuoting(t *testing.T) {
	client := func(before any) fields {
		return ruleOf(clientEvent, fields{"consumer_key": secret, "revocationTime": before})
	}
	claim := func(name, value string) fields {
		return ruleOf(claimEvent, fields{"claim": name, "value": value, "issuedBefore": someTime})
	}
	tests := []struct {
		name, reason string
		event        fields
	}{
		{"no token", "revokedToken is missing", fields{"type": clientEvent}},
		{"no base64", "not base64", fields{"type": clientEvent, "revokedToken": secret + "!"}},
		{"base64 of no JSON", "not base64", fields{"type": clientEvent, "revokedToken": base64.StdEncoding.EncodeToString([]byte(secret))}},
		{"base64 of a list", "not base64", fields{"type": clientEvent, "revokedToken": inner([]string{secret})}},
		{"base64 of null", "not base64", fields{"type": clientEvent, "revokedToken": inner(nil)}},
		{"no time", "missing", client(nil)},
		{"a blank time", "missing", client("")},
		{"time zero", "not in milliseconds", client(0)},
		{"a time in seconds", "not in milliseconds", client("1716000000")},
		{"a negative time", "negative", client(-someTime)},
		{"a negative time as a string", "negative", client("-1716000000000")},
		{"a fraction", "whole number", client(1716000000000.5)},
		{"a word", "whole number", client(secret)},
		{"a date", "whole number", client("2024-05-18T02:40:00Z")},
		{"beyond 64 bits", "whole number", client("92233720368547758080")},
		{"a time that is an object", "revocationTime", client(fields{"a": secret})},
		{"no client", "value", ruleOf(clientEvent, fields{"revocationTime": someTime})},
		{"a client that is a list", "consumer_key", ruleOf(clientEvent, fields{"consumer_key": []string{secret}, "revocationTime": someTime})},
		{"no type of entity", "entityType", ruleOf(entityEvent, fields{"entityId": secret, "revocationTime": someTime})},
		{"another type of entity", "entityType", ruleOf(entityEvent, fields{"entityId": secret, "entityType": secret, "revocationTime": someTime})},
		{"no claim", "rules.claims", claim("", secret)},
		{"a claim that is not named", "rules.claims", claim("scope", secret)},
		{"a claim in another case", "rules.claims", claim("SUB", secret)},
		{"no value", "value", claim("sub", "")},
		{"a value that is too long", "longer", claim("sub", secret+strings.Repeat("x", 2048))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := decodeOne(tt.event.event(), messaging.StatusRevoked)
			if !errors.Is(err, messaging.ErrEvent) || !strings.Contains(err.Error(), tt.reason) {
				t.Fatalf("got %+v, %v, want it refused: %s", e, err, tt.reason)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error quotes the event: %v", err)
			}
		})
	}
}

func TestDecodeRuleThatIsLifted(t *testing.T) {
	for name, object := range map[string]fields{
		"without a time":       {"claim": "sub", "value": "alice"},
		"a time has no effect": {"claim": "sub", "value": "alice", "issuedBefore": someTime},
	} {
		t.Run(name, func(t *testing.T) {
			if e, err := decodeOne(ruleOf(claimEvent, object).event(), messaging.StatusApproved); err != nil || e != ours("sub=alice", 0) {
				t.Errorf("got %+v, %v", e, err)
			}
		})
	}
	for name, event := range map[string]fields{
		"by an event of WSO2": ruleOf(clientEvent, fields{"consumer_key": "app", "revocationTime": someTime}),
		"with a wrong time":   ruleOf(claimEvent, fields{"claim": "sub", "value": "alice", "issuedBefore": -1}),
	} {
		t.Run(name, func(t *testing.T) {
			if e, err := decodeOne(event.event(), messaging.StatusApproved); !errors.Is(err, messaging.ErrEvent) {
				t.Errorf("got %+v, %v", e, err)
			}
		})
	}
}

func TestRuleIsDated(t *testing.T) {
	came := time.UnixMicro(1_716_000_000_500_123)
	life := 90 * 24 * time.Hour
	later := came.Add(time.Hour).UnixMilli()
	tests := []struct {
		name       string
		event      messaging.Event
		dating     messaging.Dating
		time, ends int64 // microseconds, milliseconds
		lifetime   revocation.Lifetime
	}{
		{"it happened before it came", rule("sub=a", entityEvent, someTime), messaging.Dating{Came: came}, someTime * 1000, someTime + life.Milliseconds(), revocation.Dated},
		{"it happens after it came", rule("sub=a", entityEvent, later), messaging.Dating{Came: came}, came.UnixMilli() * 1000, later + life.Milliseconds(), revocation.Dated},
		{"in a list", rule("sub=a", entityEvent, someTime), messaging.Dating{}, 0, someTime + life.Milliseconds(), revocation.Dated},
		{"in a list from a clock that is ahead", rule("sub=a", entityEvent, later), messaging.Dating{}, 0, later + life.Milliseconds(), revocation.Dated},
		{"ours", ours("sub=a", someTime), messaging.Dating{Came: came}, came.UnixMicro(), someTime + life.Milliseconds(), revocation.Dated},
		{"ours with an expiry", until(ours("sub=a", someTime), later, revocation.Dated), messaging.Dating{Came: came}, came.UnixMicro(), later, revocation.Dated},
		{"it is lifted", ours("sub=a", 0), messaging.Dating{Came: came}, came.UnixMicro(), came.Add(life).UnixMilli(), revocation.Dated},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.dating.At, tt.dating.Rules = came, rules()
			r := tt.event.Revocation(tt.dating)
			if r.Time != tt.time || r.Expiry != tt.ends || r.Lifetime != tt.lifetime || r.Before != tt.event.Before {
				t.Errorf("got %+v, want time %d, expiry %d", r, tt.time, tt.ends)
			}
			tt.dating.Rules.MaxLifetime = 0
			if r := tt.event.Revocation(tt.dating); tt.event.Lifetime == revocation.Unknown && (r.Expiry != revocation.Never || r.Lifetime != revocation.Forever) {
				t.Errorf("tokens that never expire: %+v", r)
			}
		})
	}
}

// A rule that came as an event becomes a record, and never a token.
func TestRuleBecomesARecord(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	now := time.Now().Truncate(time.Millisecond)
	before := now.Add(-time.Minute).UnixMilli()
	for _, tt := range []struct {
		name, key string
		event     fields
	}{
		{"client", "azp=app", ruleOf(clientEvent, fields{"consumer_key": "app", "revocationTime": fmt.Sprint(before)})},
		{"user", "sub=alice", ruleOf(entityEvent, fields{"entityId": "alice", "entityType": "USER_ID", "revocationTime": fmt.Sprint(before)})},
		{"session", "sid=s1", ruleOf(claimEvent, fields{"claim": "sid", "value": "s1", "issuedBefore": before})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.publish(t, messaging.SubjectRevocation, tt.event.event())
			r.settle(t)
			rec, msg := r.record(t, revocation.DomainRule, tt.key)
			if rec.GetKey() != tt.key || rec.GetIssuedBeforeMillis() != before || rec.GetState() != revocationv1.State_STATE_REVOKED ||
				rec.GetTenant() != "-1234" || rec.GetSource() != "nats" || rec.GetExpiryMillis() != before+rules().MaxLifetime.Milliseconds() {
				t.Errorf("stored %v", rec)
			}
			if msg.Header.Get("Nats-TTL") == "" {
				t.Errorf("it is kept for ever: %v", msg.Header)
			}
			r.checkLogged(t, tt.event["type"].(string))
			for sequence, content := range r.content(t, messaging.LogStream) {
				if text := tt.event["revokedToken"].(string); strings.HasPrefix(content, "revoked.token.") || strings.Contains(content, text) {
					t.Errorf("a rule is stored as a token at %d: %s", sequence, content)
				}
			}
		})
	}
	if n := r.metric(t, "events_total", "kind", "rule", "outcome", "stored"); n != 3 || len(r.deadLetters(t)) != 0 {
		t.Errorf("%v rules are stored, dead letters %v", n, r.deadLetters(t))
	}
	for _, line := range r.book.find(logrus.DebugLevel, "") {
		if strings.Contains(line.Message, "alice") {
			t.Errorf("logged: %s", line.Message)
		}
	}
}

// The highest watermark wins, whatever comes late, and what is lifted stays so
// until something happens after it.
func TestRuleWatermarkAndLift(t *testing.T) {
	t.Parallel()
	now := time.Now()
	user := func(id string, at time.Time) fields {
		return with(ruleOf(entityEvent, fields{"entityId": "alice", "entityType": "USER_ID", "revocationTime": at.UnixMilli()}), "eventId", id)
	}
	claim := func(id string, at time.Time) fields {
		return with(ruleOf(claimEvent, fields{"claim": "sub", "value": "alice", "issuedBefore": at.UnixMilli()}), "eventId", id)
	}
	hour, minute := now.Add(-time.Hour), now.Add(-time.Minute)
	type step struct {
		subject string
		event   fields
	}
	revoke, lift := messaging.SubjectRevocation, messaging.SubjectApproval
	tests := []struct {
		name   string
		steps  []step
		want   revocation.State
		before time.Time
	}{
		{"a later one raises it", []step{{revoke, user("e1", hour)}, {revoke, user("e2", minute)}}, revocation.Revoked, minute},
		{"an older one that comes late", []step{{revoke, user("e1", minute)}, {revoke, user("e2", hour)}}, revocation.Revoked, minute},
		{"ours and theirs are one", []step{{revoke, claim("e1", minute)}, {revoke, user("e2", hour)}}, revocation.Revoked, minute},
		{"lifted", []step{{revoke, user("e1", minute)}, {lift, claim("e2", hour)}}, revocation.Approved, minute},
		{"an older event after it was lifted", []step{{revoke, user("e1", hour)}, {lift, claim("e2", now)}, {revoke, user("e3", minute)}}, revocation.Approved, minute},
		{"ours after it was lifted", []step{{revoke, user("e1", minute)}, {lift, claim("e2", now)}, {revoke, claim("e3", hour)}}, revocation.Revoked, minute},
		{"a lift of nothing", []step{{lift, claim("e1", now)}}, revocation.Approved, time.UnixMilli(0)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, embedded(t))
			for _, s := range tt.steps {
				r.publish(t, s.subject, s.event.event())
				r.settle(t)
			}
			rec, _ := r.record(t, revocation.DomainRule, "sub=alice")
			state := map[revocation.State]revocationv1.State{
				revocation.Revoked: revocationv1.State_STATE_REVOKED, revocation.Approved: revocationv1.State_STATE_APPROVED,
			}[tt.want]
			if rec.GetState() != state || rec.GetIssuedBeforeMillis() != tt.before.UnixMilli() {
				t.Errorf("stored %v, want %s before %d; dead letters %v", rec, tt.want, tt.before.UnixMilli(), r.deadLetters(t))
			}
		})
	}
}

// A dead letter keeps of a rule what it takes to make it, and a replay makes it,
// as old as it is.
func TestRuleIsReplayed(t *testing.T) {
	t.Parallel()
	r := startToBury(t)
	before := time.Now().Add(-time.Minute).UnixMilli()
	digest := revocation.DigestOf(revocation.DomainRule, "azp=app")
	rec := approvedRecord(revokedRecord("azp=app", inTwoHours()))
	rec.Domain, rec.Digest, rec.Kind = revocationv1.Domain_DOMAIN_RULE, digest[:], revocationv1.Kind_KIND_UNSPECIFIED
	event := ruleOf(clientEvent, fields{"consumer_key": "app", "revocationTime": fmt.Sprint(before), "organization": "acme"})
	r.buryUnder(t, rec, messaging.SubjectRevocation, event.event())
	if kept := string(r.deadLetters(t)[0].Event); !strings.Contains(kept, event["revokedToken"].(string)) {
		t.Errorf("kept: %s", kept)
	}
	r.replay(t)
	got, _ := r.record(t, revocation.DomainRule, "azp=app")
	if got.GetState() != revocationv1.State_STATE_REVOKED || got.GetIssuedBeforeMillis() != before || got.GetTimeMicros() != before*1000 {
		t.Errorf("stored %v, dead letters %v", got, r.deadLetters(t))
	}
}

// A watermark ahead of every clock would refuse tokens that are not issued yet.
func TestRuleOfTheFarFuture(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	for _, ahead := range []time.Duration{time.Hour, 25 * time.Hour} {
		r.publish(t, messaging.SubjectRevocation, ruleOf(clientEvent, fields{
			"consumer_key": fmt.Sprint(ahead), "revocationTime": time.Now().Add(ahead).UnixMilli(),
		}).event())
		r.settle(t)
	}
	letters := r.deadLetters(t)
	if got := r.outcomes(t); got["stored"] != 1 || len(letters) != 1 || !strings.Contains(letters[0].Reason, "ahead") {
		t.Errorf("outcomes %v, dead letters %v", got, letters)
	}
}

// FuzzDecodeInner: nothing in base64 makes DecodeEvent panic or quote it, and
// every rule and token that is decoded can be stored and read again.
func FuzzDecodeInner(f *testing.F) {
	for _, typ := range []string{clientEvent, entityEvent, claimEvent, messaging.TypeBatch} {
		f.Add(typ, []byte(`{"consumer_key":"s3cr3t","revocationTime":"1716000000000"}`))
		f.Add(typ, []byte(`{"entityId":"s3cr3t","entityType":"USER_ID","revocationTime":1716000000000}`))
		f.Add(typ, []byte(`{"claim":"sub","value":"s3cr3t","issuedBefore":1.716e12}`))
		f.Add(typ, []byte(`{"consumerKey":"x","revokedTokensList":["s3cr3t",{"accessToken":"s3cr3t","expiryTime":1628175421,"tokenType":"Default"}]}`))
	}
	f.Fuzz(func(t *testing.T, typ string, object []byte) {
		event := fields{"type": typ, "revokedToken": base64.StdEncoding.EncodeToString(object)}.event()
		call, err := messaging.DecodeEvent(event, messaging.StatusRevoked, rules())
		if err != nil {
			if !errors.Is(err, messaging.ErrEvent) || strings.Contains(err.Error(), secret) {
				t.Fatalf("the error is no ErrEvent, or quotes the event: %v", err)
			}
			return
		}
		if call.Reload != (len(call.Events) == 0) {
			t.Fatalf("neither events nor a reload: %+v", call)
		}
		at := time.UnixMilli(1_716_000_000_000)
		for _, e := range call.Events {
			r := e.Revocation(messaging.Dating{State: revocation.Revoked, At: at, Came: at, UnknownLife: time.Hour, Rules: rules()})
			data, err := messaging.EncodeRecord(r)
			if err != nil {
				continue // a key that is no UTF-8 becomes a dead letter
			}
			if e.Check(at) != nil {
				continue
			}
			if got, err := messaging.DecodeRecord(data); err != nil || !revocation.Equal(got, r) {
				t.Fatalf("%+v is stored as %+v, %v", r, got, err)
			}
		}
	})
}
