package integration_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRevokedCallIsRejected(t *testing.T) {
	a, s, behind := startAdapter(t), newSigner(t), startAPI(t)
	e := startEnforcer(t, s.section()+"[tokens]\ncookie = \"session\"\nquery = \"access_token\"\n", a)
	n := startNginx(t, e, behind)
	const opaque = "8f2d6b1e-opaque-token.of~no+shape/at_all=="
	cases := map[string]struct {
		token  string
		call   func(token string) answer
		revoke func(token string)
	}{
		"an access token": {s.token("access", nil), func(token string) answer {
			return get(t, n.Address, "/orders?x=1", "Authorization", "Bearer "+token)
		}, nil},
		"an API key, padded": {s.key("key"), func(token string) answer {
			return get(t, n.Address, "/orders", "apikey", token)
		}, nil},
		"an opaque token": {opaque, func(token string) answer {
			return get(t, n.Address, "/", "Authorization", "bearer "+token)
		}, func(token string) {
			a.publish(t, fmt.Sprintf(`{"eventId":"o","revokedToken":%q,"ttl":"1","expiryTime":%d,"type":"Default"}`, token, inAnHour().UnixMilli()))
		}},
		"in a cookie": {s.token("cookie", nil), func(token string) answer {
			return get(t, n.Address, "/", "Cookie", "a=b; session="+token)
		}, nil},
		"in the query": {s.token("query", nil), func(token string) answer {
			return get(t, n.Address, "/?access_token="+token)
		}, nil},
		"beside a valid one": {s.token("second", nil), func(token string) answer {
			return get(t, n.Address, "/", "Authorization", "Bearer "+s.token("first", nil), "ApiKey", token)
		}, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			tc.call(tc.token).passed(t, "before")
			if tc.revoke != nil {
				tc.revoke(tc.token)
			} else {
				a.command(t, "revoke", tc.token)
			}
			becomes(t, http.StatusUnauthorized, func() answer { return tc.call(tc.token) }).rejected(t, "revoked")
			before := behind.calls.Load()
			tc.call(tc.token).rejected(t, "again")
			if behind.calls.Load() != before {
				t.Error("the API was called all the same")
			}
			if tc.revoke == nil {
				a.command(t, "approve", tc.token)
				becomes(t, http.StatusOK, func() answer { return tc.call(tc.token) })
			}
		})
	}
	t.Run("what is not signed", func(t *testing.T) {
		other := newSigner(t)
		get(t, n.Address, "/", "Authorization", "Bearer "+other.token("x", nil)).rejected(t, "another key")
		get(t, n.Address, "/", "Authorization", "Bearer eyJhbGciOiJub25lIn0.eyJqdGkiOiJ4In0.").rejected(t, "no signature")
		get(t, n.Address, "/", "Authorization", "Bearer garbage with spaces").rejected(t, "garbage")
	})
	get(t, n.Address, "/").passed(t, "without a token, as is the default")
}

// A rule rejects what was issued before, and nothing that was issued later.
func TestRulesAreEnforced(t *testing.T) {
	a, s := startAdapter(t), newSigner(t)
	e := startEnforcer(t, s.section(), a)
	call := func(token string) answer { return get(t, e.ForwardAuth, "/", "Authorization", "Bearer "+token) }
	old := s.token("old", map[string]any{"iat": time.Now().Add(-time.Hour).Unix(), "sub": "bob"})
	other := s.token("other", map[string]any{"iat": time.Now().Add(-time.Hour).Unix(), "sub": "carol"})
	a.command(t, "revoke", "--claim", "sub=bob")
	becomes(t, http.StatusUnauthorized, func() answer { return call(old) }).rejected(t, "issued before")
	call(other).passed(t, "another user")
	call(s.token("new", map[string]any{"iat": time.Now().Add(2 * time.Second).Unix(), "sub": "bob"})).passed(t, "issued later")
	a.command(t, "approve", "--claim", "sub=bob")
	becomes(t, http.StatusOK, func() answer { return call(old) })
}

