package messaging_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

func TestNotifyBodies(t *testing.T) {
	now, expiry := time.Now().UnixMilli(), inAnHour()
	common := fmt.Sprintf(`"eventId":"e-1","timeStamp":%d,"tenantId":-1234,"tenantDomain":"carbon.super"`, now-1000)
	cases := map[string]struct {
		body   string
		domain revocation.Domain
		keys   []string // "" is an opaque token
		tenant string
	}{
		"a JWT by its jti": {
			`"type":"token_revocation","accessToken":"jti-1","tokenType":"JWT","consumerKey":"c","user":"u","expiryTime":` + fmt.Sprint(expiry),
			revocation.DomainToken,
			[]string{"jti-1"},
			"-1234",
		},
		"a whole JWT":     {`"type":"token_revocation","accessToken":"` + accessToken + `"`, revocation.DomainToken, []string{"4e330dbd-75c6-4ab5-a749-b9497aa3521a"}, "-1234"},
		"an opaque token": {`"type":"token_revocation","accessToken":"s3cr3t","tokenType":"Default"`, revocation.DomainOpaque, []string{""}, "-1234"},
		"of no type":      {`"type":"token_revocation","accessToken":"s3cr3t"`, revocation.DomainOpaque, []string{""}, "-1234"},
		"a client":        {fmt.Sprintf(`"type":"consumer_app_revocation_event","consumerKey":"c-1","revocationTime":"%d"`, now), revocation.DomainRule, []string{"azp=c-1"}, "-1234"},
		"a user": {
			fmt.Sprintf(`"type":"subject_entity_revocation_event","entityId":"u-1","entityType":"USER_ID","revocationTime":%d`, now),
			revocation.DomainRule,
			[]string{"sub=u-1"},
			"-1234",
		},
		"a batch": {
			`"type":"token_revocation_batch","consumerKey":"c","tokenRevocationEventList":[{"accessToken":"jti-1","tokenType":"JWT"},{"accessToken":"jti-2","tokenType":"JWT"}]`,
			revocation.DomainToken,
			[]string{"jti-1", "jti-2"},
			"-1234",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			call, err := messaging.DecodeNotification([]byte("{"+common+","+tc.body+"}"), rules())
			if err != nil || len(call.Events) != len(tc.keys) || call.Reload {
				t.Fatalf("got %+v, %v", call, err)
			}
			for i, e := range call.Events {
				if e.Domain != tc.domain || e.Key != tc.keys[i] || e.ID != "e-1" || e.Tenant != tc.tenant {
					t.Errorf("got %+v", e)
				}
				if want := now - 1000; e.Domain != revocation.DomainRule && e.Happened != want {
					t.Errorf("happened at %d, want %d", e.Happened, want)
				}
			}
		})
	}
	call, err := messaging.DecodeNotification([]byte(`{"type":"token_revocation_batch","consumerKey":"c"}`), rules())
	if err != nil || !call.Reload {
		t.Errorf("a batch without a list: %+v, %v", call, err)
	}
}

func TestNotifyRefuses(t *testing.T) {
	for name, body := range map[string]string{
		"nothing":           ``,
		"no object":         `["s3cr3t"]`,
		"two":               `{} {}`,
		"no type":           `{"accessToken":"s3cr3t"}`,
		"another type":      `{"type":"s3cr3t","accessToken":"s3cr3t"}`,
		"no token":          `{"type":"token_revocation","tokenType":"JWT"}`,
		"a broken JWT":      `{"type":"token_revocation","accessToken":"eyJ.s3cr3t.x","tokenType":"JWT"}`,
		"negative expiry":   `{"type":"token_revocation","accessToken":"s3cr3t","expiryTime":-1}`,
		"no client":         `{"type":"consumer_app_revocation_event","revocationTime":"1716000000000"}`,
		"no time":           `{"type":"consumer_app_revocation_event","consumerKey":"s3cr3t"}`,
		"no kind of entity": `{"type":"subject_entity_revocation_event","entityId":"s3cr3t","entityType":"s3cr3t","revocationTime":"1716000000000"}`,
		"a list of nothing": `{"type":"token_revocation_batch","tokenRevocationEventList":[{"x":"s3cr3t"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			call, err := messaging.DecodeNotification([]byte(body), rules())
			if !errors.Is(err, messaging.ErrEvent) || strings.Contains(err.Error(), secret) {
				t.Errorf("got %+v, %v", call, err)
			}
		})
	}
}

// What is stored is in the log when Notify returns, and known to the report.
func TestNotifyIsStored(t *testing.T) {
	r := start(t, embedded(t))
	report := messaging.NewSources(time.Now).Add(messaging.SourceNotify)
	body := fmt.Sprintf(`{"eventId":"e","type":"token_revocation","accessToken":"jti","tokenType":"JWT","expiryTime":%d}`, inAnHour())
	fatal(t, r.intake.Notify(t.Context(), []byte(body), report))
	if rec, _ := r.record(t, revocation.DomainToken, "jti"); rec.GetSource() != messaging.SourceNotify {
		t.Errorf("recorded %v", rec)
	}
	reloads := 0
	r.intake.Reload = func() { reloads++ }
	fatal(t, r.intake.Notify(t.Context(), []byte(`{"type":"token_revocation_batch"}`), report))
	if err := r.intake.Notify(t.Context(), []byte(`{}`), report); !errors.Is(err, messaging.ErrEvent) {
		t.Errorf("got %v", err)
	}
	if s := report.Status(); s.Events != 1 || s.Errors != 1 || reloads != 1 {
		t.Errorf("%d reloads, reported %+v", reloads, s)
	}
}

func FuzzNotification(f *testing.F) {
	f.Add([]byte(`{"type":"token_revocation","accessToken":"s3cr3t","tokenType":"s3cr3t","timeStamp":1716000000000}`))
	f.Add([]byte(`{"type":"subject_entity_revocation_event","entityId":"s3cr3t","entityType":"USER_ID","revocationTime":"1716000000000"}`))
	f.Add([]byte(`{"type":"token_revocation_batch","tokenRevocationEventList":[{"accessToken":"eyJ.s3cr3t.x","tokenType":"JWT"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		call, err := messaging.DecodeNotification(body, rules())
		if err == nil && call.Reload == (len(call.Events) > 0) {
			t.Fatalf("neither events nor a reload: %+v", call)
		}
		if err != nil && (!errors.Is(err, messaging.ErrEvent) || strings.Contains(err.Error(), secret)) {
			t.Fatalf("the error is no ErrEvent, or quotes the body: %v", err)
		}
	})
}
