package messaging_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// The tokens of a real API-M, long expired.
const (
	accessToken   = "eyJ4NXQiOiJNell4TW1Ga09HWXdNV0kwWldObU5EY3hOR1l3WW1NNFpUQTNNV0kyTkRBelpHUXpOR00wWkdSbE5qSmtPREZrWkRSaU9URmtNV0ZoTXpVMlpHVmxOZyIsImtpZCI6Ik16WXhNbUZrT0dZd01XSTBaV05tTkRjeE5HWXdZbU00WlRBM01XSTJOREF6WkdRek5HTTBaR1JsTmpKa09ERmtaRFJpT1RGa01XRmhNelUyWkdWbE5nX1JTMjU2IiwiYWxnIjoiUlMyNTYifQ.eyJzdWIiOiJ2YWppcmEtZGV2IiwiYXV0IjoiQVBQTElDQVRJT05fVVNFUiIsImF1ZCI6IkhEZVBINFluRHdjOWtsUHRROTY3MnpGVWZYa2EiLCJuYmYiOjE2MTk4NTIyOTYsImF6cCI6IkhEZVBINFluRHdjOWtsUHRROTY3MnpGVWZYa2EiLCJzY29wZSI6InJlYWQ6cGV0cyIsImlzcyI6Imh0dHBzOlwvXC9sb2NhbGhvc3Q6OTQ0M1wvb2F1dGgyXC90b2tlbiIsImV4cCI6MTYxOTg1NTg5NiwiaWF0IjoxNjE5ODUyMjk2LCJqdGkiOiI0ZTMzMGRiZC03NWM2LTRhYjUtYTc0OS1iOTQ5N2FhMzUyMWEifQ.jUzkrljwJu77FRGswRQ1uKBRDsHswwp1oRyjh-ULOf4pZ0faxCTKO2djpBBkxVtgaiv1YKtzhaqRUV_UgCLDAgVO76G-sntSXmN5ATEohwcJfSNRHzOsfiCem-kkgO6P2TE15x7G4hlTfufIiirVlXVjcv-4s3fTVCCd-rsm7JEgb9HM-W2GV6l8-CDJ1cfzEQxSnQ7hgueO9CzhTbSnfRNZrwxZtNxXQC8LZcKfNQAzBbOlScT0qB4iJj_FgOHdIlpLANC-IFeCO6UnChztGRqccyTWUSjNuQBtN3_jCb1MQig3m7b2ZSirDygnZ09oecxxxUC2Sj1mHM5i6LCsEA"
	apiKey        = "eyJ4NXQiOiJOMkpqTWpOaU0yRXhZalJrTnpaalptWTFZVEF4Tm1GbE5qZzRPV1UxWVdRMll6YzFObVk1TlE9PSIsImtpZCI6ImdhdGV3YXlfY2VydGlmaWNhdGVfYWxpYXMiLCJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZG1pbkBjYXJib24uc3VwZXIiLCJhcHBsaWNhdGlvbiI6eyJvd25lciI6ImFkbWluIiwidGllclF1b3RhVHlwZSI6bnVsbCwidGllciI6IjEwUGVyTWluIiwibmFtZSI6Im15IiwiaWQiOjIsInV1aWQiOiI5MzkyMTM2OC1lYmRkLTQxYzEtOWI2Ny1lMzhlZmNkZmMzMjAifSwiaXNzIjoiaHR0cHM6XC9cL2FwaW06OTQ0NFwvb2F1dGgyXC90b2tlbiIsInRpZXJJbmZvIjp7IlVubGltaXRlZCI6eyJ0aWVyUXVvdGFUeXBlIjoicmVxdWVzdENvdW50IiwiZ3JhcGhRTE1heENvbXBsZXhpdHkiOjAsImdyYXBoUUxNYXhEZXB0aCI6MCwic3RvcE9uUXVvdGFSZWFjaCI6dHJ1ZSwic3Bpa2VBcnJlc3RMaW1pdCI6MCwic3Bpa2VBcnJlc3RVbml0IjpudWxsfX0sImtleXR5cGUiOiJQUk9EVUNUSU9OIiwic3Vic2NyaWJlZEFQSXMiOlt7InN1YnNjcmliZXJUZW5hbnREb21haW4iOiJjYXJib24uc3VwZXIiLCJuYW1lIjoicXFxcSIsImNvbnRleHQiOiJcL3FxcVwvMSIsInB1Ymxpc2hlciI6ImFkbWluIiwidmVyc2lvbiI6IjEiLCJzdWJzY3JpcHRpb25UaWVyIjoiVW5saW1pdGVkIn1dLCJ0b2tlbl90eXBlIjoiYXBpS2V5IiwiaWF0IjoxNjUwMzY0MjYyLCJqdGkiOiJlYzYxZDI0Zi04Nzg2LTRlYjktYmZiNy1lN2EyMGQwMjk1ZjYifQ==.M6ZiC1asUawlx73JYU83knl6vm1AG1q95DKnk-mU_59UG1yTRMJDtQn0CpHNDlTb-w9P4JGY8H5Z6l-aLUsmlyDAgIDG58_Q264jYqXleinRlOQyeAkQrPUM4DlVqM9yKOM-xLB8ZrE8feMj6-jHk6boJNtGBV1XUioJ-IQwq2MnBOII3dRbePYA7hNICmlOWaVXDOZitpihTiIl1JUHT7a_nGDiXg3b-MC14PqrdrAnqNWxih_K6oiVrlulsAaVWhRr3dmTQcsA4Eqr2N9FMHDRPeUT8MKlCpy7_SZeWX207LkwdnvWSVrV6dNPJuAWU1g8my_MYQlDDltZqKaisw=="
	accessTokenID = "4e330dbd-75c6-4ab5-a749-b9497aa3521a"
	apiKeyID      = "ec61d24f-8786-4eb9-bfb7-e7a20d0295f6"
)

