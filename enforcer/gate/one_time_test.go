package gate_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"revocation-adapter/enforcer/gate"
)

func TestOneTimeRoutes(t *testing.T) {
	for target, want := range map[string]bool{
		"/pay":                    true,
		"/pay/":                   true,
		"/pay/1":                  true,
		"/pay/1/2?x=/":            true,
		"/PAY/1":                  true,
		"//pay//1":                true,
		"/./pay/1":                true,
		"/a/../pay/1":             true,
		"/a/%2e%2E/pay/1":         true,
		"/a%2f..%2Fpay/1":         true,
		"/%70ay/1":                true,
		"/%2570ay/1":              true,
		"/%252570ay/1":            true,
		"/%25252570ay/1":          true, // goes on to change
		"/pay%2f1":                true,
		"/pay%3fx":                true,
		"/pay;a=b/1":              true,
		"/;a/pay/1":               true,
		"/pay%3Ba=b":              true,
		`/a\..\pay/1`:             true,
		"/a%5c..%5cpay":           true,
		"http://host/pay/1":       true,
		"//host/pay/1":            true,
		"///host/../pay/1":        true,
		`/\host/pay/1`:            true,
		"/%2fhost/pay/1":          true,
		"//host/%70ay/1":          true,
		"//host;a/pay;b/1":        true,
		"http:////host/pay/1":     true,
		`/a\b/../pay/1`:           true, // who takes a backslash for a letter
		"/api/..%3b/pay/1":        true,
		"/pay%00.html":            true,
		"/%2f..%2fpay%00":         true,
		"/pay%0a":                 true, // "$" of many matchers is before a line break
		"/pay%20":                 true,
		"/pay.json":               true, // Rails
		"/index.php/pay/1":        true, // PHP
		"/index%2EPHP%2fpay":      true,
		"/app.php/index.php/pay":  true,
		"/app/index.php/pay/1":    false,
		"/pay%2Ejson/":            true,
		"/payments.pay":           false,
		"/.pay":                   false,
		"/pays.pay/x":             false,
		"/%u0070ay/%u00e9":        true, // IIS
		"/x/%u00/%u12g4":          false,
		"//host/x/pay/1":          false,
		"/x//host/pay/1":          false,
		"/pay/../x":               true, // who does not resolve it serves /pay
		"/%c0%ae/x":               true, // no UTF-8: who knows
		"":                        false,
		"/":                       false,
		"/payments":               false,
		"/x/pay":                  false,
		"/x?/pay/1":               false,
		"/p%61ys":                 false,
		"/x/%zz%2":                false,
		"https://host/x?u=/pay/1": false,
	} {
		b := &book{}
		got := newGate(t, b, nil).Decide(t.Context(), call("POST", target, bearer(once("a"))...))
		if claimed := len(b.claimed) == 1; claimed != want || !got.Verdict.Pass() {
			t.Errorf("%q: claimed %v, %s", target, claimed, got.Verdict)
		}
	}
}

func TestExactRoute(t *testing.T) {
	for target, want := range map[string]bool{
		"/pay": true, "/pay/": true, "/pay?x": true, "/%70ay": true, "/pay/1": false, "/pay1": false, "/": false,
	} {
		b := &book{}
		g := newGate(t, b, func(c *gate.Config) { c.OneTime = []gate.Route{{Path: "/pay"}} })
		g.Decide(t.Context(), call("POST", target, bearer(jwt("a"))...))
		if claimed := len(b.claimed) == 1; claimed != want {
			t.Errorf("%q: claimed %v", target, claimed)
		}
	}
}

