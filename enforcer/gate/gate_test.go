package gate_test

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"revocation-adapter/enforcer"
	"revocation-adapter/enforcer/gate"
	"revocation-adapter/revocation"
)

// book is an enforcer that knows by name: a token's jti, or an opaque token, says
// what becomes of it. It remembers what was claimed.
type book struct {
	claimed  []string
	deadline bool // of the last claim
}

func (b *book) Parse(raw string) (enforcer.Token, error) {
	if strings.Count(raw, ".") != 2 || strings.HasPrefix(raw, "looks.") {
		return enforcer.Token{Opaque: raw}, nil
	}
	claims, err := revocation.ReadJWT(raw)
	if errors.Is(err, revocation.ErrNoID) {
		return enforcer.Token{Signature: "x"}, nil
	}
	return enforcer.Token{ID: claims.ID, Expiry: claims.Expiry}, err
}

func (b *book) Check(t enforcer.Token) enforcer.Decision {
	verdicts := map[string]enforcer.Verdict{
		"revoked": enforcer.Revoked, "revoked, no keys": enforcer.Revoked, "expired": enforcer.Expired, "stale": enforcer.Stale, "strange": 99,
	}
	return enforcer.Decision{Verdict: verdicts[t.ID+t.Opaque]}
}

func (b *book) Claim(ctx context.Context, t enforcer.Token) (enforcer.Decision, error) {
	_, b.deadline = ctx.Deadline()
	if strings.HasPrefix(t.ID, "away") {
		return enforcer.Decision{}, errors.Join(enforcer.ErrUnclaimed, context.DeadlineExceeded)
	}
	if t.ID == "broken" {
		return enforcer.Decision{}, errors.New("something else")
	}
	if slices.Contains(b.claimed, t.ID) {
		return enforcer.Decision{Verdict: enforcer.Revoked}, nil
	}
	b.claimed = append(b.claimed, t.ID)
	return enforcer.Decision{}, nil
}

// Verify takes every token for genuine whose jti does not say otherwise.
func (b *book) Verify(_ context.Context, raw string) error {
	switch t, _ := b.Parse(raw); t.ID {
	case "":
		return errors.New("not a JWT")
	case "forged":
		return errors.New("wrong signature")
	case "keyless", "revoked, no keys":
		return gate.ErrUndecided
	}
	return nil
}

// jwt is an unsigned token with that jti, and claims after it.
func jwt(id string, more ...string) string {
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	claims := slices.Concat([]string{`"jti":"` + id + `"`}, more)
	return encode(`{"alg":"RS256"}`) + "." + encode("{"+strings.Join(claims, ",")+"}") + ".c2ln"
}

// once is a one-time token.
func once(id string) string { return jwt(id, `"scope":"read OTT"`) }

func everywhere() gate.Places {
	return gate.Places{Bearer: true, APIKeyHeader: "ApiKey", Cookie: "session", Query: "token"}
}