func TestEnforcerKeepsEnforcing(t *testing.T) {
	a, s := startAdapter(t), newSigner(t)
	dir := t.TempDir()
	sections := s.section() + fmt.Sprintf("[set]\nsnapshot_file = %q\nsnapshot_every = \"1s\"\n", filepath.Join(dir, "snapshot"))
	e := startEnforcer(t, sections, a)
	call := func(token string) answer { return get(t, e.ForwardAuth, "/", "Authorization", "Bearer "+token) }
	revoked, valid := s.token("revoked", nil), s.token("valid", nil)
	a.command(t, "revoke", revoked)
	becomes(t, http.StatusUnauthorized, func() answer { return call(revoked) })
	for name, leave := range map[string]func(){
		"stopped": func() { a.stop(t) },
		"killed":  func() { a.signal(t, os.Kill) },
	} {
		leave()
		call(revoked).rejected(t, "the adapter is "+name)
		call(valid).passed(t, "the adapter is "+name)
		a.start(t)
		a.awaitReady(t)
		token := s.token("while "+name, nil)
		a.command(t, "revoke", token)
		becomes(t, http.StatusUnauthorized, func() answer { return call(token) })
	}
	a.signal(t, os.Kill)
	// Stopped: it writes the snapshot. It knows all of it without an adapter.
	if err := e.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	ready(t, e)
	call(revoked).rejected(t, "restarted alone")
	call(s.token("while killed", nil)).rejected(t, "restarted alone")
	call(valid).passed(t, "restarted alone")
	// Killed: what was written last is there.
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	ready(t, e)
	call(revoked).rejected(t, "killed alone")
}

func TestNothingPassesBeforeTheSet(t *testing.T) {
	a, s := newAdapter(t, nil), newSigner(t)
	strict := newEnforcer(t, s.section(), a)
	run(t, &strict.Process, strict)
	lenient := newEnforcer(t, s.section()+fmt.Sprintf("[set]\non_stale = \"allow\"\nsnapshot_file = %q\n", filepath.Join(t.TempDir(), "snapshot")), a)
	run(t, &lenient.Process, lenient)
	for _, address := range []string{strict.Control, lenient.Control, strict.ForwardAuth, lenient.ForwardAuth} {
		awaitPort(t, address)
	}
	call := func(address string) answer {
		return get(t, address, "/", "Authorization", "Bearer "+s.token("valid", nil))
	}
	if got := call(strict.ForwardAuth); got.status/100 == 2 {
		t.Error("a call passes though nothing is known of what is revoked")
	}
	becomes(t, http.StatusOK, func() answer { return call(lenient.ForwardAuth) }) // where the operator wants it, and the keys are read
	for _, control := range []string{strict.Control, lenient.Control} {
		if got := get(t, control, "/readyz"); got.status != http.StatusServiceUnavailable {
			t.Errorf("/readyz says %d: %s", got.status, got.body)
		}
	}
	a.start(t)
	ready(t, strict)
	ready(t, lenient)
	call(strict.ForwardAuth).passed(t, "once the set is known")
}

