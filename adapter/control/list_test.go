package control_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

const lists = "/revocations"

func TestRevokeList(t *testing.T) {
	p := start(t, plan{})
	past, ahead := time.Now().Add(-time.Hour).UnixMilli(), time.Now().Add(time.Hour).Format(time.RFC3339)
	body := fmt.Sprintf(`{"reason":"leak","actor":"carol","tokens":[
		{"token":%q},{"jti":"listed-1","expires_at":%[2]q,"tenant":"t1"},{"jti":"listed-1","expires_at":%[2]q,"tenant":"t1"},{"token":"opaque-secret-l"},
		{"sha256":%[3]q},{"jti":"listed-2","type":"API_KEY","expires_at":"never"},{"jti":"gone","expires_at":%[4]d}],
		"rules":[{"claim":"azp","value":"bad-client","issued_before":%[5]d}]}`,
		p.token("listed-0", nil), ahead, digestName(revocation.DomainOpaque, "opaque-secret-m"), past, time.Now().UnixMilli())
	a := p.post(everybody, lists, body)
	got := a.json(t)
	if a.status != 200 || got["new"] != 6.0 || got["already"] != 1.0 || got["expired"] != 1.0 || got["version"] == 0.0 || got["event_id"] == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, key := range []string{"listed-0", "listed-1", "listed-2"} {
		if s := p.state(revocation.DomainToken, key); s != "revoked" {
			t.Errorf("%s is %s", key, s)
		}
	}
	for _, key := range []string{"opaque-secret-l", "opaque-secret-m"} {
		if s := p.state(revocation.DomainOpaque, key); s != "revoked" {
			t.Errorf("%s is %s", key, s)
		}
	}
	if p.state(revocation.DomainRule, "azp=bad-client") != "revoked" || p.state(revocation.DomainToken, "gone") != "none" {
		t.Error("the rule is not stored, or what has expired is")
	}
	record, err := p.hub.Record(t.Context(), revocation.DomainToken, revocation.DigestOf(revocation.DomainToken, "listed-1"))
	if err != nil || record.Tenant != "t1" || record.Events[0].Reason != "leak" || !strings.Contains(record.Events[0].Actor, "carol") {
		t.Errorf("%+v %v", record, err)
	}
	if a := p.post(everybody, lists, body); a.json(t)["new"] != 0.0 {
		t.Errorf("again: %s", a.body)
	}
}

