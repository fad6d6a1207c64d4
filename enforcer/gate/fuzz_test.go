package gate_test

import (
	"strings"
	"testing"

	"revocation-adapter/enforcer"
	"revocation-adapter/enforcer/gate"
)

// FuzzTokens: no header and no target stops the gate with a panic, and a revoked
// token beside them is found in its own header whatever they say.
func FuzzTokens(f *testing.F) {
	f.Add("Bearer x", "k", "session=x; a=b", "/?token=x")
	f.Add("Bearer a, Basic b=, Bearer c,", "Bearer", `session="x%2e"`, "/?token=%2&token=a;token=b#c")
	f.Add("Digest a=\"b\", c", ",,", "=;session", "http://a/b?%74oken=")
	f.Fuzz(func(t *testing.T, authorization, key, cookie, target string) {
		b := &book{}
		g := newGate(t, b, nil)
		headers := []string{"Authorization", authorization, "ApiKey", key, "Cookie", cookie}
		alone := g.Decide(t.Context(), call("GET", target, headers...))
		if alone.Verdict.Pass() != (alone.Status == 200) || alone.Verdict.Pass() != (alone.Body == "") {
			t.Errorf("%+v", alone)
		}
		with := g.Decide(t.Context(), call("GET", target, append(headers, bearer("revoked")...)...))
		if with.Verdict.Pass() {
			t.Errorf("a revoked token passes beside %q", headers)
		}
	})
}

// FuzzRoutes: no target stops the gate with a panic, and whatever follows the
// prefix of a route is on it.
func FuzzRoutes(f *testing.F) {
	f.Add("1", "POST")
	f.Add("%2e%2e/x;a?b#c", "%")
	f.Add("../../x", "GET")
	f.Fuzz(func(t *testing.T, rest, method string) {
		b := &book{}
		g := newGate(t, b, func(c *gate.Config) {
			c.OneTime, c.Places = []gate.Route{{Path: "/pay/*"}}, gate.Places{Bearer: true} // a token in the query may be refused
		})
		g.Decide(t.Context(), call(method, rest, bearer(jwt("x"))...))
		b.claimed = nil
		g.Decide(t.Context(), call(method, "/pay/"+rest, bearer(jwt("a"))...))
		if len(b.claimed) != 1 {
			t.Errorf("%q is not on the route", "/pay/"+rest)
		}
	})
}

// reading is a book that reads tokens as the library does.
type reading struct{ book }

func (*reading) Parse(raw string) (enforcer.Token, error) { return enforcer.ParseToken(raw) }

// foundByEnvoy is what jwt_authn takes out of an Authorization value: from the
// first "Bearer " the first run of what a JWT is made of.
func foundByEnvoy(value string) string {
	_, rest, found := strings.Cut(value, "Bearer ")
	other := func(c rune) bool {
		return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.", c)
	}
	if words := strings.FieldsFunc(rest, other); found && len(words) > 0 {
		return words[0]
	}
	return ""
}

// FuzzWhatEnvoyFinds: a revoked token that Envoy finds does not pass, whatever is
// around it.
func FuzzWhatEnvoyFinds(f *testing.F) {
	for _, around := range [][2]string{
		{"Bearer ", ""}, {"x Bearer ", "~."}, {"XBearer , ~", "/.."}, {"Bearer +", ",Basic x"}, {"Basic a, Digest b=Bearer ", "\""},
	} {
		f.Add(around[0], around[1])
	}
	bad := jwt("revoked")
	f.Fuzz(func(t *testing.T, before, after string) {
		value := before + bad + after
		if foundByEnvoy(value) != bad {
			return
		}
		g, err := gate.New(gate.Config{Enforcer: &reading{}, Places: everywhere(), Missing: gate.Admit, Opaque: gate.Admit})
		if err != nil {
			t.Fatal(err)
		}
		if got := g.Decide(t.Context(), call("GET", "/", "Authorization", value)); got.Verdict.Pass() {
			t.Errorf("%q, the token, %q: %s", before, after, got.Verdict)
		}
	})
}
