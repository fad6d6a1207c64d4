package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sync/errgroup"

	"revocation-adapter/adapter/clients"
	"revocation-adapter/adapter/control"
	"revocation-adapter/adapter/control/openapitest"
	"revocation-adapter/adapter/issuers"
	"revocation-adapter/adapter/receipts"
	"revocation-adapter/config"
	"revocation-adapter/integration/stack"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
	"revocation-adapter/xds"
)

const (
	grace    = 10 * time.Minute
	patience = time.Minute
)

// The clients that every plane knows, all with the same secret.
const (
	secret    = "hunter2"
	owner     = "client-1" // of the tokens of stack.Issuer; it may revoke
	other     = "client-2" // may revoke its own
	everybody = "revokes-any"
	approver  = "approver"
	keeper    = "key-manager" // registers grants
	operator  = "operator"
	reader    = "reader" // may do nothing
)

func roles() map[string][]string {
	return map[string][]string{
		owner: {config.RoleRevoke}, other: {config.RoleRevoke}, everybody: {config.RoleRevokeAny},
		approver: {config.RoleApprove}, keeper: {config.RoleGrants}, reader: {"none"},
		operator: {config.RoleOperator, config.RoleRevokeAny, config.RoleApprove},
	}
}

// plane is a control port with everything behind it: a hub, its log, a server of
// gateways, and an issuer of tokens.
type plane struct {
	t      testing.TB
	url    string
	xds    string // where gateways connect
	hub    *messaging.Hub
	log    *revocation.Log
	grants *messaging.Grants
	issuer *stack.Issuer
	keys   string // path of the issuer's keys
	logged *stack.Output
	lines  *stack.Output // of the audit
	http   *http.Client
}

// plan is what a test changes.
type plan struct {
	api     func(*control.API)
	issuers func(*issuers.Config)
	clients func(*clients.Config)
}

func fatal(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// start starts a plane and waits until its log is complete.
func start(tb testing.TB, change plan) *plane {
	tb.Helper()
	p := &plane{t: tb, logged: &stack.Output{}, lines: &stack.Output{}, log: revocation.NewLog(grace), keys: filepath.Join(tb.TempDir(), "keys.json")}
	log := logrus.New()
	log.SetOutput(p.logged)
	log.SetLevel(logrus.DebugLevel)
	var err error
	p.issuer, err = stack.NewIssuer("key-1")
	fatal(tb, err)
	fatal(tb, p.issuer.WriteKeys(p.keys))

	rules := messaging.Rules{
		ClientClaim: "azp", UserClaim: "sub", MaxLifetime: 90 * 24 * time.Hour, Claims: []string{"sub", "azp", "sid"},
	}
	p.hub, err = messaging.Open(tb.Context(), messaging.Config{
		Embedded: &messaging.EmbeddedConfig{Listen: "127.0.0.1:0", Store: filepath.Join(tb.TempDir(), "hub")},
		Limits:   messaging.Limits{MaxLive: 1_000_000, MaxPending: 100_000, MaxPendingBytes: 64 << 20},
		Grace:    grace, UnknownLife: 90 * 24 * time.Hour, PurgeInterval: time.Minute, Rules: rules,
		MaxDeliveries: 10, Workers: 2, Log: log, Now: time.Now,
	})
	fatal(tb, err)
	metrics := prometheus.NewRegistry()
	measures := messaging.NewMetrics(metrics)
	follower := messaging.NewFollower(p.hub, p.log, measures)
	listener := messaging.NewListener(messaging.NewIntake(p.hub, p.log, measures))
	server, err := xds.New(xds.Config{
		Revocations: p.log, Grace: grace, NotReady: follower.NotReady, Last: p.hub.LastVersion, Identity: p.hub.Identity,
		Complete: func() (uint64, time.Time) {
			c, _ := follower.Confirmed()
			return c.Version, c.Complete
		},
		Label: "test", MaxReceive: 4 << 20, Log: log, Metrics: metrics, Now: time.Now,
	})
	fatal(tb, err)
	gathered, err := receipts.New(receipts.Config{Hub: p.hub, Server: server, Name: "replica-1", Memory: time.Minute, Log: log})
	fatal(tb, err)
	p.grants = messaging.NewGrants(p.hub)
	core := &control.Core{
		Hub: p.hub, Decisions: messaging.NewDecisions(p.hub, p.log, measures), Grants: p.grants,
		Audit: messaging.NewAudit(p.hub, messaging.AuditConfig{Lines: p.lines}), Answers: messaging.NewAnswers(p.hub), Receipts: gathered,
	}

	registry, err := clients.New(p.clients(change))
	fatal(tb, err)
	of := issuers.Config{Log: log, Now: time.Now, Issuers: []issuers.Issuer{
		{Name: p.issuer.Name, Files: []string{p.keys}, Refresh: time.Hour},
	}}
	if change.issuers != nil {
		change.issuers(&of)
	}
	known, err := issuers.New(of)
	fatal(tb, err)
	api := &control.API{
		Core: func() *control.Core { return core }, Clients: registry, Issuers: known, Revocations: p.log, Rules: rules,
		Grace: grace, UnknownLife: 90 * 24 * time.Hour, Session: func(*http.Request) (string, bool) { return "", false },
		Replica: "replica-1", Metrics: metrics, Log: log, Now: time.Now,
	}
	if change.api != nil {
		change.api(api)
	}
	port := control.New(control.Config{
		Status:  func() control.Status { return control.Status{Ready: true, Hub: "connected"} },
		Sources: func() any { return []string{} }, Metrics: metrics, API: api, Log: log,
	})
	p.run(server, func(ctx context.Context, group *errgroup.Group) {
		for _, part := range []func(context.Context) error{
			follower.Run, listener.Run, core.Decisions.Run, core.Audit.Run, core.Receipts.Run, known.Run,
		} {
			group.Go(func() error { return part(ctx) })
		}
		lis := listen(tb)
		p.url = "http://" + lis.Addr().String()
		group.Go(func() error { return port.Run(ctx, lis) })
	})
	<-follower.Complete()
	p.eventually("this replica knows of itself", func() bool {
		_, err := gathered.Gateways(tb.Context())
		return err == nil
	})
	p.eventually("the keys are read", func() bool {
		raw := p.token("probe", nil)
		_, err := known.Read(tb.Context(), raw)
		return change.issuers != nil || err == nil
	})
	return p
}

func (p *plane) clients(change plan) clients.Config {
	hash, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
	fatal(p.t, err)
	cfg := clients.Config{Limits: clients.Limits{MaxBody: 1 << 20}}
	for id, roles := range roles() {
		cfg.Clients = append(cfg.Clients, clients.Entry{ID: id, SecretHash: string(hash), Roles: roles})
	}
	if change.clients != nil {
		change.clients(&cfg)
	}
	return cfg
}

func listen(tb testing.TB) net.Listener {
	tb.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(tb, err)
	return lis
}

// run runs the parts until the test ends, and then looks for secrets in what was
// logged.
func (p *plane) run(server *xds.Server, parts func(context.Context, *errgroup.Group)) {
	ctx, cancel := context.WithCancel(p.t.Context())
	group, ctx := errgroup.WithContext(ctx)
	parts(ctx, group)
	lis := listen(p.t)
	p.xds = lis.Addr().String()
	group.Go(func() error { return server.Run(ctx, lis) })
	document, err := openapitest.Parse(control.OpenAPI())
	fatal(p.t, err)
	transport := &http.Transport{}
	p.http = &http.Client{Transport: document.Transport(p.t, transport)}
	p.t.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			p.t.Error(err)
		}
		p.hub.Close()
		for name, text := range map[string]string{"log": p.logged.String(), "audit": p.lines.String()} {
			if strings.Contains(text, secret) || strings.Contains(text, "eyJ") || strings.Contains(text, "opaque-secret") {
				p.t.Errorf("a secret is in the %s:\n%s", name, text)
			}
		}
		if p.t.Failed() {
			p.t.Logf("the log:\n%.4000s", p.logged.String())
		}
	})
}