// Everything is checked before anything is stored, and all faults are said.
func TestRevokeListIsCheckedFirst(t *testing.T) {
	p := start(t, plan{})
	many := make([]map[string]string, 10_001)
	for i := range many {
		many[i] = map[string]string{"jti": fmt.Sprint("many-", i)}
	}
	tooMany, err := json.Marshal(map[string]any{"tokens": many})
	fatal(t, err)
	const pasted = "eyJhbGciOiJIUzI1NiJ9.eyJqdGkiOiJhIn0.c2ln"
	cases := map[string]struct {
		body   string
		status int
		says   string
	}{
		"nothing":        {`{}`, 400, "holds no token"},
		"no JSON":        {`hello`, 400, "not JSON"},
		"an array":       {`[]`, 400, "something else"},
		"two objects":    {`{"tokens":[{"jti":"a"}]}{}`, 400, "follows"},
		"unknown member": {`{"tokens":[{"jti":"a"}],"force":true}`, 400, "force"},
		"a wrong state":  {`{"tokens":[{"jti":"a"}],"state":"gone"}`, 400, "state must be"},
		"one is wrong":   {`{"tokens":[{"jti":"a"},{"jti":"b","token":"c"},{}],"rules":[{"claim":"nope","value":"x"}]}`, 400, "tokens[1]"},
		"a whole jti":    {`{"tokens":[{"jti":"` + pasted + `"}]}`, 400, "whole token"},
		"a whole tenant": {`{"tokens":[{"jti":"a","tenant":"` + pasted + `"}]}`, 400, "tenant"},
		"a whole value":  {`{"rules":[{"claim":"sub","value":"` + pasted + `"}]}`, 400, "rules[0]"},
		"a cut digest":   {`{"tokens":[{"token":"sha256:QSdnLLFOFQk8"}]}`, 400, "not a digest"},
		"too far ahead":  {`{"rules":[{"claim":"sub","value":"x","issued_before":"2199-01-01T00:00:00Z"}]}`, 400, "rules[0]"},
		"seconds":        {`{"tokens":[{"jti":"a","expires_at":1999999999}]}`, 400, "not in seconds"},
		"before seconds": {`{"rules":[{"claim":"sub","value":"x","issued_before":1999999999}]}`, 400, "rules[0]: issued_before: a time that is a number must be in milliseconds since the epoch, not in seconds"},
		"no time":        {`{"tokens":[{"jti":"a"},{"jti":"b","expires_at":"tomorrow"}]}`, 400, "tokens[1]: expires_at: a time must be RFC 3339"},
		"a time of 1969": {`{"tokens":[{"jti":"a","expires_at":"1969-12-31T00:00:00Z"}]}`, 400, "tokens[0]: expires_at"},
		"too many":       {string(tooMany), 413, "more than 10000"},
		"far too many":   {`{"tokens":[` + strings.Repeat("{},", 300_000) + `{}]}`, 413, "more than 10000"},
		"no array":       {`{"tokens":{"jti":"a"}}`, 400, "arrays"},
		"odd entry":      {`{"tokens":["a"]}`, 400, "another type"},
		"odd member":     {`{"tokens":[{"jti":7}]}`, 400, "jti"},
		"a long reason":  {`{"tokens":[{"jti":"a"}],"reason":"` + strings.Repeat("x", 300) + `"}`, 400, "reason"},
	}
	for name, tc := range cases {
		a := p.post(everybody, lists, tc.body)
		if a.status != tc.status || !strings.Contains(a.body, tc.says) || a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if a := p.post(everybody, lists, cases["one is wrong"].body); !strings.Contains(a.body, "tokens[2]") || !strings.Contains(a.body, "rules[0]") {
		t.Errorf("not all faults are said: %s", a.body)
	}
	if s := p.state(revocation.DomainToken, "a"); s != "none" {
		t.Error("a is", s)
	}
	for _, who := range []string{owner, keeper, reader} {
		if a := p.post(who, lists, `{"tokens":[{"jti":"a"}]}`); a.status != 403 {
			t.Errorf("%s: %d", who, a.status)
		}
	}
	if a := p.post(approver, lists, `{"tokens":[{"jti":"a"}]}`); a.status != 403 {
		t.Errorf("who may approve revokes: %d", a.status)
	}
	if a := p.post(everybody, lists, `{"tokens":[{"jti":"a"}],"state":"approved"}`); a.status != 403 {
		t.Errorf("who may revoke approves: %d", a.status)
	}
}

// A refresh token that is listed as it is falls as a refresh token, with what was
// issued with it: gateways are never asked about it.
func TestRevokeListOfARefreshToken(t *testing.T) {
	p := start(t, plan{})
	p.grant("opaque-secret-of-it", "opaque-secret-refresh")
	for _, want := range []string{"revoked", "approved"} {
		a := p.post(operator, lists, `{"tokens":[{"token":"opaque-secret-refresh"}],"state":"`+want+`"}`)
		if a.status != 200 || a.json(t)["new"] != 2.0 {
			t.Errorf("%d %s", a.status, a.body)
		}
		refresh, access := p.state(revocation.DomainRefresh, "opaque-secret-refresh"), p.state(revocation.DomainOpaque, "opaque-secret-of-it")
		if refresh != want || access != want || p.state(revocation.DomainOpaque, "opaque-secret-refresh") != "none" {
			t.Errorf("the refresh token is %s, its access token %s, want %s", refresh, access, want)
		}
	}
	name := digestName(revocation.DomainRefresh, "opaque-secret-refresh")
	if some, _ := p.get(operator, "/audit?target="+name).json(t)["entries"].([]any); len(some) != 2 {
		t.Errorf("the audit by the name that explain gives it: %v", some)
	}
}

// What a list names falls together with what was issued with it, as a single token does.
func TestCascadeOfLists(t *testing.T) {
	p := start(t, plan{})
	for kind, issue := range map[string]func(*testing.T, string) pair{"JWT": p.pair, "opaque": p.opaquePair} {
		entry := map[string]func(pair) string{
			"access":  func(of pair) string { return `"token":"` + of.access + `"` },
			"named":   func(of pair) string { return nameOf(of) },
			"refresh": func(of pair) string { return `"token":"` + of.refresh + `"` },
		}
		for _, c := range []struct{ list, cascade, revoked, approved string }{
			{"access", "true", "revoked revoked", "approved approved"},
			{"access", "false", "revoked revoked", "approved revoked"},
			{"named", "true", "revoked revoked", "approved approved"},
			{"named", "false", "revoked revoked", "approved revoked"},
			{"refresh", "true", "revoked revoked", "approved approved"},
			{"refresh", "false", "none revoked", "none approved"},
		} {
			t.Run(strings.Join([]string{kind, c.list, c.cascade}, "/"), func(t *testing.T) {
				of := issue(t, "list-"+kind+c.list+c.cascade)
				for _, want := range []string{c.revoked, c.approved} {
					state := strings.TrimPrefix(strings.Fields(want)[0], "none")
					body := fmt.Sprintf(`{"tokens":[{%s}],"cascade":%s,"state":%q}`,
						entry[c.list](of), c.cascade, cmp.Or(state, strings.Fields(want)[1]))
					if a := p.post(operator, lists, body); a.status != 200 {
						t.Fatalf("%d %s", a.status, a.body)
					}
					p.stands(t, of, strings.Fields(want)[0], strings.Fields(want)[1])
				}
			})
		}
	}
}

// A JWT that gateways accept falls under its jti, though somebody has registered it as
// a refresh token.
func TestRevokeListOfAJWTThatIsRegisteredAsRefreshToken(t *testing.T) {
	p := start(t, plan{})
	raw := p.token("listed-refresh", nil)
	p.grant("opaque-secret-with-it", raw)
	for _, want := range []string{"revoked", "approved"} {
		a := p.post(operator, lists, fmt.Sprintf(`{"tokens":[{"token":%q}],"state":%q}`, raw, want))
		if a.status != 200 || a.json(t)["new"] != 3.0 {
			t.Errorf("%d %s", a.status, a.body)
		}
		access := p.state(revocation.DomainToken, "listed-refresh")
		refresh, with := p.state(revocation.DomainRefresh, raw), p.state(revocation.DomainOpaque, "opaque-secret-with-it")
		if access != want || refresh != want || with != want {
			t.Errorf("the JWT is %s, as a refresh token %s, its access token %s, want %s", access, refresh, with, want)
		}
	}
}

// nameOf is how a list names an access token without having it.
func nameOf(of pair) string {
	if of.domain == revocation.DomainOpaque {
		return `"sha256":"` + revocation.DigestOf(of.domain, of.key).String() + `"`
	}
	return `"jti":"` + of.key + `"`
}

// Two tokens of one refresh token take it with them once.
func TestCascadeOfListsOnce(t *testing.T) {
	p := start(t, plan{})
	p.grant("opaque-secret-one", "opaque-secret-of-both")
	p.grant("opaque-secret-two", "opaque-secret-of-both")
	body := `{"tokens":[{"token":"opaque-secret-one"},{"token":"opaque-secret-two"}]`
	dry := p.post(operator, lists, body+`,"dry_run":true}`)
	if got := dry.json(t); got["new"] != 3.0 || got["already"] != 0.0 || got["unknown_to_grants"] != 0.0 {
		t.Errorf("dry: %s", dry.body)
	}
	a := p.post(operator, lists, body+`}`)
	if got := a.json(t); got["new"] != 3.0 || got["already"] != 0.0 {
		t.Errorf("%s", a.body)
	}
}

// So does one that is given by its digest, as headers and the audit name it.
func TestRevokeListOfTheDigestOfARefreshToken(t *testing.T) {
	p := start(t, plan{})
	of := p.opaquePair(t, "digest")
	name := digestName(revocation.DomainRefresh, of.refresh)
	for i, digest := range []string{name, strings.TrimPrefix(name, revocation.NamePrefix)} {
		want := []string{"revoked", "approved"}[i]
		a := p.post(operator, lists, `{"tokens":[{"sha256":"`+digest+`"}],"state":"`+want+`"}`)
		if a.status != 200 || a.json(t)["new"] != 2.0 {
			t.Errorf("%s: %d %s", want, a.status, a.body)
		}
		p.stands(t, of, want, want)
	}
}

func TestApproveList(t *testing.T) {
	p := start(t, plan{})
	p.post(everybody, lists, `{"tokens":[{"jti":"a"},{"jti":"b"}],"rules":[{"claim":"sub","value":"bob"}]}`)
	dry := p.post(approver, lists, `{"dry_run":true,"state":"approved","tokens":[{"jti":"a"},{"jti":"never"}]}`)
	if got := dry.json(t); got["new"] != 1.0 || got["already"] != 1.0 {
		t.Errorf("dry: %d %s", dry.status, dry.body)
	}
	a := p.post(approver, lists, `{"state":"approved","tokens":[{"jti":"a"},{"jti":"never"}],"rules":[{"claim":"sub","value":"bob"}]}`)
	if got := a.json(t); got["new"] != 2.0 || got["already"] != 1.0 {
		t.Errorf("%d %s", a.status, a.body)
	}
	for key, want := range map[string]string{"a": "approved", "b": "revoked", "never": "none"} {
		if s := p.state(revocation.DomainToken, key); s != want {
			t.Errorf("%s is %s, want %s", key, s, want)
		}
	}
}

// A rule that comes again with a later time is new: what was issued since is refused
// from now on.
func TestRevokeListOfARuleThatRefusesMore(t *testing.T) {
	p := start(t, plan{})
	rule := func(before time.Time, dry bool) string {
		return fmt.Sprintf(`{"rules":[{"claim":"sub","value":"bob","issued_before":%d}],"dry_run":%t}`, before.UnixMilli(), dry)
	}
	now := time.Now()
	v := p.post(everybody, lists, rule(now.Add(-time.Hour), false)).json(t)["version"]
	p.eventually("it is known", func() bool { return v == float64(p.log.Snapshot().Version()) })
	for before, want := range map[time.Time]float64{now.Add(-2 * time.Hour): 0, now: 1} {
		for _, dry := range []bool{true, false} {
			a := p.post(everybody, lists, rule(before, dry))
			if got := a.json(t); got["new"] != want || got["already"] != 1-want {
				t.Errorf("before %s, dry %t: %s", before, dry, a.body)
			}
		}
	}
}

// Whose it is says the record, whatever the call names: operators ask gateways by it.
func TestRevokeListTellsWhoseItIs(t *testing.T) {
	p := start(t, plan{})
	p.post(everybody, lists, `{"tokens":[{"jti":"everybodys"}]}`)
	p.eventually("it is known", func() bool {
		_, found := p.log.Lookup("everybodys")
		return found
	})
	for body, want := range map[string]string{
		`{"tokens":[{"jti":"everybodys","tenant":"acme"}]}`:                             "<nil>",
		`{"tokens":[{"jti":"a","tenant":"acme"}]}`:                                      "[acme]",
		`{"tokens":[{"jti":"b","tenant":"other"},{"jti":"c","tenant":"acme"}]}`:         "[acme other]",
		`{"tokens":[{"jti":"everybodys","tenant":"acme"},{"jti":"d","tenant":"acme"}]}`: "<nil>",
	} {
		if a := p.post(operator, lists, body); fmt.Sprint(a.json(t)["tenants"]) != want {
			t.Errorf("%s: %s", body, a.body)
		}
	}
	if a := p.post(everybody, lists, `{"tokens":[{"jti":"e","tenant":"acme"}]}`); a.json(t)["tenants"] != nil {
		t.Errorf("who is no operator: %s", a.body)
	}
}

func TestRevokeListDryRun(t *testing.T) {
	p := start(t, plan{})
	p.grant("opaque-secret-granted", "opaque-secret-r")
	p.post(everybody, lists, `{"tokens":[{"jti":"there"}]}`)
	p.eventually("it is known", func() bool {
		_, found := p.log.Lookup("there")
		return found
	})
	a := p.post(everybody, lists, `{"dry_run":true,"tokens":[{"jti":"there"},{"jti":"new"},{"token":"opaque-secret-granted"},{"jti":"old","expires_at":"2001-01-01T00:00:00Z"}]}`)
	got := a.json(t)
	if a.status != 200 || got["new"] != 3.0 || got["already"] != 1.0 || got["expired"] != 1.0 || got["unknown_to_grants"] != 2.0 || got["gateways_concerned"] != 0.0 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if p.state(revocation.DomainToken, "new") != "none" || p.state(revocation.DomainOpaque, "opaque-secret-granted") != "none" {
		t.Error("something was stored")
	}
}

func TestRevokeListIdempotencyKey(t *testing.T) {
	p := start(t, plan{})
	key := header("Idempotency-Key", "batch-7")
	first := p.post(everybody, lists, `{"tokens":[{"jti":"a"}]}`, key)
	again := p.post(everybody, lists, `{"tokens":[{"jti":"a"}]}`, key)
	if first.status != 200 || again.body != first.body || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%s, again %d %s", first.body, again.status, again.body)
	}
	if a := p.post(everybody, lists, `{"tokens":[{"jti":"b"}]}`, key); a.status != http.StatusUnprocessableEntity || p.state(revocation.DomainToken, "b") != "none" {
		t.Errorf("another body: %d %s", a.status, a.body)
	}
	if a := p.post(operator, lists, `{"tokens":[{"jti":"b"}]}`, key); a.json(t)["new"] != 1.0 {
		t.Errorf("another client's key is its own: %d %s", a.status, a.body)
	}
}