func TestOneTimeMethods(t *testing.T) {
	for name, tc := range map[string]struct {
		r    gate.Request
		want bool
	}{
		"its method":             {call("POST", "/pay"), true},
		"in lower case":          {call("post", "/pay"), true},
		"another":                {call("GET", "/pay"), false},
		"replaced":               {call("GET", "/pay", "X-HTTP-Method-Override", "post"), true},
		"replaced, in a list":    {call("GET", "/pay", "X-HTTP-Method-Override", "post ,x"), true},
		"replaced, the last one": {call("GET", "/pay?_method=x%2CPOST"), true},
		"replaced by others":     {call("GET", "/pay", "X-Http-Method", "PUT"), false},
		"replaced in a query":    {call("GET", "/pay?a=b&_method=post"), true},
		"replaced, in disguise":  {call("GET", "/pay?a=#;_Method[]=%50OST"), true},
		"replaced on its own":    {gate.Request{Lines: []gate.Line{{"GET", "/pay"}, {"GET", "/x?_method=POST"}}}, true},
		"replaced by others too": {call("GET", "/pay?_method=PUT&method=POST"), false},
		"not known":              {gate.Request{Lines: []gate.Line{{"", "/pay"}}}, true},
		"in doubt":               {gate.Request{Lines: []gate.Line{{"GET", "/x"}, {"POST", "/pay"}}}, true},
		"no line together":       {gate.Request{Lines: []gate.Line{{"POST", "/x"}, {"GET", "/pay"}}}, false},
		"nothing known":          {gate.Request{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			header := tc.r.Header
			tc.r.Header = func(name string) []string {
				if name == "authorization" {
					return []string{"Bearer " + once("a")}
				}
				if header == nil {
					return nil
				}
				return header(name)
			}
			b := &book{}
			newGate(t, b, nil).Decide(t.Context(), tc.r)
			if claimed := len(b.claimed) == 1; claimed != tc.want {
				t.Errorf("claimed: %v", claimed)
			}
		})
	}
	b := &book{}
	get := newGate(t, b, func(c *gate.Config) { c.OneTime = []gate.Route{{Path: "/pay", Methods: []string{"get"}}} })
	if get.Decide(t.Context(), call("HEAD", "/pay", bearer(jwt("a"))...)); len(b.claimed) != 1 {
		t.Error("HEAD is answered as GET is")
	}
}

func TestWhatIsUsedUp(t *testing.T) {
	every := func(c *gate.Config) { c.OneTime = []gate.Route{{Path: "/*"}} }
	admit := func(c *gate.Config) { c.Unreachable = gate.Admit }
	verified := func(c *gate.Config) { c.Verifier = &book{} }
	for name, tc := range map[string]struct {
		change  func(*gate.Config)
		headers []string
		want    gate.Verdict
		claimed []string
	}{
		"one":                       {nil, bearer(once("a")), gate.Passed, []string{"a"}},
		"scope in a list":           {nil, bearer(jwt("a", `"scope":["read","OTT"]`)), gate.Passed, []string{"a"}},
		"scope of another name":     {nil, bearer(jwt("a", `"scp":["OTT"]`)), gate.Passed, []string{"a"}},
		"scope in two words":        {nil, bearer(jwt("a", `"scope":["read OTT"]`)), gate.Passed, []string{"a"}},
		"no scope":                  {nil, bearer(jwt("a")), gate.Passed, nil},
		"other scopes":              {nil, bearer(jwt("a", `"scope":"read OTTO ott"`)), gate.Passed, nil},
		"a number":                  {nil, bearer(jwt("a", `"scope":7`)), gate.Passed, nil},
		"every token":               {every, bearer(jwt("a")), gate.Passed, []string{"a"}},
		"in order":                  {nil, bearer(once("b"), jwt("c"), once("a")), gate.Passed, []string{"b", "a"}},
		"the same twice":            {nil, append(bearer(once("a")), "ApiKey", once("a")+"="), gate.Passed, []string{"a"}},
		"without jti":               {nil, bearer(strings.Replace(once(""), "a", "a", 1)), gate.Unusable, nil},
		"without jti, after one":    {nil, bearer(once("a"), once("")), gate.Unusable, nil},
		"opaque":                    {nil, bearer("good"), gate.Passed, nil},
		"opaque, every token":       {every, bearer("good"), gate.Unusable, nil},
		"no token":                  {every, nil, gate.Public, nil},
		"beside a revoked one":      {nil, bearer(once("a"), jwt("revoked")), gate.Revoked, nil},
		"beside garbage":            {nil, bearer(once("a"), "a.b.c"), gate.Malformed, nil},
		"beside a stale one":        {nil, bearer(once("a"), jwt("stale")), gate.Stale, nil},
		"beside a forged one":       {verified, bearer(once("a"), jwt("forged")), gate.NotGenuine, nil},
		"nobody answers":            {nil, bearer(once("away")), gate.NoClaim, nil},
		"nobody, which is allowed":  {admit, bearer(once("away")), gate.Unclaimed, nil},
		"one of two answered":       {admit, bearer(once("away"), once("a")), gate.Unclaimed, []string{"a"}},
		"the first refusal ends it": {nil, bearer(once("away"), once("a")), gate.NoClaim, nil},
		"another error":             {admit, bearer(once("broken")), gate.NoClaim, nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := &book{}
			got := newGate(t, b, tc.change).Decide(t.Context(), call("POST", "/pay", tc.headers...))
			if got.Verdict != tc.want || !slices.Equal(b.claimed, tc.claimed) {
				t.Errorf("got %s, claimed %v", got.Verdict, b.claimed)
			}
			if tc.want == gate.Passed && len(tc.claimed) > 0 && !b.deadline {
				t.Error("a claim may take for ever")
			}
		})
	}
}

