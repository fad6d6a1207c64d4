package integration_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// rulePayload is an event whose revokedToken is base64 of an object.
func rulePayload(id, typ, object string) string {
	return fmt.Sprintf(`{"eventId":%q,"type":%q,"expiryTime":0,"tenantId":-1234,"revokedToken":%q}`,
		id, typ, base64.StdEncoding.EncodeToString([]byte(object)))
}

// awaitEvents waits until so many events of a kind came to an end.
func (a *adapter) awaitEvents(t *testing.T, kind, outcome string, n int) {
	t.Helper()
	line := fmt.Sprintf("revocation_adapter_events_total{kind=%q,outcome=%q,source=\"nats_revocation\"} %d\n", kind, outcome, n)
	eventually(t, line, func() bool { _, page := a.get(t, "/metrics"); return strings.Contains(page, line) })
}

func TestRulesAreKept(t *testing.T) {
	a := startAdapter(t)
	g := connectGateway(t, a, rtds, "")
	ms := time.Now().UnixMilli()
	client := rulePayload("r1", "consumer_app_revocation_event", fmt.Sprintf(`{"consumer_key":"app","revocationTime":"%d"}`, ms))
	for _, payload := range []string{
		client,
		rulePayload("r2", "subject_entity_revocation_event", fmt.Sprintf(`{"entityId":"alice","entityType":"USER_ID","revocationTime":"%d"}`, ms)),
		rulePayload("r3", "claim_rule", fmt.Sprintf(`{"claim":"sid","value":"s1","issuedBefore":"%d"}`, ms)),
	} {
		a.publish(t, payload)
	}
	a.awaitEvents(t, "rule", "stored", 3)
	a.publish(t, rulePayload("r4", "claim_rule", `{"claim":"scope","value":"x","issuedBefore":"1716000000000"}`))
	a.awaitEvents(t, "unknown", "dead_letter", 1)
	a.publish(t, event("a-token", inAnHour()))
	g.awaits(t, "a-token")
	if held, _ := g.count(); held != 1 {
		t.Errorf("a gateway holds %d tokens, of which one is a rule", held)
	}
	if log := a.log.String(); !strings.Contains(log, "Event consumer_app_revocation_event is received []") || strings.Contains(log, "alice") {
		t.Errorf("the log: %s", log)
	}
	a.stop(t)
	a.start(t)
	a.awaitReady(t)
	a.publish(t, client)
	a.awaitEvents(t, "rule", "duplicate", 1)
}

func TestBatchOfManyTokens(t *testing.T) {
	a := startAdapter(t)
	g := connectGateway(t, a, rtds, "")
	all := make([]string, 10_000)
	for i := range all {
		all[i] = fmt.Sprintf("fc8ee897-b3d9-3bb6-a9ca-%012d", i)
	}
	list := `["` + strings.Join(all, `","`) + `"`
	a.publish(t, rulePayload("b1", "token_revocation_batch", `{"consumerKey":"app","revokedTokensList":`+list+`,{"jti":"x","expiryTime":-1}]}`))
	a.awaitEvents(t, "unknown", "dead_letter", 1)
	if held, _ := g.count(); held != 0 {
		t.Errorf("%d tokens of a batch that is not understood are revoked", held)
	}
	a.publish(t, rulePayload("b2", "token_revocation_batch", `{"consumerKey":"app","revokedTokensList":`+list+`]}`))
	a.awaitEvents(t, "batch", "stored", 1)
	g.awaits(t, all...)
	connectGateway(t, a, delta, "").awaits(t, all...)
	a.publish(t, rulePayload("b3", "token_revocation_batch", `{"consumerKey":"app"}`))
	a.awaitEvents(t, "batch", "reload", 1)
}

func TestRevokeByClaim(t *testing.T) {
	a := startAdapter(t)
	for _, args := range [][]string{
		{"revoke", "--claim", "sub=alice"}, {"approve", "--claim", "sub=alice"}, {"revoke", "--claim", "sub=alice", "--issued-before", "now", "--expires-in", "1h"},
	} {
		if code, out, errOut := a.run(t, args...); code != 0 || !strings.Contains(out, "sub=alice") {
			t.Errorf("%v: exit %d, %s%s", args, code, out, errOut)
		}
	}
	a.awaitEvents(t, "rule", "stored", 2)
	if _, list, _ := a.run(t, "deadletter", "list"); !strings.Contains(list, "No dead letters.") {
		t.Errorf("dead letters: %s", list)
	}
}

// A token, a rule and the tokens of a file may be a tenant's.
func TestRevokeForATenant(t *testing.T) {
	a := startAdapter(t)
	file := filepath.Join(t.TempDir(), "tokens.txt")
	if err := os.WriteFile(file, []byte("listed-1\nlisted-2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"single"}, {"--claim", "sub=alice"}, {"--file", file}} {
		a.command(t, append([]string{"revoke", "--tenant", "carbon.super"}, args...)...)
	}
	for _, name := range []string{"single", "sub=alice", "listed-1", "listed-2"} {
		eventually(t, name+" is carbon.super's", func() bool {
			_, out, _ := a.run(t, "explain", name)
			return strings.Contains(out, "carbon.super")
		})
	}
	for _, args := range [][]string{{"single"}, {"--file", file}} {
		code, _, errOut := a.run(t, append([]string{"revoke", "--tenant", strings.Repeat("x", 129)}, args...)...)
		if code != 2 || !strings.Contains(errOut, "--tenant is longer than 128 bytes") {
			t.Errorf("%v: exit %d, %s", args, code, errOut)
		}
	}
}

func TestOpaqueInEveryEvent(t *testing.T) {
	const secret = "opaque-41d0aa97-planted"
	a := startAdapter(t)
	list := func(more string) string {
		return `{"revokedTokensList":[{"accessToken":"` + secret + `","tokenType":"Default"}` + more + `]}`
	}
	a.publish(t, rulePayload("1", "token_revocation_batch", list("")))
	a.awaitEvents(t, "batch", "stored", 1)
	for _, payload := range []string{
		rulePayload("2", "token_revocation_batch", list(`,{"accessToken":"`+secret+`","expiryTime":-1}`)),
		rulePayload("3", "consumer_app_revocation_event", `{"consumer_key":"app","accessToken":"`+secret+`"}`),
		rulePayload("4", "WHO_KNOWS", list("")),
		`{"type":"token_revocation_batch","expiryTime":-1,"revokedToken":"` + secret + `"}`,
		`{"type":"token_revocation_batch","tokenRevocationEventList":"` + secret + `"}`,
	} {
		a.publish(t, payload)
	}
	a.awaitEvents(t, "unknown", "dead_letter", 5)
	_, metrics := a.get(t, "/metrics")
	shown := metrics + a.log.String()
	for i := 1; i <= 5; i++ {
		_, out, _ := a.run(t, "deadletter", "show", fmt.Sprint(i))
		shown += out
		for _, word := range strings.FieldsFunc(out, func(c rune) bool { return c == '"' }) {
			if raw, err := base64.StdEncoding.DecodeString(word); err == nil {
				shown += string(raw)
			}
		}
	}
	if !strings.Contains(shown, "consumer_key") || strings.Contains(shown, secret) {
		t.Errorf("an opaque token is shown, or nothing is: %s", shown)
	}
}