// When the answer to a key is no longer kept, a revocation that comes again counts
// over an approval since, and an approval does not over a revocation since.
func TestRevokeListAfterItsAnswerIsForgotten(t *testing.T) {
	p := start(t, plan{})
	revoked, approved := `{"tokens":[{"jti":"a"}]}`, `{"tokens":[{"jti":"a"}],"state":"approved"}`
	call := func(client, body, key string) map[string]any {
		t.Helper()
		a := p.post(client, lists, body, header("Idempotency-Key", key))
		if a.status != 200 {
			t.Fatal(a.status, a.body)
		}
		return a.json(t)
	}
	call(everybody, revoked, "nightly")
	call(approver, approved, "sorry")
	p.forgetAnswers(t)
	if got := call(everybody, revoked, "nightly"); got["new"] != 1.0 || p.state(revocation.DomainToken, "a") != "revoked" {
		t.Errorf("%v, and it is %s", got, p.state(revocation.DomainToken, "a"))
	}
	p.forgetAnswers(t)
	if got := call(approver, approved, "sorry"); got["new"] != 0.0 || p.state(revocation.DomainToken, "a") != "revoked" {
		t.Errorf("%v, and it is %s", got, p.state(revocation.DomainToken, "a"))
	}
}

func (p *plane) forgetAnswers(t *testing.T) {
	t.Helper()
	js, err := jetstream.New(p.hub.Conn())
	fatal(t, err)
	kv, err := js.KeyValue(t.Context(), messaging.AnswersBucket)
	fatal(t, err)
	keys, err := kv.Keys(t.Context())
	fatal(t, err)
	for _, key := range keys {
		fatal(t, kv.Purge(t.Context(), key))
	}
}

