package messaging_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// compact is a whole JWT with a jti, which expires in an hour.
func compact(jti, signature string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256"}`)) + "." +
		encode(fmt.Appendf(nil, `{"jti":%q,"exp":%d}`, jti, inAnHour()/1000)) + "." + signature
}

// issuedEvents are events of tokens that were issued, each of which holds a secret.
// Those whose name begins with dead are not understood.
func issuedEvents() map[string]fields {
	refresh := planted + "-refresh"
	return map[string]fields{
		"opaque":                               {"accessToken": planted, "refreshToken": refresh, "expiryTime": inAnHour()},
		"opaque, by other names":               {"revokedToken": planted + "1", "refresh_token": refresh + "1", "type": "Default"},
		"a whole JWT":                          {"access_token": compact("jti-a", planted), "refreshToken": refresh},
		"a whole JWT, said to be none":         {"accessToken": compact("jti-b", planted), "refreshToken": refresh, "type": "Default"},
		"a jti":                                {"accessToken": "jti-c", "refreshToken": refresh, "type": "JWT"},
		"other members that hold it":           {"accessToken": "jti-d", "refreshToken": refresh, "type": "JWT", "id_token": planted},
		"expired":                              {"accessToken": planted, "refreshToken": refresh, "expiryTime": 1_628_175_421_481},
		"dead: no access token":                {"refreshToken": refresh},
		"dead: a negative expiry":              {"accessToken": planted, "refreshToken": refresh, "expiryTime": -1},
		"dead: a negative expiry too":          {"accessToken": planted, "refreshToken": refresh, "refreshExpiryTime": -1},
		"dead: a type of no token":             {"accessToken": planted, "refreshToken": refresh, "type": "x"},
		"dead: a refresh token that is a list": {"accessToken": planted, "refreshToken": []string{refresh}},
		"dead: an access token that is a list": {"accessToken": []string{planted}, "refreshToken": refresh},
		"dead: a JWT without a jti":            {"accessToken": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0." + planted, "type": "JWT"},
		"dead: a token for a user":             {"accessToken": "jti-e", "type": "JWT", "user": "eyJh.eyJi." + planted},
		"dead: a token for a client":           {"accessToken": "jti-e", "type": "JWT", "client_id": "eyJh.eyJi." + planted},
		"dead: no JWT under that type":         {"accessToken": "a.b." + planted, "type": "JWT", "expiryTime": -1},
	}
}

// A token that was issued is found by its refresh token, however its event spells
// things.
func TestGrantsOfEvents(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	later := inTwoHours().UnixMilli()
	for name, tt := range map[string]struct {
		event  fields
		domain revocation.Domain
		key    string
	}{
		"JWT by its jti":   {fields{"accessToken": "jti-1", "type": "JWT"}, revocation.DomainToken, "jti-1"},
		"a whole JWT":      {fields{"access_token": compact("jti-2", "x")}, revocation.DomainToken, "jti-2"},
		"said to be none":  {fields{"revokedToken": compact("jti-3", "x"), "type": "Default"}, revocation.DomainToken, "jti-3"},
		"an API key":       {fields{"accessToken": "jti-4", "tokenType": "API_KEY", "type": "token_issued"}, revocation.DomainToken, "jti-4"},
		"jti of its own":   {fields{"jti": "jti-5"}, revocation.DomainToken, "jti-5"},
		"an opaque token":  {fields{"accessToken": "opaque-6"}, revocation.DomainOpaque, ""},
		"opaque by a name": {fields{"token": revocation.NamePrefix + messaging.OpaqueDigest("opaque-7").String()}, revocation.DomainOpaque, ""},
	} {
		t.Run(name, func(t *testing.T) {
			refresh := "refresh of " + name
			for key, value := range map[string]any{
				"eventId": "e", "refreshToken": refresh, "expiryTime": inAnHour(), "refreshExpiryTime": fmt.Sprint(later),
				"consumerKey": "client-1", "user": "alice", "tenantId": -1234,
			} {
				tt.event[key] = value
			}
			r.publish(t, messaging.SubjectIssued, tt.event.event())
			r.settle(t)
			got, err := messaging.NewGrants(r.hub).Refresh(t.Context(), messaging.RefreshDigest(refresh))
			if err != nil || len(got.Access) != 1 || got.Client != "client-1" || got.Subject != "alice" || got.Tenant != "-1234" || got.Refresh.Expiry != later {
				t.Fatalf("got %+v, %v", got, err)
			}
			if a := got.Access[0]; a.Domain != tt.domain || a.Key != tt.key || time.Until(time.UnixMilli(a.Expiry)) > time.Hour {
				t.Errorf("got %+v", a)
			}
		})
	}
	if letters := r.deadLetters(t); len(letters) != 0 {
		t.Errorf("dead letters %v", letters)
	}
	if got := r.outcomes(t); got["stored"] != 7 || len(got) != 1 {
		t.Errorf("outcomes %v", got)
	}
}

// Hundreds of events are taken together, some of the same refresh token; the same
// again changes nothing.
func TestGrantsOfManyEvents(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	for range 2 {
		for i := range 300 {
			r.publish(t, messaging.SubjectIssued, fields{
				"accessToken": fmt.Sprint("jti-", i), "type": "JWT", "refreshToken": fmt.Sprint("refresh-", i/3), "expiryTime": 4_000_000_000_000,
			}.event())
		}
		r.settle(t)
	}
	grants := messaging.NewGrants(r.hub)
	for i := range 100 {
		if got, err := grants.Refresh(t.Context(), messaging.RefreshDigest(fmt.Sprint("refresh-", i))); len(got.Access) != 3 || err != nil {
			t.Errorf("refresh-%d has %d, %v", i, len(got.Access), err)
		}
	}
	if got := r.outcomes(t); got["stored"] != 300 || got["duplicate"] != 300 {
		t.Errorf("outcomes %v", got)
	}
}

// What the registry has no room for is a dead letter without a token, does not hold
// back what is revoked, and is put when it is replayed.
func TestGrantsOfEventsThatAreRefused(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	cfg.Limits.MaxGrants = 2
	r := start(t, cfg)
	for _, n := range []string{"1", "2"} {
		r.publish(t, messaging.SubjectIssued, fields{"accessToken": secret + n, "refreshToken": secret + "-r" + n, "expiryTime": inAnHour()}.event())
		r.settle(t)
	}
	r.publish(t, messaging.SubjectIssued, fields{"accessToken": compact("jti-3", secret), "refreshToken": secret + "-r3", "expiryTime": 1}.event())
	r.publish(t, messaging.SubjectRevocation, jwtEvent("e1", "jti-1"))
	r.settle(t)
	letters := r.deadLetters(t)
	if len(letters) != 2 || strings.Contains(string(letters[1].Event), secret) || !strings.Contains(letters[0].Reason, "full") || strings.Contains(string(letters[0].Event), secret) {
		t.Fatalf("dead letters %+v", letters)
	}
	if r.held()["jti-1"] != revocation.Revoked || len(r.book.find(logrus.ErrorLevel, "The grant of a token that was issued goes to the dead letters")) != 2 {
		t.Errorf("held %v", r.held())
	}
	r.stop()
	again := prepare(t, r.sameHub())
	again.cfg.Limits.MaxGrants = 10
	roomy := start(t, again.cfg)
	roomy.replay(t)
	got, err := messaging.NewGrants(roomy.hub).Refresh(t.Context(), messaging.RefreshDigest(secret+"-r2"))
	if err != nil || len(got.Access) != 1 || got.Access[0].Digest != messaging.OpaqueDigest(secret+"2") {
		t.Errorf("replayed: %+v, %v", got, err)
	}
	got, err = messaging.NewGrants(roomy.hub).Refresh(t.Context(), messaging.RefreshDigest(secret+"-r3"))
	if err != nil || len(got.Access) != 1 || got.Access[0].Key != "jti-3" || got.Access[0].Kind != revocation.KindJWT {
		t.Errorf("replayed: %+v, %v", got, err)
	}
	if _, err := messaging.NewGrants(roomy.hub).Refresh(t.Context(), messaging.RefreshDigest(secret+"-r4")); !errors.Is(err, messaging.ErrNoGrant) {
		t.Errorf("got %v", err)
	}
}

// Whatever is understood is understood the same after it was redacted, and no
// error quotes a token.
func FuzzIssued(f *testing.F) {
	for _, e := range issuedEvents() {
		f.Add(e.event())
	}
	f.Add(fields{"jti": "a", "refreshToken": planted, "expiryTime": "1.628175421481E12", "tenantId": -1234}.event())
	f.Fuzz(func(t *testing.T, data []byte) {
		kept := messaging.RedactIssued(data)
		g, err := messaging.ReadIssued(data)
		if err != nil {
			if strings.Contains(err.Error(), planted) {
				t.Fatalf("%v quotes a token of %s", err, data)
			}
			return
		}
		again, err := messaging.ReadIssued(kept)
		for i, e := range []int64{g.Access.Expiry, g.Refresh.Expiry} { // long ago, in fractions of a second
			if at := []*int64{&again.Access.Expiry, &again.Refresh.Expiry}[i]; 0 < e && e < 100_000_000_000 && *at-e < 1000 && *at >= e {
				*at = e
			}
		}
		if again != g || err != nil {
			t.Fatalf("%s is\n%+v, redacted\n%s is\n%+v, %v", data, g, kept, again, err)
		}
	})
}

// A stored grant that is read is written as it was read.
func FuzzDecodeGrant(f *testing.F) {
	g := jwtGrant("jti-1", "refresh")
	data, err := messaging.EncodeGrant(g)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("\x08\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = messaging.DecodeRefreshGrant(data) // it must not panic
		g, err := messaging.DecodeGrant(data)
		if err != nil {
			if !errors.Is(err, messaging.ErrRecord) && !errors.Is(err, messaging.ErrNewerFormat) {
				t.Fatalf("the error is none of ours: %v", err)
			}
			return
		}
		again, err := messaging.EncodeGrant(g)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := messaging.DecodeGrant(again); got != g || err != nil {
			t.Fatalf("read %+v, written and read %+v, %v", g, got, err)
		}
	})
}