func newGate(t *testing.T, b *book, change func(*gate.Config)) *gate.Gate {
	t.Helper()
	cfg := gate.Config{
		Enforcer: b, Places: everywhere(), Missing: gate.Admit, Opaque: gate.Admit, ClaimTimeout: time.Second,
		OneTime: []gate.Route{{Path: "/pay/*", Methods: []string{"POST"}, Scope: "OTT"}},
	}
	if change != nil {
		change(&cfg)
	}
	g, err := gate.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// call is a request with headers as pairs.
func call(method, target string, headers ...string) gate.Request {
	return gate.Request{Lines: []gate.Line{{Method: method, Target: target}}, Header: func(name string) []string {
		var values []string
		for i := 0; i < len(headers); i += 2 {
			if strings.ToLower(headers[i]) == name {
				values = append(values, headers[i+1])
			}
		}
		return values
	}}
}

func bearer(tokens ...string) []string {
	var headers []string
	for _, token := range tokens {
		headers = append(headers, "Authorization", "Bearer "+token)
	}
	return headers
}

func TestEveryTokenIsFound(t *testing.T) {
	bad, good := jwt("revoked"), jwt("good")
	for name, r := range map[string]gate.Request{
		"Bearer":                  call("GET", "/", "Authorization", "Bearer "+bad),
		"lower case":              call("GET", "/", "authorization", "bearer "+bad),
		"mixed case":              call("GET", "/", "AUTHORIZATION", "bEaReR "+bad),
		"several blanks":          call("GET", "/", "Authorization", "  Bearer \t  "+bad+"  "),
		"a second header":         call("GET", "/", bearer(good, bad)...),
		"after Basic":             call("GET", "/", "Authorization", "Basic dTpw", "Authorization", "Bearer "+bad),
		"joined after Basic":      call("GET", "/", "Authorization", "Basic dTpw, Bearer "+bad),
		"joined after Bearer":     call("GET", "/", "Authorization", "Bearer "+good+",Bearer "+bad),
		"joined after Digest":     call("GET", "/", "Authorization", `Digest username="u", realm="r, s", Bearer `+bad),
		"without a scheme":        call("GET", "/", "Authorization", bad),
		"opaque, without one":     call("GET", "/", "Authorization", "revoked"),
		"API key":                 call("GET", "/", "ApiKey", bad),
		"API key, lower case":     call("GET", "/", "apikey", bad),
		"API keys":                call("GET", "/", "APIKEY", good, "ApiKey", bad),
		"API keys joined":         call("GET", "/", "ApiKey", good+", "+bad),
		"API key with a scheme":   call("GET", "/", "ApiKey", "Bearer "+bad),
		"API key beside a Bearer": call("GET", "/", append(bearer(good), "ApiKey", bad)...),
		"cookie":                  call("GET", "/", "Cookie", "session="+bad),
		"cookie among others":     call("GET", "/", "Cookie", "a=b; session="+bad+"; c=d"),
		"cookie twice":            call("GET", "/", "Cookie", "session="+good+"; session="+bad),
		"cookie in quotes":        call("GET", "/", "Cookie", `session="`+bad+`"`),
		"cookies joined":          call("GET", "/", "Cookie", "a=b, session="+bad),
		"cookie encoded":          call("GET", "/", "Cookie", "session="+strings.ReplaceAll(bad, ".", "%2E")),
		"query":                   call("GET", "/?token="+bad),
		"query among others":      call("GET", "/?a=b&token="+bad+"&c=d"),
		"query twice":             call("GET", "/?token="+good+"&token="+bad),
		"query encoded":           call("GET", "/?%74oken="+strings.ReplaceAll(bad, ".", "%2e")),
		"query after a semicolon": call("GET", "/?a=b;token="+bad),
		"query with a semicolon":  call("GET", "/?token="+bad+";a=b"),
		"query before a fragment": call("GET", "/?token=revoked#x"),
		"query after a fragment":  call("GET", "/?x=#&token="+bad),
		"query in another case":   call("GET", "/?Token="+bad),
		"query as a list":         call("GET", "/?token[]="+bad),
		"query as a list of one":  call("GET", "/?token%5B0%5D="+bad),
		"query after a plus":      call("GET", "/?token=+revoked"),
		"query before a plus":     call("GET", "/?token=revoked+"),
		"query after a blank":     call("GET", "/?token=%20"+bad),
		"cookie in another case":  call("GET", "/", "Cookie", "SESSION="+bad),
		"cookie as a list":        call("GET", "/", "Cookie", "session[a]="+bad),
		"query in codes of IIS":   call("GET", "/?%u0074oken=%U0072evoked"),
		"query up to a NUL":       call("GET", "/?token%00x="+bad),
		"cookie after a blank":    call("GET", "/", "Cookie", "a=b session="+bad),
		"query of another URI":    {Lines: []gate.Line{{"", "/"}, {"", "/?token=" + bad}}, Header: func(string) []string { return nil }},
		"opaque":                  call("GET", "/", bearer("revoked")...),
		"opaque cookie":           call("GET", "/", "Cookie", "session=revoked"),
	} {
		t.Run(name, func(t *testing.T) {
			if got := newGate(t, &book{}, nil).Decide(t.Context(), r); got.Verdict != gate.Revoked {
				t.Errorf("got %s", got.Verdict)
			}
		})
	}
}

func TestWhatIsNoToken(t *testing.T) {
	for name, tc := range map[string]struct {
		r    gate.Request
		want gate.Verdict
	}{
		"nothing":              {call("GET", "/"), gate.Public},
		"Basic":                {call("GET", "/", "Authorization", "Basic revoked"), gate.Public},
		"Negotiate":            {call("GET", "/", "Authorization", "Negotiate YIIJvwYGKwYBBQUCoIIJszCC=="), gate.Public},
		"Digest":               {call("GET", "/", "Authorization", `Digest username="u", revoked, realm="api.example.com"`), gate.Public},
		"a signature":          {call("GET", "/", "Authorization", "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host;date, Signature=fe5f80"), gate.Public},
		"no scheme, a comma":   {call("GET", "/", "Authorization", "go,od"), gate.Malformed},
		"words in a cookie":    {call("GET", "/", "Cookie", "a=b session c; d=e f"), gate.Public},
		"other cookie":         {call("GET", "/", "Cookie", "sessions=revoked; xsession=revoked; revoked; session_=revoked"), gate.Public},
		"empty cookie":         {call("GET", "/", "Cookie", "session="), gate.Public},
		"other parameter":      {call("GET", "/?tokens=revoked&x=token=revoked&token&[token]=revoked"), gate.Public},
		"in the path":          {call("GET", "/token=revoked"), gate.Public},
		"Bearer alone":         {call("GET", "/", "Authorization", "Bearer"), gate.Malformed},
		"Bearer and blanks":    {call("GET", "/", "Authorization", "Bearer  "), gate.Malformed},
		"Bearer with a colon":  {call("GET", "/", "Authorization", "Bearer:good"), gate.Malformed},
		"Bearer, other blank":  {call("GET", "/", "Authorization", "Bearer\u00a0good"), gate.Malformed},
		"Bearer with two":      {call("GET", "/", "Authorization", "Bearer good good"), gate.Malformed},
		"Bearer with a comma":  {call("GET", "/", "Authorization", "Bearer go,od"), gate.Malformed},
		"a control character":  {call("GET", "/", "Authorization", "Bearer go\x00od"), gate.Malformed},
		"not ASCII":            {call("GET", "/", "ApiKey", "gööd"), gate.Malformed},
		"a broken JWT":         {call("GET", "/", "ApiKey", "a.b.c"), gate.Malformed},
		"encoded twice":        {call("GET", "/?token=go%256Fd"), gate.Malformed},
		"garbage beside a JWT": {call("GET", "/", append(bearer(jwt("good")), "ApiKey", "a.b.c")...), gate.Malformed},
		"nobody knows what":    {gate.Request{Header: func(string) []string { return nil }, Malformed: true}, gate.Malformed},
		"good":                 {call("GET", "/", bearer(jwt("good"))...), gate.Passed},
		"padded":               {call("GET", "/?token="+strings.Replace(jwt("good"), ".c2ln", ".c2lnbg%3D%3D", 1)), gate.Passed},
		"a comma at the end":   {call("GET", "/", "Authorization", "Bearer "+jwt("good")+", "), gate.Passed},
		"opaque":               {call("GET", "/", bearer("good")...), gate.Passed},
	} {
		t.Run(name, func(t *testing.T) {
			if got := newGate(t, &book{}, nil).Decide(t.Context(), tc.r); got.Verdict != tc.want {
				t.Errorf("got %s, want %s", got.Verdict, tc.want)
			}
		})
	}
	var many []string
	for i := range 17 {
		many = append(many, bearer(strings.Repeat("x", i+1))...)
	}
	if got := newGate(t, &book{}, nil).Decide(t.Context(), call("GET", "/", many...)); got.Verdict != gate.Malformed {
		t.Errorf("17 tokens: %s", got.Verdict)
	}
}

// Who verifies tokens before us may look for one anywhere in the value, and cut it
// off where it pleases: Envoy's jwt_authn does both.
func TestDisguisedBearerIsNotPublic(t *testing.T) {
	bad := jwt("revoked")
	for _, value := range []string{
		"x Bearer " + bad,
		"XBearer " + bad,
		"BearerX " + bad,
		"Bearer-Token " + bad,
		"x\tbEARER " + bad,
		"x-Bearer opaque",
		"Basic Bearer " + bad,
		"Basic dTpw Bearer " + bad,
		"Digest Bearer " + bad,
		"Negotiate XBearer " + bad,
		"Basic dTpw, x Bearer " + bad,
		`Digest username="Bearer ` + bad + `"`,
		`Digest username="u", nonce=Bearer ` + bad,
		"XBearer , ~ " + bad,
		"JWT " + bad,
		"DPoP " + bad,
		"Token token=" + bad,
		"Token a, token=" + bad,
		"Basic " + bad,
		"x ~" + bad + "~.",
	} {
		if got := newGate(t, &book{}, nil).Decide(t.Context(), call("GET", "/", "Authorization", value)); got.Verdict.Pass() {
			t.Errorf("%s: %s", strings.Replace(value, bad, "<revoked>", 1), got.Verdict)
		}
	}
}

// Some servers write a dot or a blank of a name as an underscore.
func TestNamesAreComparedAsServersMayReadThem(t *testing.T) {
	for name, keys := range map[string][]string{
		"access_token": {"access_token", "Access_Token", "access.token", "access+token", "access%20token", "access_token[]", "access[token"},
		"access.token": {"access_token", "access.token", "ACCESS.token[0]"},
		"auth[token]":  {"auth[token]", "auth%5Btoken%5D", "Auth[Token][]"},
	} {
		for _, key := range keys {
			g := newGate(t, &book{}, func(c *gate.Config) { c.Places = gate.Places{Query: name, Cookie: name} })
			if got := g.Decide(t.Context(), call("GET", "/?"+key+"=revoked")); got.Verdict != gate.Revoked {
				t.Errorf("%s as %s: %s", name, key, got.Verdict)
			}
			if got := g.Decide(t.Context(), call("GET", "/", "Cookie", key+"=revoked")); got.Verdict != gate.Revoked {
				t.Errorf("%s as the cookie %s: %s", name, key, got.Verdict)
			}
		}
	}
}

func TestPlacesAreSwitched(t *testing.T) {
	nowhere := func(c *gate.Config) { c.Places = gate.Places{} }
	all := call("GET", "/?token=revoked", "Authorization", "Bearer revoked", "ApiKey", "revoked", "Cookie", "session=revoked")
	if got := newGate(t, &book{}, nowhere).Decide(t.Context(), all); got.Verdict != gate.Public {
		t.Errorf("got %s", got.Verdict)
	}
}

func TestVerdicts(t *testing.T) {
	strict := func(c *gate.Config) { c.Missing, c.Opaque = gate.Refuse, gate.Refuse }
	verified := func(b *book) func(*gate.Config) { return func(c *gate.Config) { c.Verifier = b } }
	b := &book{}
	for name, tc := range map[string]struct {
		change  func(*gate.Config)
		headers []string
		want    gate.Verdict
	}{
		"expired":                   {nil, bearer(jwt("expired")), gate.Expired},
		"stale":                     {nil, bearer(jwt("stale")), gate.Stale},
		"a verdict not known here":  {nil, bearer(jwt("strange")), gate.Revoked},
		"sure before perhaps":       {nil, bearer(jwt("stale"), jwt("revoked")), gate.Revoked},
		"missing":                   {strict, nil, gate.Missing},
		"opaque":                    {strict, bearer("good"), gate.Opaque},
		"opaque and revoked":        {strict, bearer("revoked"), gate.Revoked},
		"opaque and stale":          {strict, bearer("stale"), gate.Opaque},
		"opaque beside a JWT":       {strict, bearer(jwt("good"), "good"), gate.Opaque},
		"genuine":                   {verified(b), bearer(jwt("good")), gate.Passed},
		"forged":                    {verified(b), bearer(jwt("forged")), gate.NotGenuine},
		"forged beside a good one":  {verified(b), bearer(jwt("good"), jwt("forged")), gate.NotGenuine},
		"no keys":                   {verified(b), bearer(jwt("keyless")), gate.Undecided},
		"revoked without keys":      {verified(b), bearer(jwt("revoked, no keys")), gate.Revoked},
		"revoked beside no keys":    {verified(b), bearer(jwt("keyless"), jwt("revoked")), gate.Revoked},
		"opaque is not verified":    {verified(b), bearer("good"), gate.Passed},
		"looks like a JWT":          {verified(b), bearer("looks.like.one"), gate.NotGenuine},
		"looks, nobody verifies":    {nil, bearer("looks.like.one"), gate.Passed},
		"forged, nobody verifies":   {nil, bearer(jwt("forged")), gate.Passed},
		"stale, and forged as well": {verified(b), bearer(jwt("stale"), jwt("forged")), gate.NotGenuine},
	} {
		t.Run(name, func(t *testing.T) {
			if got := newGate(t, b, tc.change).Decide(t.Context(), call("GET", "/", tc.headers...)); got.Verdict != tc.want {
				t.Errorf("got %s, want %s", got.Verdict, tc.want)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	const body = `{"error_message":"Invalid Credentials","code":"900901","error_description":"Invalid JWT token. Make sure you have provided the correct security credentials"}`
	json := gate.Header{Name: "Content-Type", Value: "application/json"}
	invalid := gate.Answer{
		Status: 401, Body: body, Headers: []gate.Header{json, {Name: "WWW-Authenticate", Value: `Bearer error="invalid_token"`}},
	}
	missing := gate.Answer{Status: 401, Body: body, Headers: []gate.Header{json, {Name: "WWW-Authenticate", Value: "Bearer"}}}
	for name, tc := range map[string]struct {
		headers []string
		want    gate.Answer
	}{
		"passed":  {bearer(jwt("good")), gate.Answer{Status: 200}},
		"revoked": {bearer(jwt("revoked")), invalid},
		"expired": {bearer(jwt("expired")), invalid},
		"garbage": {bearer("a.b.c"), invalid},
		"missing": {nil, missing},
	} {
		t.Run(name, func(t *testing.T) {
			got := newGate(t, &book{}, func(c *gate.Config) { c.Missing = gate.Refuse }).Decide(t.Context(), call("GET", "/", tc.headers...))
			if got.Status != tc.want.Status || got.Body != tc.want.Body || !slices.Equal(got.Headers, tc.want.Headers) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
	got := newGate(t, &book{}, nil).Decide(t.Context(), call("GET", "/", bearer(jwt("stale"))...))
	if got.Status != 503 || !slices.Contains(got.Headers, gate.Header{Name: "Retry-After", Value: "2"}) || strings.Contains(got.Body, "900901") {
		t.Errorf("stale: %+v", got)
	}
}

func TestGateIsChecked(t *testing.T) {
	good := gate.Config{Enforcer: &book{}, OneTime: []gate.Route{{Path: "/a/*"}}, ClaimTimeout: 1}
	for name, change := range map[string]func(*gate.Config){
		"no enforcer": func(c *gate.Config) { c.Enforcer = nil },
		"no timeout":  func(c *gate.Config) { c.ClaimTimeout = 0 },
		"no slash":    func(c *gate.Config) { c.OneTime = []gate.Route{{Path: "a"}} },
		"star inside": func(c *gate.Config) { c.OneTime = []gate.Route{{Path: "/*/b"}} },
		"star alone":  func(c *gate.Config) { c.OneTime = []gate.Route{{Path: "/a*"}} },
	} {
		cfg := good
		change(&cfg)
		if _, err := gate.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := gate.New(good); err != nil {
		t.Error(err)
	}
}