// An answer that is given again tells of gateways how they stand now.
func TestReceiptOfAnAnswerThatIsGivenAgain(t *testing.T) {
	p := start(t, plan{})
	key := header("Idempotency-Key", "with-receipt")
	if a := p.post(everybody, lists, `{"tokens":[{"jti":"a"}]}`, key); a.json(t)["gateways"] != nil {
		t.Errorf("nobody asked: %s", a.body)
	}
	a := p.post(everybody, lists, `{"tokens":[{"jti":"a"}]}`, key, header("Prefer", "wait=1"))
	if got := a.json(t); got["gateways"] == nil || got["new"] != 1.0 || a.header.Get("Preference-Applied") != "wait=1" {
		t.Errorf("asked: %d %s", a.status, a.body)
	}
}

// What was revoked for one tenant is newly revoked for all.
func TestRevokeForMoreTenants(t *testing.T) {
	p := start(t, plan{})
	raw := p.token("narrow", nil)
	for i, step := range []struct {
		body string
		want float64
	}{
		{`{"tokens":[{"jti":"narrow","tenant":"acme"}]}`, 1},
		{`{"tokens":[{"jti":"narrow","tenant":"acme"}]}`, 0},
		{`{"tokens":[{"jti":"narrow","tenant":"other"}]}`, 1},
		{`{"tokens":[{"jti":"narrow"}]}`, 0},
	} {
		if a := p.post(everybody, lists, step.body); a.json(t)["new"] != step.want {
			t.Errorf("%d: %s", i, a.body)
		}
	}
	p.post(everybody, lists, `{"tokens":[{"jti":"narrow-2","tenant":"acme"}]}`)
	for raw, want := range map[string]string{raw: `none; reason="already_revoked"`, p.token("narrow-2", nil): "revoked"} {
		if a := p.form(owner, revoke, "token", raw); a.effect() != want {
			t.Errorf("%s, want %s", a.effect(), want)
		}
	}
}
