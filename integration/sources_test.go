package integration_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rabbitmq/amqp091-go"

	"revocation-adapter/integration/rabbitmq"
)

// controlPlane answers what it is told.
type controlPlane struct {
	*httptest.Server
	asked  atomic.Int64
	answer atomic.Value // string; "": 500
}

func startControlPlane(t *testing.T, answer string) *controlPlane {
	t.Helper()
	p := &controlPlane{}
	p.answer.Store(answer)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		text, _ := p.answer.Load().(string)
		user, password, _ := r.BasicAuth()
		switch {
		case user != "admin" || password != "hunter2" || r.URL.Path != "/internal/data/v1/revokedjwt":
			w.WriteHeader(http.StatusUnauthorized)
		case text == "":
			w.WriteHeader(http.StatusInternalServerError)
		default:
			_, _ = io.WriteString(w, text)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *controlPlane) section(more string) string {
	return fmt.Sprintf("[control_plane]\nurl = %q\nusername = \"admin\"\npassword = \"hunter2\"\n%s\n", p.URL, more)
}

func revokedList(jtis ...string) string {
	var entries []string
	for _, jti := range jtis {
		entries = append(entries, fmt.Sprintf(`{"jwt_signature":%q,"expiry_time":%d}`, jti, inAnHour().UnixMilli()))
	}
	return "[" + strings.Join(entries, ",") + "]"
}

func startWith(t *testing.T, rest string) *adapter {
	t.Helper()
	a := newAdapter(t, map[string]string{"rest": rest})
	a.start(t)
	a.awaitReady(t)
	return a
}

func startBroker(t *testing.T) *rabbitmq.Server {
	t.Helper()
	b, err := rabbitmq.Start(t.Context(), rabbitmq.Options{Dir: t.TempDir()})
	if errors.Is(err, rabbitmq.ErrMissing) {
		missing(t, "rabbitmq-server")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// publishAMQP publishes as API-M does.
func publishAMQP(t *testing.T, b *rabbitmq.Server, payload string) {
	t.Helper()
	conn, err := b.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	channel, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := channel.PublishWithContext(t.Context(), "amq.topic", "tokenRevocation", false, false,
		amqp091.Publishing{ContentType: "text/plain", Body: []byte(envelope(payload))}); err != nil {
		t.Fatal(err)
	}
}

// sources is what the adapter says of its sources, by name.
func (a *adapter) sources(t *testing.T) map[string]sourceStatus {
	t.Helper()
	_, body := a.get(t, "/sources")
	var list []sourceStatus
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		t.Fatalf("/sources: %v: %s", err, body)
	}
	all := map[string]sourceStatus{}
	for _, s := range list {
		all[s.Name] = s
	}
	return all
}

type sourceStatus struct {
	Name      string
	Connected bool
	Server    string
	Events    int
	LastEvent string  `json:"last_event"`
	Lag       float64 `json:"lag_seconds"`
	Errors    int
	LastError string `json:"last_error"`
}

func TestAMQPBroker(t *testing.T) {
	b, p := startBroker(t), startControlPlane(t, "[]")
	a := startWith(t, p.section("")+fmt.Sprintf("[amqp]\nbrokers = [\"amqp://guest:guest@clientid/?brokerlist='tcp://%s?retries='1'&connectdelay='100''\"]\n", b.Address))
	g := connectGateway(t, a, rtds, "")
	eventually(t, "the broker is connected", func() bool { return a.sources(t)["amqp"].Connected })
	publishAMQP(t, b, event("by-amqp", inAnHour()))
	publishAMQP(t, b, `"not an object"`)
	g.awaits(t, "by-amqp")
	eventually(t, "the other one is a dead letter", func() bool {
		_, stdout, _ := a.run(t, "deadletter", "list")
		return strings.Contains(stdout, "payloadData")
	})
	eventually(t, "the list is read after the connect", func() bool { return p.asked.Load() == 2 })
	b.Kill()
	eventually(t, "the broker is away", func() bool { return !a.sources(t)["amqp"].Connected })
	p.answer.Store(revokedList("published-meanwhile"))
	if err := b.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.awaits(t, "published-meanwhile")
	eventually(t, "the broker is connected again", func() bool { return a.sources(t)["amqp"].Connected })
	publishAMQP(t, b, event("after", inAnHour()))
	g.awaits(t, "by-amqp", "after")
	if strings.Contains(a.log.String(), "guest:") || strings.Contains(a.log.String(), "hunter2") {
		t.Errorf("a password is in the log:\n%s", a.log)
	}
}

func TestFullSync(t *testing.T) {
	p := startControlPlane(t, revokedList("from-list"))
	a := startWith(t, p.section(`interval = "1s"`))
	g := connectGateway(t, a, rtds, "")
	g.awaits(t, "from-list")
	p.answer.Store(`{"revokedJWTList":` + revokedList("newer-shape") + `,"revokedJWTConsumerKeyList":[],"revokedJWTSubjectEntityList":[]}`)
	g.awaits(t, "newer-shape")
	for _, bad := range []string{"", "[]", `{"error":"x"}`, "[{", "null"} {
		p.answer.Store(bad)
		before := p.asked.Load()
		eventually(t, "it is asked again", func() bool { return p.asked.Load() > before })
	}
	p.answer.Store(revokedList("after-all"))
	g.awaits(t, "from-list", "newer-shape", "after-all")
	eventually(t, "the failures are counted", func() bool {
		_, page := a.get(t, "/metrics")
		return !strings.Contains(page, `full_syncs_total{outcome="broken"} 0`) && strings.Contains(page, `full_syncs_total{outcome="refused"}`)
	})
	late := connectGateway(t, a, delta, "")
	late.awaits(t, "from-list", "newer-shape", "after-all")
}

func TestNotifyEndpoint(t *testing.T) {
	t.Setenv("NOTIFY_PASSWORD", "hunter2")
	p := startControlPlane(t, "[]")
	a := startWith(t, p.section("")+"[notify]\nusername = \"km\"\npassword = \"$env{NOTIFY_PASSWORD}\"\n")
	g := connectGateway(t, a, rtds, "")
	post := func(body, password string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
			"http://"+a.control+"/internal/data/v1/notify", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("km", password)
		req.Header.Set("X-WSO2-KEY-MANAGER", "default")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close() // the code says it
		return resp.StatusCode
	}
	one := `{"eventId":"e","type":"token_revocation","tokenType":"JWT","accessToken":"notified"}`
	for what, tc := range map[string]struct {
		body, password string
		want           int
	}{
		"wrong password": {one, "guess", http.StatusUnauthorized},
		"no event":       {`{"type":"x"}`, "hunter2", http.StatusBadRequest},
		"too large":      {strings.Repeat(" ", 5<<20), "hunter2", http.StatusRequestEntityTooLarge},
		"one":            {one, "hunter2", http.StatusOK},
	} {
		if code := post(tc.body, tc.password); code != tc.want {
			t.Errorf("%s: %d, want %d", what, code, tc.want)
		}
	}
	g.awaits(t, "notified")
	p.answer.Store(revokedList("reloaded"))
	if code := post(`{"type":"token_revocation_batch","consumerKey":"c"}`, "hunter2"); code != http.StatusOK {
		t.Errorf("a batch without a list: %d", code)
	}
	g.awaits(t, "reloaded")
	if strings.Contains(a.log.String(), "hunter2") || strings.Contains(a.log.String(), "notified") {
		t.Errorf("a password or a token is in the log:\n%s", a.log)
	}
}

func TestSourcesReported(t *testing.T) {
	p := startControlPlane(t, revokedList("listed"))
	a := startWith(t, p.section("")+"[amqp]\nbrokers = [\"amqp://bob:hunter2@127.0.0.1:1\", \"amqp://bob:hunter2@127.0.0.1:2\"]\n"+
		"[notify]\nusername = \"km\"\npassword = \"hunter2\"\n")
	a.publish(t, event("published", inAnHour()))
	all := a.sources(t)
	eventually(t, "the event and the list are reported", func() bool {
		all = a.sources(t)
		return all["nats"].Events == 1 && all["full-sync"].Events == 1 && all["full-sync"].Connected &&
			all["amqp-1"].Errors > 0 && all["amqp-2"].Errors > 0
	})
	if s := all["nats"]; !s.Connected || s.LastEvent == "" || s.Lag > patience.Seconds() || s.Errors != 0 {
		t.Errorf("nats: %+v", s)
	}
	if s := all["amqp-1"]; s.Connected || s.Errors == 0 || !strings.Contains(s.LastError, "127.0.0.1:1") {
		t.Errorf("amqp-1: %+v", s)
	}
	if !all["full-sync"].Connected || !all["notify"].Connected || len(all) != 5 {
		t.Errorf("got %+v", all)
	}
	code, table, _ := a.run(t, "sources")
	if code != 0 || !strings.Contains(table, "SOURCE") || strings.Count(table, "\n") != 6 || strings.Contains(table, "hunter2") {
		t.Errorf("adapter sources: %d\n%s", code, table)
	}
	var list []sourceStatus
	if code, text, _ := a.run(t, "sources", "--json"); code != 0 || json.Unmarshal([]byte(text), &list) != nil || len(list) != 5 {
		t.Errorf("adapter sources --json: %d\n%s", code, text)
	}
	if code, _, stderr := newAdapter(t, nil).run(t, "sources"); code != 3 || !strings.Contains(stderr, "is the adapter running?") {
		t.Errorf("adapter sources without an adapter: %d %s", code, stderr)
	}
}

func TestReadyAfterFullSync(t *testing.T) {
	p := startControlPlane(t, "")
	a := newAdapter(t, map[string]string{"rest": p.section("required_for_readiness = true")})
	a.start(t)
	g := connectGateway(t, a, rtds, "")
	eventually(t, "the control plane is asked twice", func() bool { return p.asked.Load() > 1 })
	if code, body := a.get(t, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "control plane") {
		t.Errorf("/readyz: %d %s", code, body)
	}
	p.answer.Store(revokedList("required"))
	g.awaits(t, "required")
	a.awaitReady(t)
}