func TestUsedOnce(t *testing.T) {
	g := newGate(t, &book{}, nil)
	for _, want := range []gate.Verdict{gate.Passed, gate.Used, gate.Used} {
		got := g.Decide(t.Context(), call("POST", "/pay", append(bearer(once("a")), "X-Request-Id", "same")...))
		if got.Verdict != want || (got.Status == 401) == (want == gate.Passed) {
			t.Errorf("got %s, want %s", got.Verdict, want)
		}
	}
}

// Servers decode, resolve and drop in different orders.
func TestPathsReadInAnyOrder(t *testing.T) {
	for target, route := range map[string]string{
		"/api/%3bz/%2e%2e;/pay":           "/api/pay", // Tomcat: parameters, then codes, then dots
		"/a/b%2fc/../%70ay":               "/a/pay",   // Jetty: dots, then codes
		`/a\b/../pay`:                     "/pay",
		"/a%2f..%2fpay;x":                 "/pay",
		"/a;/%2e%2e;x/pay%23":             "/pay",
		"/x%" + strings.Repeat("25", 100): "/pay", // too many readings: in doubt
	} {
		b := &book{}
		g := newGate(t, b, func(c *gate.Config) { c.OneTime = []gate.Route{{Path: route}} })
		g.Decide(t.Context(), call("POST", target, bearer(jwt("a"))...))
		if len(b.claimed) != 1 {
			t.Errorf("%.60q is not found", target)
		}
	}
}

// However a path is disguised, it is that of the route.
func TestDisguisedPathsMatch(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		target := disguise(random, "/pay/1")
		b := &book{}
		newGate(t, b, nil).Decide(t.Context(), call("POST", target, bearer(once("a"))...))
		if len(b.claimed) != 1 {
			t.Fatalf("%q is not found", target)
		}
	}
}

// disguise writes a path so that a server still takes it for the same.
func disguise(random *rand.Rand, plain string) string {
	var out strings.Builder
	for segment := range strings.SplitSeq(strings.TrimPrefix(plain, "/"), "/") {
		for range random.IntN(3) {
			out.WriteString([]string{"/", "/.", "/a/..", "/%2e", "/b/%2E.", "/c//.."}[random.IntN(6)])
		}
		out.WriteString([]string{"/", "/", "//", "%2f", `\`}[random.IntN(5)])
		for _, c := range []byte(segment) {
			switch random.IntN(4) {
			case 0:
				fmt.Fprintf(&out, "%%%02x", c)
			case 1:
				fmt.Fprintf(&out, "%%%02X", c)
			case 2:
				out.WriteString(strings.ToUpper(string(c)))
			default:
				out.WriteByte(c)
			}
		}
		if random.IntN(3) == 0 {
			out.WriteString(";v=1")
		}
	}
	text := out.String()
	if random.IntN(3) == 0 {
		text = strings.ReplaceAll(text, "%", "%25")
	}
	if !strings.HasPrefix(text, "/") {
		text = "/" + text
	}
	return text + []string{"", "/", "?a=b", "?"}[random.IntN(4)]
}
