package integration_test

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func TestEventReachesEveryGateway(t *testing.T) {
	a := startAdapter(t)
	var gateways []*gateway
	for _, protocol := range []string{rtds, sotw, delta} {
		gateways = append(gateways, connectGateway(t, a, protocol, ""))
	}
	a.publish(t, event("fc8ee897-b3d9-3bb6-a9ca-f4aeb036e5c0", inAnHour()))
	for _, g := range gateways {
		g.awaits(t, "fc8ee897-b3d9-3bb6-a9ca-f4aeb036e5c0")
	}
}

func TestAcknowledgedPaths(t *testing.T) {
	a := startAdapter(t)
	g := connectGateway(t, a, rtds, "")
	conn := a.connect(t)
	reply, err := conn.Request("tokenRevocation", []byte(envelope(event("by-request", inAnHour()))), patience)
	if err != nil {
		t.Fatal(err)
	}
	var ack struct {
		Stream string
		Seq    uint64
	}
	if err := json.Unmarshal(reply.Data, &ack); err != nil || ack.Stream != "INGEST" || ack.Seq == 0 {
		t.Errorf("the reply is %q, want the acknowledgement of INGEST", reply.Data)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	published, err := js.Publish(t.Context(), "tokenRevocation", []byte(envelope(event("by-jetstream", inAnHour()))))
	if err != nil || published.Stream != "INGEST" {
		t.Errorf("JetStream publish: %+v, %v", published, err)
	}
	if code, out, errOut := a.run(t, "revoke", "by-command-line", "--expires-in", "1h"); code != 0 {
		t.Errorf("adapter revoke: exit %d, %s%s", code, out, errOut)
	}
	g.awaits(t, "by-request", "by-jetstream", "by-command-line")
}

func TestTokenTypes(t *testing.T) {
	a := startAdapter(t)
	g := connectGateway(t, a, rtds, "")
	expires := inAnHour().Truncate(time.Second)
	for _, payload := range []string{
		fmt.Sprintf(`{"eventId":"1","revokedToken":"jwt-ms","expiryTime":%d,"type":"JWT"}`, expires.UnixMilli()),
		fmt.Sprintf(`{"eventId":"2","revokedToken":"key-seconds","expiryTime":%d,"type":"API_KEY","tenantId":-1234}`, expires.Unix()),
		fmt.Sprintf(`{"eventId":"3","revokedToken":"jwt-text","expiryTime":"%d","type":"JWT","tenantId":"-1234"}`, expires.UnixMilli()),
		`{"eventId":"4","revokedToken":"key-never","expiryTime":9223372036854775807,"type":"API_KEY"}`,
		`{"eventId":"5","revokedToken":"jwt-unknown","expiryTime":0,"type":"JWT"}`,
		fmt.Sprintf(`{"eventId":"6","revokedToken":"opaque-secret-1","expiryTime":%d,"type":"Default"}`, expires.UnixMilli()),
		fmt.Sprintf(`{"eventId":"7","revokedToken":"opaque-secret-2","expiryTime":%d}`, expires.UnixMilli()),
	} {
		a.publish(t, payload)
	}
	g.awaits(t, "jwt-ms", "key-seconds", "jwt-text", "key-never", "jwt-unknown")
	eventually(t, "7 tokens", func() bool { held, _ := g.count(); return held == 7 })
	for jti, want := range map[string]int64{
		"jwt-ms": expires.UnixMilli(), "key-seconds": expires.UnixMilli(), "jwt-text": expires.UnixMilli(), "key-never": math.MaxInt64,
	} {
		if got, _ := g.expiry(jti); got != want {
			t.Errorf("%s expires at %d, want %d", jti, got, want)
		}
	}
	unknown, _ := g.expiry("jwt-unknown")
	if left := time.Until(time.UnixMilli(unknown)); left < 89*24*time.Hour || left > 91*24*time.Hour {
		t.Errorf("what has no known expiry is kept %s, want 90 days", left)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for jti := range g.held {
		if strings.Contains(jti, "opaque-secret") {
			t.Errorf("an opaque token is served as it is: %s", jti)
		}
	}
}

func TestLogLines(t *testing.T) {
	a := startAdapter(t)
	g := connectGateway(t, a, rtds, "")
	a.publish(t, event("logged", inAnHour()))
	g.awaits(t, "logged")
	const begin = `(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d `
	for _, line := range []string{
		begin + `INFO \[revoked_token_listener\.go:\d+\] - \[messaging\.handleTokenRevocation\] \[-\] Event JWT is received \[\]$`,
		begin + `DEBG \[revoked_token_listener\.go:\d+\] - \[messaging\.handleTokenRevocation\] \[-\] RevokedToken: \*+, Token Type: JWT \[\]$`,
		begin + `INFO \[server\.go:\d+\] - \[xds\.UpdateEnforcerRevokedTokens\] \[-\] New Revoked token cache update for the label: commonEnforcerLabel version: ` + g.acked() + ` \[\]$`,
	} {
		eventually(t, "a log line "+line, func() bool { return regexp.MustCompile(line).MatchString(a.log.String()) })
	}
	form := regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (PANC|FATL|ERRO|WARN|INFO|DEBG) \[\S+:\d+\] - \[\w+\.\w+\] \[-\] .+ \[.*\]$`)
	for line := range strings.Lines(a.log.String()) {
		if !form.MatchString(strings.TrimRight(line, "\n")) {
			t.Errorf("a line of another form: %q", line)
		}
	}
}

func TestDeadLetters(t *testing.T) {
	a := startAdapter(t)
	g := connectGateway(t, a, rtds, "")
	bad := map[string]string{
		"negative":         `{"eventId":"1","revokedToken":"dead-jti-1","expiryTime":-5,"type":"JWT"}`,
		"of unknown type":  `{"eventId":"2","revokedToken":"dead-jti-2","expiryTime":0,"type":"NO_SUCH_TYPE"}`,
		"a rule":           `{"eventId":"3","revokedToken":"eyJjb25zdW1lcl9rZXkiOiJhIn0=","expiryTime":0,"type":"consumer_app_revocation_event"}`,
		"of other status":  `{"eventId":"4","revokedToken":"dead-jti-4","expiryTime":0,"type":"JWT","status":"approved"}`,
		"without a token":  `{"eventId":"5","expiryTime":0,"type":"JWT"}`,
		"not even a event": `"dead-jti-6"`,
	}
	for _, payload := range bad {
		a.publish(t, payload)
	}
	a.publish(t, event("good-one", inAnHour()))
	g.awaits(t, "good-one")
	var list string
	eventually(t, "all dead letters are listed", func() bool {
		_, list, _ = a.run(t, "deadletter", "list", "--json")
		return strings.Count(list, "\n") == len(bad)
	})
	var first struct {
		Sequence        uint64
		Reason, Subject string
	}
	if err := json.NewDecoder(strings.NewReader(list)).Decode(&first); err != nil || first.Reason == "" || first.Subject != "tokenRevocation" {
		t.Errorf("the first of the list is %+v, %v", first, err)
	}
	code, shown, _ := a.run(t, "deadletter", "show", fmt.Sprint(first.Sequence))
	if code != 0 || !strings.Contains(shown, first.Reason) || !strings.Contains(shown, "event") {
		t.Errorf("show: exit %d, %s", code, shown)
	}
	if strings.Contains(a.log.String(), "dead-jti") {
		t.Error("the log names a token of a dead letter")
	}
	if n := strings.Count(a.log.String(), " ERRO ["); n != len(bad) {
		t.Errorf("%d ERRO lines, want %d", n, len(bad))
	}
	if held, _ := g.count(); held != 1 {
		t.Errorf("the gateway holds %d tokens, want the good one", held)
	}
}

func TestExpiredAndDuplicate(t *testing.T) {
	a := startAdapter(t)
	g := connectGateway(t, a, rtds, "")
	payload := event("once", inAnHour())
	a.publish(t, payload)
	g.awaits(t, "once")
	before := g.acked()
	a.publish(t, payload)
	a.publish(t, event("long-gone", time.Now().Add(-time.Hour)))
	eventually(t, "both were handled", func() bool {
		_, metrics := a.get(t, "/metrics")
		return strings.Contains(metrics, `revocation_adapter_events_total{kind="jwt",outcome="duplicate",source="nats_revocation"} 1`) &&
			strings.Contains(metrics, `revocation_adapter_events_total{kind="jwt",outcome="expired",source="nats_revocation"} 1`)
	})
	if g.acked() != before {
		t.Errorf("version %s after a duplicate and an expired event, was %s", g.acked(), before)
	}
	a.publish(t, event("in-grace", time.Now().Add(-5*time.Minute)))
	g.awaits(t, "in-grace")
	if g.holds("long-gone") {
		t.Error("an expired event was served")
	}
}

func TestReApproval(t *testing.T) {
	a := startAdapter(t)
	d, r := connectGateway(t, a, delta, ""), connectGateway(t, a, rtds, "")
	for _, jti := range []string{"comes-back", "stays"} {
		a.publish(t, event(jti, inAnHour()))
	}
	d.awaits(t, "comes-back", "stays")
	if code, out, errOut := a.run(t, "approve", "comes-back"); code != 0 {
		t.Fatalf("approve: exit %d, %s%s", code, out, errOut)
	}
	eventually(t, "the delta gateway accepts it again", func() bool { return !d.holds("comes-back") })
	late := connectGateway(t, a, rtds, "")
	late.awaits(t, "stays")
	if late.holds("comes-back") {
		t.Error("a gateway that connects now still refuses it")
	}
	// A retry of the first event is no new revocation, another event is.
	a.publish(t, event("comes-back", inAnHour()))
	a.publish(t, strings.Replace(event("comes-back", inAnHour()), "e-comes-back", "e-again", 1))
	d.awaits(t, "comes-back")
	r.awaits(t, "comes-back", "stays")
}

func TestLateGatewayLearnsAll(t *testing.T) {
	a := startAdapter(t)
	early := connectGateway(t, a, rtds, "")
	var all []string
	for i := range 50 {
		all = append(all, fmt.Sprint("token-", i))
		a.publish(t, event(all[i], inAnHour()))
	}
	early.awaits(t, all...)
	for _, protocol := range []string{rtds, sotw, delta} {
		connectGateway(t, a, protocol, "").awaits(t, all...)
	}
}