// eventually waits until happened says so.
func (p *plane) eventually(what string, happened func() bool) {
	p.t.Helper()
	late := time.After(patience)
	for !happened() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-late:
			p.t.Fatalf("after %s still not: %s", patience, what)
		}
	}
}

// token is an access token of client-1 and alice, of an hour.
func (p *plane) token(jti string, others map[string]any) string {
	p.t.Helper()
	raw, err := p.issuer.AccessToken(jti, others)
	fatal(p.t, err)
	return raw
}

// answer is what a call got.
type answer struct {
	status int
	header http.Header
	body   string
}

// effect is the word of Revocation-Effect, with its reason.
func (a answer) effect() string { return a.header.Get("Revocation-Effect") }

func (a answer) json(t *testing.T) map[string]any {
	t.Helper()
	var body map[string]any
	if err := json.Unmarshal([]byte(a.body), &body); err != nil {
		t.Fatalf("%v: %q", err, a.body)
	}
	return body
}

// do sends a request, as change makes it.
func (p *plane) do(method, path, body string, change ...func(*http.Request)) answer {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, strings.NewReader(body))
	fatal(p.t, err)
	for _, c := range change {
		c(req)
	}
	resp, err := p.http.Do(req)
	fatal(p.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	fatal(p.t, err)
	return answer{resp.StatusCode, resp.Header, string(text)}
}

// as shows the credentials of a client.
func as(id string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(id, secret) }
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// form posts a form of names and values as a client.
func (p *plane) form(client, path string, pairs ...string) answer {
	p.t.Helper()
	return p.formWith(client, path, pairs)
}

func (p *plane) formWith(client, path string, pairs []string, change ...func(*http.Request)) answer {
	p.t.Helper()
	values := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		values.Add(pairs[i], pairs[i+1])
	}
	change = append([]func(*http.Request){header("Content-Type", "application/x-www-form-urlencoded"), as(client)}, change...)
	return p.do(http.MethodPost, path, values.Encode(), change...)
}

// post posts JSON as a client.
func (p *plane) post(client, path, body string, change ...func(*http.Request)) answer {
	p.t.Helper()
	return p.do(http.MethodPost, path, body, append([]func(*http.Request){header("Content-Type", "application/json"), as(client)}, change...)...)
}

func (p *plane) get(client, path string) answer {
	p.t.Helper()
	return p.do(http.MethodGet, path, "", as(client))
}

// state is what the hub says of a key.
func (p *plane) state(d revocation.Domain, key string) string {
	p.t.Helper()
	r, err := p.hub.Record(p.t.Context(), d, revocation.DigestOf(d, key))
	if errors.Is(err, messaging.ErrNoRecord) {
		return "none"
	}
	fatal(p.t, err)
	return r.State.String()
}

// grant registers tokens that were issued together to client-1 and alice.
func (p *plane) grant(access, refresh string) {
	p.t.Helper()
	body := fmt.Sprintf(`{"access_token":%q,"refresh_token":%q,"client_id":%q,"subject":"alice","expires_at":%d}`,
		access, refresh, owner, time.Now().Add(time.Hour).UnixMilli())
	if a := p.post(keeper, "/grants", body); a.status != http.StatusCreated {
		p.t.Fatalf("%d %s", a.status, a.body)
	}
}

// digestName is what a key of a domain is called where it is not shown.
func digestName(d revocation.Domain, key string) string {
	return revocation.NamePrefix + revocation.DigestOf(d, key).String()
}