// secret is in every token that must not be quoted.
const secret = "s3cr3t"

func payloadData(members string) []byte {
	return []byte(`{"event":{"payloadData":{` + members + `}}}`)
}

// token is the event of a key of domain token.
func token(key string, kind revocation.Kind, typ string) messaging.Event {
	return messaging.Event{
		Type: typ, Domain: revocation.DomainToken, Kind: kind, Key: key,
		Digest: revocation.DigestOf(revocation.DomainToken, key), Lifetime: revocation.Unknown,
	}
}

func opaque(token, typ string) messaging.Event {
	return messaging.Event{
		Type: typ, Domain: revocation.DomainOpaque, Lifetime: revocation.Unknown,
		Digest: revocation.DigestOf(revocation.DomainOpaque, token),
	}
}

// decodeOne decodes a message of one event.
func decodeOne(data []byte, status string) (messaging.Event, error) {
	call, err := messaging.DecodeEvent(data, status, rules())
	if err != nil {
		return messaging.Event{}, err
	}
	if len(call.Events) != 1 || call.Reload || call.Type != call.Events[0].Type {
		return messaging.Event{}, fmt.Errorf("not one event: %+v", call)
	}
	return call.Events[0], nil
}

func TestDecodeEventReadsTheEnvelopeOfTheControlPlane(t *testing.T) {
	const published = `{"event":{"payloadData":{"eventId":"444d2f9b-57d8-4245-bef2-3f8d824741c3",
 "revokedToken":"fc8ee897-b3d9-3bb6-a9ca-f4aeb036e5c0","ttl":"5000",
 "expiryTime":1628175421481,"type":"Default","tenantId":-1234}}}`
	want := opaque("fc8ee897-b3d9-3bb6-a9ca-f4aeb036e5c0", "Default")
	want.ID, want.Tenant = "444d2f9b-57d8-4245-bef2-3f8d824741c3", "-1234"
	want.Expiry, want.Lifetime = 1628175421481, revocation.Dated
	if got, err := decodeOne([]byte(published), messaging.StatusRevoked); got != want || err != nil {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestDecodeEventToken(t *testing.T) {
	served := revocation.NamePrefix + revocation.DigestOf(revocation.DomainOpaque, "abc").String()
	reserved := revocation.NamePrefix + "no digest"
	tests := []struct {
		name, members string
		want          messaging.Event
	}{
		{"JWT", `"revokedToken":"a","type":"JWT"`, token("a", revocation.KindJWT, "JWT")},
		{"API_KEY", `"revokedToken":"a","type":"API_KEY"`, token("a", revocation.KindAPIKey, "API_KEY")},
		{"Default", `"revokedToken":"a","type":"Default"`, opaque("a", "Default")},
		{"OAuth2", `"revokedToken":"a","type":"OAuth2"`, opaque("a", "OAuth2")},
		{"a blank type", `"revokedToken":"a","type":""`, opaque("a", "Default")},
		{"a null type", `"revokedToken":"a","type":null`, opaque("a", "Default")},
		{"no type", `"revokedToken":"a"`, opaque("a", "Default")},
		{"a type in lower case", `"revokedToken":"a","type":"jwt"`, token("a", revocation.KindJWT, "jwt")},
		{"the signature part of older publishers", `"revokedToken":"jUzkrljwJu77-_","type":"JWT"`, token("jUzkrljwJu77-_", revocation.KindJWT, "JWT")},
		{"a jti is kept byte for byte", `"revokedToken":" FC8EE897 \u00e9\n","type":"JWT"`, token(" FC8EE897 \u00e9\n", revocation.KindJWT, "JWT")},
		{"a whole JWT", `"revokedToken":"` + accessToken + `","type":"JWT"`, until(token(accessTokenID, revocation.KindJWT, "JWT"), 1619855896000, revocation.Dated)},
		{"a whole JWT that expires before the event says", `"revokedToken":"` + accessToken + `","type":"JWT","expiryTime":1619855897000`, until(token(accessTokenID, revocation.KindJWT, "JWT"), 1619855897000, revocation.Dated)},
		{"a whole JWT that expires after the event says", `"revokedToken":"` + accessToken + `","type":"JWT","expiryTime":1619855895000`, until(token(accessTokenID, revocation.KindJWT, "JWT"), 1619855896000, revocation.Dated)},
		{"a whole padded API key", `"revokedToken":"` + apiKey + `","type":"API_KEY"`, until(token(apiKeyID, revocation.KindAPIKey, "API_KEY"), revocation.Never, revocation.Forever)},
		{"three words are a jti", `"revokedToken":"a.b.c","type":"JWT"`, token("a.b.c", revocation.KindJWT, "JWT")},
		{"a jti that begins like a JWT", `"revokedToken":"eyJ.b","type":"JWT"`, token("eyJ.b", revocation.KindJWT, "JWT")},
		{"an opaque token by its served name", `"revokedToken":"` + served + `"`, opaque("abc", "Default")},
		{"an opaque token that begins like one", `"revokedToken":"` + reserved + `"`, opaque(reserved, "Default")},
		{"an opaque token that is a JWT", `"revokedToken":"` + accessToken + `"`, opaque(accessToken, "Default")},
		{"a numeric token", `"revokedToken":12345,"type":"JWT"`, token("12345", revocation.KindJWT, "JWT")},
		{"the last of two members counts", `"revokedToken":"a","revokedToken":"b","type":"JWT"`, token("b", revocation.KindJWT, "JWT")},
		{"a name in another case is another", `"revokedToken":"a","RevokedToken":"b","type":"JWT","TYPE":"Default"`, token("a", revocation.KindJWT, "JWT")},
		{"unknown members are ignored", `"revokedToken":"a","type":"JWT","consumerKey":"x","more":{"a":[1]}`, token("a", revocation.KindJWT, "JWT")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := decodeOne(payloadData(tt.members), messaging.StatusRevoked)
			if got != tt.want || err != nil {
				t.Errorf("got %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}

func TestDecodeEventIdentityAndTenant(t *testing.T) {
	tests := []struct{ name, members, id, tenant string }{
		{"strings", `"eventId":"e1","tenantId":"carbon.super"`, "e1", "carbon.super"},
		{"numbers", `"eventId":17,"tenantId":-1234`, "17", "-1234"},
		{"missing", `"ttl":"5000"`, "", ""},
		{"null", `"eventId":null,"tenantId":null`, "", ""},
		{"as long as may be", `"eventId":"` + strings.Repeat("e", 256) + `","tenantId":"` + strings.Repeat("t", 128) + `"`, strings.Repeat("e", 256), strings.Repeat("t", 128)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := decodeOne(payloadData(`"revokedToken":"a",`+tt.members), messaging.StatusRevoked)
			if got.ID != tt.id || got.Tenant != tt.tenant || err != nil {
				t.Errorf("got %q of tenant %q, %v, want %q of %q", got.ID, got.Tenant, err, tt.id, tt.tenant)
			}
		})
	}
}

func TestDecodeEventStatus(t *testing.T) {
	tests := []struct {
		name, member, allowed string
		ok                    bool
	}{
		{"absent", `"ttl":"1"`, "revoked", true},
		{"null", `"status":null`, "revoked", true},
		{"revoked", `"status":"revoked"`, "revoked", true},
		{"approved on tokenRevocation", `"status":"approved"`, "revoked", false},
		{"in another case", `"status":"REVOKED"`, "revoked", false},
		{"a number", `"status":0`, "revoked", false},
		{"an object", `"status":{}`, "revoked", false},
		{"approved on tokenApproval", `"status":"approved"`, "approved", true},
		{"revoked on tokenApproval", `"status":"revoked"`, "approved", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := decodeOne(payloadData(`"revokedToken":"a",`+tt.member), tt.allowed)
			if tt.ok != (err == nil) || !tt.ok && !errors.Is(err, messaging.ErrEvent) {
				t.Errorf("got %v, want accepted: %v", err, tt.ok)
			}
		})
	}
}

func TestExpiryTimeIsNormalised(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_000)
	const unknownLife = 90 * 24 * time.Hour
	unknown := at.Add(unknownLife).UnixMilli()
	tests := []struct {
		name, value string // of expiryTime
		expiry      int64
		lifetime    revocation.Lifetime
	}{
		{"milliseconds", `1628175421481`, 1628175421481, revocation.Dated},
		{"milliseconds as a string", `"1628175421481"`, 1628175421481, revocation.Dated},
		{"milliseconds of a serialiser that knows no long", `1.628175421481E12`, 1628175421481, revocation.Dated},
		{"the same as a string", `"1.628175421481E12"`, 1628175421481, revocation.Dated},
		{"milliseconds with a zero fraction", `1628175421481.0`, 1628175421481, revocation.Dated},
		{"seconds", `1628175421`, 1628175421000, revocation.Dated},
		{"seconds as a string with blanks", `" 1628175421 "`, 1628175421000, revocation.Dated},
		{"the first millisecond of its unit", `100000000000`, 100000000000, revocation.Dated},
		{"one second", `1`, 1000, revocation.Dated},
		{"zero", `0`, unknown, revocation.Unknown},
		{"zero as a string", `"0"`, unknown, revocation.Unknown},
		{"zero with a fraction", `0.0`, unknown, revocation.Unknown},
		{"minus zero", `-0`, unknown, revocation.Unknown},
		{"null", `null`, unknown, revocation.Unknown},
		{"blank", `" "`, unknown, revocation.Unknown},
		{"never", `9223372036854775807`, revocation.Never, revocation.Forever},
		{"never as a string", `"9223372036854775807"`, revocation.Never, revocation.Forever},
		{"beyond 64 bits", `92233720368547758080`, revocation.Never, revocation.Forever},
		{"never after a double", `9.223372036854776E18`, revocation.Never, revocation.Forever},
		{"99 years ahead", fmt.Sprint(at.AddDate(99, 0, 0).UnixMilli()), at.AddDate(99, 0, 0).UnixMilli(), revocation.Dated},
		{"101 years ahead", fmt.Sprint(at.AddDate(101, 0, 0).UnixMilli()), revocation.Never, revocation.Forever},
		{"101 years ahead in seconds", fmt.Sprint(at.AddDate(101, 0, 0).Unix()), revocation.Never, revocation.Forever},
		{"the last second of its unit", `99999999999`, revocation.Never, revocation.Forever},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := decodeOne(payloadData(`"revokedToken":"a","type":"JWT","expiryTime":`+tt.value), messaging.StatusRevoked)
			if err != nil {
				t.Fatal(err)
			}
			r := e.Revocation(messaging.Dating{State: revocation.Revoked, At: at, UnknownLife: unknownLife})
			if r.Expiry != tt.expiry || r.Lifetime != tt.lifetime {
				t.Errorf("got %d %s, want %d %s", r.Expiry, r.Lifetime, tt.expiry, tt.lifetime)
			}
		})
	}
}

func TestRevocationOfAnEvent(t *testing.T) {
	at := time.UnixMicro(1_700_000_000_000_001)
	e := token("a", revocation.KindAPIKey, "API_KEY")
	e.ID, e.Tenant, e.Expiry, e.Lifetime = "e1", "-1234", 1_800_000_000_000, revocation.Dated
	dating := messaging.Dating{State: revocation.Approved, Source: messaging.SourceAMQP, At: at, Came: at, UnknownLife: time.Hour}
	r := e.Revocation(dating)
	if r.Domain != e.Domain || r.Key != "a" || r.Digest != e.Digest || r.State != revocation.Approved ||
		r.Kind != revocation.KindAPIKey || r.Expiry != e.Expiry || r.Time != at.UnixMicro() || r.Tenant != "-1234" || r.Source != "amqp" {
		t.Errorf("got %+v of %+v", r, e)
	}
	if len(r.Events) != 1 || r.Events[0] != (revocation.Event{ID: "e1", Time: at.UnixMicro(), State: revocation.Approved, Source: "amqp"}) {
		t.Errorf("events %+v, want e1 alone", r.Events)
	}
	e.ID = ""
	if r := e.Revocation(dating); r.Events != nil {
		t.Errorf("an event without an id is listed: %+v", r.Events)
	}
	dating.Came = time.Time{}
	if r := e.Revocation(dating); r.Time != 0 {
		t.Errorf("what has no time happened at %d", r.Time)
	}
}

func TestDecodeEventRefusesWithoutQuoting(t *testing.T) {
	const tokenMember = `"revokedToken":"` + secret + `"`
	b64 := base64.StdEncoding.EncodeToString([]byte(`{"consumer_key":"` + secret + `","revocationTime":"1716000000000"}`))
	enc := base64.RawURLEncoding.EncodeToString
	noID := enc([]byte(`{"alg":"RS256"}`)) + "." + enc([]byte(`{"sub":"`+secret+`"}`)) + "." + secret
	nested := enc([]byte(`{"alg":"RS256"}`)) + "." + enc([]byte(`{"jti":"eyJ.`+secret+`.x.y"}`)) + ".x"
	tests := []struct{ name, event string }{
		{"nothing", ``},
		{"no JSON", secret},
		{"null", `null`},
		{"an array", `["` + secret + `"]`},
		{"a string", `"` + secret + `"`},
		{"cut off", `{"event":{"payloadData":{` + tokenMember},
		{"a second value", string(payloadData(tokenMember)) + `{}`},
		{"trailing garbage", string(payloadData(tokenMember)) + ` ` + secret},
		{"no event", `{` + tokenMember + `}`},
		{"an event in another case", `{"Event":{"payloadData":{` + tokenMember + `}}}`},
		{"a null event", `{"event":null}`},
		{"an event that is a string", `{"event":"` + secret + `"}`},
		{"no payloadData", `{"event":{` + tokenMember + `}}`},
		{"a payloadData in another case", `{"event":{"PayloadData":{` + tokenMember + `}}}`},
		{"a payloadData that is an array", `{"event":{"payloadData":["` + secret + `"]}}`},
		{"no token", string(payloadData(`"type":"JWT"`))},
		{"a token in another case", string(payloadData(`"RevokedToken":"` + secret + `"`))},
		{"a blank token", string(payloadData(`"revokedToken":""`))},
		{"a null token", string(payloadData(`"revokedToken":null`))},
		{"a token that is an object", string(payloadData(`"revokedToken":{"a":"` + secret + `"}`))},
		{"a token that is a list", string(payloadData(`"revokedToken":["` + secret + `"]`))},
		{"a token that is true", string(payloadData(`"revokedToken":true`))},
		{"a jti that names a digest", string(payloadData(`"revokedToken":"sha256:` + secret + `","type":"JWT"`))},
		{"a jti that is too long", string(payloadData(`"revokedToken":"` + secret + strings.Repeat("x", 2048) + `","type":"JWT"`))},
		{"a JWT without jti", string(payloadData(`"revokedToken":"` + noID + `","type":"JWT"`))},
		{"a damaged JWT", string(payloadData(`"revokedToken":"eyJ.` + secret + `.x","type":"JWT"`))},
		{"a damaged API key", string(payloadData(`"revokedToken":"eyJ.` + secret + `.x","type":"API_KEY"`))},
		{"a damaged JWT after a blank", string(payloadData(`"revokedToken":" ` + accessToken + `","type":"JWT"`))},
		{"an encrypted JWT", string(payloadData(`"revokedToken":"eyJ.a.b.` + secret + `.c","type":"JWT"`))},
		{"a JWT whose jti looks like one", string(payloadData(`"revokedToken":"` + nested + `","type":"JWT"`))},
		{"an unknown type", string(payloadData(tokenMember + `,"type":"` + secret + `"`))},
		{"a type that is a list", string(payloadData(tokenMember + `,"type":["JWT"]`))},
		{"a rule that is no base64", string(payloadData(tokenMember + `,"type":"consumer_app_revocation_event"`))},
		{"a rule of another kind of entity", string(payloadData(`"revokedToken":"` + b64 + `","type":"subject_entity_revocation_event"`))},
		{"another status", string(payloadData(tokenMember + `,"status":"` + secret + `"`))},
		{"an event id that is an object", string(payloadData(tokenMember + `,"eventId":{"a":"` + secret + `"}`))},
		{"an event id that is too long", string(payloadData(tokenMember + `,"eventId":"` + strings.Repeat(secret, 50) + `"`))},
		{"a tenant that is too long", string(payloadData(tokenMember + `,"tenantId":"` + strings.Repeat(secret, 30) + `"`))},
		{"a negative expiry", string(payloadData(tokenMember + `,"expiryTime":-1628175421481`))},
		{"a negative expiry as a string", string(payloadData(tokenMember + `,"expiryTime":"-1"`))},
		{"a fraction", string(payloadData(tokenMember + `,"expiryTime":1628175421.5`))},
		{"a word for the expiry", string(payloadData(tokenMember + `,"expiryTime":"` + secret + `"`))},
		{"a hexadecimal expiry", string(payloadData(tokenMember + `,"expiryTime":"0x17B"`))},
		{"a quotient", string(payloadData(tokenMember + `,"expiryTime":"10/2"`))},
		{"an expiry with separators", string(payloadData(tokenMember + `,"expiryTime":"1_628_175"`))},
		{"an infinite expiry", string(payloadData(tokenMember + `,"expiryTime":"Infinity"`))},
		{"an exponent that costs memory", string(payloadData(tokenMember + `,"expiryTime":"1e999999999"`))},
		{"an expiry of many digits", string(payloadData(tokenMember + `,"expiryTime":` + strings.Repeat("9", 41)))},
		{"an expiry that is an object", string(payloadData(tokenMember + `,"expiryTime":{}`))},
		{"an expiry that is true", string(payloadData(tokenMember + `,"expiryTime":true`))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := decodeOne([]byte(tt.event), messaging.StatusRevoked)
			if !errors.Is(err, messaging.ErrEvent) {
				t.Fatalf("got %+v, %v, want it refused", e, err)
			}
			for _, quoted := range []string{secret, b64[:16], noID[:16], accessToken[:16]} {
				if strings.Contains(err.Error(), quoted) {
					t.Errorf("the error quotes the event: %v", err)
				}
			}
		})
	}
}

// FuzzDecodeEvent: no event makes DecodeEvent panic or quote it, and what is
// decoded means the same when it is announced again.
func FuzzDecodeEvent(f *testing.F) {
	f.Add([]byte(`{"event":{"payloadData":{"eventId":"444d2f9b","revokedToken":"s3cr3t-fc8ee897","ttl":"5000","expiryTime":1628175421481,"type":"Default","tenantId":-1234}}}`))
	f.Add(payloadData(`"revokedToken":"s3cr3t","type":"JWT","expiryTime":1.628175421481E12,"status":"revoked"`))
	f.Add(payloadData(`"revokedToken":"` + accessToken + `","type":"JWT","expiryTime":"1628175421"`))
	f.Add(payloadData(`"revokedToken":"` + apiKey + `","type":"API_KEY","expiryTime":9223372036854775807`))
	f.Add(payloadData(`"revokedToken":"s3cr3t","expiryTime":92233720368547758080`))
	f.Add(payloadData(`"revokedToken":"eyJ.s3cr3t.x","type":"JWT"`))
	f.Add(payloadData(`"revokedToken":{"a":"s3cr3t"},"type":"s3cr3t","eventId":"s3cr3t"`))
	f.Fuzz(func(t *testing.T, data []byte) {
		call, err := messaging.DecodeEvent(data, messaging.StatusRevoked, rules())
		if err != nil {
			if !errors.Is(err, messaging.ErrEvent) || strings.Contains(err.Error(), secret) {
				t.Fatalf("the error is no ErrEvent, or quotes the event: %v", err)
			}
			return
		}
		if len(call.Events) != 1 || call.Events[0].Domain == revocation.DomainRule || call.Type != call.Events[0].Type {
			return // FuzzDecodeInner
		}
		e := call.Events[0]
		again, err := decodeOne(announce(t, e), messaging.StatusRevoked)
		if strings.Count(e.Key, ".") == 2 {
			return // a jti that is a JWT is read once more
		}
		at := messaging.Dating{State: revocation.Revoked, At: time.UnixMilli(1_700_000_000_000), UnknownLife: time.Hour}
		got, want := again.Revocation(at), e.Revocation(at)
		if !reflect.DeepEqual(got, want) || err != nil {
			t.Fatalf("announced again %+v is %+v, %v", want, got, err)
		}
	})
}

func announce(t *testing.T, e messaging.Event) []byte {
	t.Helper()
	a := messaging.Announcement{
		EventID: e.ID, RevokedToken: e.Key, ExpiryTime: e.Expiry, Type: e.Type, TenantID: e.Tenant,
	}
	if e.Domain.Secret() {
		a.RevokedToken = revocation.NamePrefix + e.Digest.String()
	}
	if a.ExpiryTime < 100_000_000_000 { // it came in seconds
		a.ExpiryTime /= 1000
	}
	data, err := json.Marshal(map[string]any{"event": map[string]any{"payloadData": a}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// until is e with the expiry that the token itself carries.
func until(e messaging.Event, expiry int64, life revocation.Lifetime) messaging.Event {
	e.Expiry, e.Lifetime = expiry, life
	return e
}