func TestStaleIsAPolicy(t *testing.T) {
	a, s := startAdapter(t), newSigner(t)
	set := func(policy string) string {
		return s.section() + fmt.Sprintf("[set]\nmax_staleness = \"10s\"\non_stale = %q\nsnapshot_file = \"\"\n", policy)
	}
	strict, lenient := startEnforcer(t, set("deny"), a), startEnforcer(t, set("allow"), a)
	call := func(address, token string) answer { return get(t, address, "/", "Authorization", "Bearer "+token) }
	revoked, valid := s.token("revoked", nil), s.token("valid", nil)
	a.command(t, "revoke", revoked)
	for _, e := range []string{strict.ForwardAuth, lenient.ForwardAuth} {
		becomes(t, http.StatusUnauthorized, func() answer { return call(e, revoked) })
	}
	for begin := time.Now(); time.Since(begin) < 12*time.Second; <-time.After(500 * time.Millisecond) {
		call(strict.ForwardAuth, valid).passed(t, "heartbeats keep the set fresh")
	}
	a.signal(t, os.Kill)
	eventually(t, "nothing passes any more", func() bool { return call(strict.ForwardAuth, valid).status/100 != 2 })
	call(strict.ForwardAuth, revoked).rejected(t, "revoked, and stale")
	call(lenient.ForwardAuth, revoked).rejected(t, "revoked, and stale")
	call(lenient.ForwardAuth, valid).passed(t, "stale, and allowed")
	for _, e := range []string{strict.Control, lenient.Control} {
		if got := get(t, e, "/metrics"); !strings.Contains(got.body, "\nrevocation_enforcer_stale 1\n") {
			t.Errorf("the metric does not say that the set is stale: %s", got.body)
		}
	}
	a.start(t)
	a.awaitReady(t)
	becomes(t, http.StatusOK, func() answer { return call(strict.ForwardAuth, valid) })
}

func TestEnforcerFailsOver(t *testing.T) {
	address := freePort(t)
	startNATS(t, address)
	hub := fmt.Sprintf("mode = \"external\"\nreplicas = 1\nurls = [\"nats://%s\"]\n", address)
	one, two := newAdapter(t, map[string]string{"hub": hub}), newAdapter(t, map[string]string{"hub": hub})
	for _, a := range []*adapter{one, two} {
		a.hub = address
		a.start(t)
		a.awaitReady(t)
	}
	s := newSigner(t)
	e := startEnforcer(t, s.section(), one, two)
	call := func(token string) answer { return get(t, e.ForwardAuth, "/", "Authorization", "Bearer "+token) }
	for i := range 6 {
		from, to := one, two
		if i%2 == 1 {
			from, to = two, one
		}
		from.signal(t, os.Kill)
		token := s.token(fmt.Sprint("during ", i), nil)
		to.command(t, "revoke", token)
		begin := time.Now()
		becomes(t, http.StatusUnauthorized, func() answer { return call(token) })
		if took := time.Since(begin); took > soon {
			t.Errorf("the fail-over took %s", took)
		}
		from.start(t)
		from.awaitReady(t)
	}
	if got := get(t, e.Control, "/metrics"); !strings.Contains(got.body, "\nrevocation_enforcer_resets_total 1\n") {
		t.Errorf("the whole set came more than once: %s", got.body)
	}
}

func TestCaddyExample(t *testing.T) {
	a, s, behind := startAdapter(t), newSigner(t), startAPI(t)
	e := startEnforcer(t, s.section()+"[[one_time]]\npath = \"/pay\"\nall = true\n[claims]\ntimeout = \"20s\"\n", a)
	dir := t.TempDir()
	out, err := exec.Command("go", "-C", "caddy", "build", "-o", filepath.Join(dir, "caddy"), ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c := startCaddy(t, dir, e, behind)
	call := func(path, token string, headers ...string) answer {
		return get(t, c, path, append(headers, "Authorization", "Bearer "+token)...)
	}
	token := s.token("caddy", nil)
	call("/", token).passed(t, "before")
	a.command(t, "revoke", token)
	becomes(t, http.StatusUnauthorized, func() answer { return call("/", token) }).rejected(t, "revoked")
	// Whatever a client says of where it calls, a one-time token is used up.
	once := s.token("once", nil)
	lie := []string{"X-Original-URI", "/", "X-Original-Method", "OPTIONS", "X-Forwarded-Uri", "/", "X-Forwarded-Method", "OPTIONS"}
	call("/pay", once, lie...).passed(t, "the first call")
	call("/pay", once, lie...).rejected(t, "the second call")
}
