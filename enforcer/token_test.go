package enforcer_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"revocation-adapter/enforcer"
	"revocation-adapter/revocation"
)

func segment(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// signed is a JWT with a payload and the signature "c2ln".
func signed(payload string) string {
	return segment(`{"alg":"RS256"}`) + "." + segment(payload) + ".c2ln"
}

func opaqueToken(raw string) enforcer.Token {
	return enforcer.Token{Opaque: raw, Expiry: revocation.Never}
}

// shown is a token that is printed whole.
type shown enforcer.Token

func TestTokensDoNotPrintThemselves(t *testing.T) {
	e := holding(t, revocation.DomainToken, "x")
	for _, raw := range []string{"secret", signed(`{"jti":"secret"}`)} {
		token, err := e.Parse(raw)
		if text := fmt.Sprintf("%v %+v %s", token, token, token); err != nil || strings.Contains(text, "secret") || strings.Contains(text, raw) {
			t.Errorf("%s, %v", text, err)
		}
	}
}

func TestParseToken(t *testing.T) {
	jwt := func(change func(*enforcer.Token)) enforcer.Token {
		token := enforcer.Token{Signature: "c2ln", Expiry: revocation.Never}
		change(&token)
		return token
	}
	claims := func(id string, of map[string][]string) enforcer.Token {
		return jwt(func(token *enforcer.Token) {
			token.ID, token.Claims = id, of
			if id != "" {
				token.Claims["jti"] = []string{id}
			}
		})
	}
	tests := []struct {
		name, raw string
		want      enforcer.Token
	}{
		{"all that counts", signed(`{"jti":"a","iat":1.5,"exp":1800000000.0001,"azp":"c"}`), enforcer.Token{
			ID: "a", Signature: "c2ln", IssuedAt: 1500, Expiry: 1_800_000_000_001,
			Claims: map[string][]string{"jti": {"a"}, "iat": {"1.5"}, "exp": {"1800000000.0001"}, "azp": {"c"}},
		}},
		{
			"texts, lists and numbers as written", signed(` { "s" : "x y" , "l":["a","b",3,null,{"n":"o"},["p"]], "n":1.0e2,"m":-1,"t":true,"z":null,"o":{"s":"no","l":[1]},"e":[] , "q":""} `),
			claims("", map[string][]string{"s": {"x y"}, "l": {"a", "b", "3"}, "n": {"1.0e2"}, "m": {"-1"}, "q": {""}}),
		},
		{
			"escapes in names and values", signed(`{"\u006ati":"\u0061\"b","a\/b":"\\"}`),
			claims(`a"b`, map[string][]string{"a/b": {`\`}}),
		},
		{
			"brackets and quotes inside", signed(`{"a":"}],\"","b":["]","\\"],"o":{"x":"}"},"jti":"j"}`),
			claims("j", map[string][]string{"a": {`}],"`}, "b": {"]", `\`}}),
		},
		{"a claim that comes twice has both values", signed(`{"azp":"a","azp":["b"]}`), claims("", map[string][]string{"azp": {"a", "b"}})},
		{"names are exact", signed(`{"JTI":"a"}`), claims("", map[string][]string{"JTI": {"a"}})},
		{"a jti that is no text", signed(`{"jti":{}}`), jwt(func(*enforcer.Token) {})},
		{"an iat that is no number", signed(`{"iat":{}}`), jwt(func(*enforcer.Token) {})},
		{"an iat before the epoch", signed(`{"iat":-1}`), claims("", map[string][]string{"iat": {"-1"}})},
		{"an iat after all time", signed(`{"iat":1e99}`), jwt(func(token *enforcer.Token) {
			token.IssuedAt, token.Claims = revocation.Never, map[string][]string{"iat": {"1e99"}}
		})},
		{"an exp after all time", signed(`{"exp":1e99}`), claims("", map[string][]string{"exp": {"1e99"}})},
		{"an exp that is null", signed(`{"exp":null}`), jwt(func(*enforcer.Token) {})},
		{"an empty payload", signed(`{}`), jwt(func(*enforcer.Token) {})},
		{"no signature", segment(`{"alg":"none"}`) + "." + segment(`{}`) + ".", jwt(func(token *enforcer.Token) { token.Signature = "" })},
		{"padding", strings.ReplaceAll(segment(`{"alg":"x"}`)+"= . "+segment(`{ }`)+"= . c2ln==", " ", ""), jwt(func(*enforcer.Token) {})},
		{"a signature whose last bits mean nothing", signed(`{}`)[:len(signed(`{}`))-4] + "c2l", jwt(func(token *enforcer.Token) { token.Signature = "c2k" })},
		{"the same of one byte", signed(`{}`)[:len(signed(`{}`))-4] + "c_", jwt(func(token *enforcer.Token) { token.Signature = "cw" })},
		{"spaces around the objects", segment("\n{\"alg\":1} ") + "." + segment("\t{}\r\n") + ".c2ln", jwt(func(*enforcer.Token) {})},

		{"opaque", "fc8ee897-b3d9-3bb6-a9ca-f4aeb036e5c0", opaqueToken("fc8ee897-b3d9-3bb6-a9ca-f4aeb036e5c0")},
		{"opaque, padded", "a+/~_.-==", opaqueToken("a+/~_.-==")},
		{"opaque, two dots", "a.b.c", opaqueToken("a.b.c")},
		{"opaque, two dots that decode to no object", segment(`["alg"]`) + ".b.c", opaqueToken(segment(`["alg"]`) + ".b.c")},
		{"one dot", segment(`{"alg":"x"}`) + ".b", opaqueToken(segment(`{"alg":"x"}`) + ".b")},
		{"encrypted", segment(`{"alg":"x"}`) + ".b.c.d.e", opaqueToken(segment(`{"alg":"x"}`) + ".b.c.d.e")},
		{"encrypted with the key itself", segment(`{"alg":"dir"}`) + "..c.d.e", opaqueToken(segment(`{"alg":"dir"}`) + "..c.d.e")},
		{"three dots that decode to nothing", "a.b.c.d", opaqueToken("a.b.c.d")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := enforcer.ParseToken(tt.raw)
			if err != nil || !reflect.DeepEqual(got.ByHand(), tt.want) {
				t.Errorf("got %+v, %v\nwant %+v", shown(got), err, shown(tt.want))
			}
		})
	}
}

func TestGarbage(t *testing.T) {
	good := signed(`{"jti":"a"}`)
	tests := []struct{ name, raw string }{
		{"nothing", ""},
		{"nothing but padding", "=="},
		{"padding inside", "a=b"},
		{"a space before", " " + good},
		{"a line break inside", good[:10] + "\n" + good[10:]},
		{"a line break after", good + "\r\n"},
		{"a NUL", "a\x00"},
		{"beyond ASCII", "ä"},
		{"a delete", "a\x7f"},
		{"a comma", "a,b"},
		{"too long", strings.Repeat("a", 64<<10+1)},
		{"a header that is no JSON", "eyJh.e30.c2ln"},
		{"a header without alg", segment(`{"typ":"JWT"}`) + ".e30.c2ln"},
		{"a header with its alg inside", segment(`{"o":{"alg":1}}`) + ".e30.c2ln"},
		{"a payload that is no object", segment(`{"alg":"x"}`) + "." + segment(`"jti"`) + ".c2ln"},
		{"a payload that is cut", segment(`{"alg":"x"}`) + "." + segment(`{"jti":"a`) + ".c2ln"},
		{"a payload with more after it", segment(`{"alg":"x"}`) + "." + segment(`{} {}`) + ".c2ln"},
		{"a payload in base64 of another kind", segment(`{"alg":"x"}`) + "." + "ey++fQ.c2ln"},
		{"an empty payload", segment(`{"alg":"x"}`) + "..c2ln"},
		{"a signature with one character too many", signed(`{}`) + "a"},
		{"a signature with padding inside", segment(`{"alg":"x"}`) + ".e30.c2=ln"},
		{"a signature that is no base64url", segment(`{"alg":"x"}`) + ".e30.c~ln"},
		{"an exp that is a text", signed(`{"exp":"1800000000"}`)},
		{"an exp that is no time", signed(`{"exp":0}`)},
		{"two jti", signed(`{"jti":"a","jti":"b"}`)},
		{"two jti, one of them escaped", signed(`{"jti":"a","\u006Ati":"b"}`)},
		{"two exp", signed(`{"exp":1,"exp":null}`)},
		{"a JWT after what others skip", "~" + good},
		{"a JWT after a plus", "+" + good},
		{"a JWT with blanks after what others skip", "~" + segment("{ \"alg\":\"x\"}") + "." + segment("{ \"jti\":\"a\"}") + ".c2ln"},
		{"a JWT with line breaks before what others skip", segment("{\n\"alg\":\"x\"}") + "." + segment("{\r\n\"jti\":\"a\"}") + ".c2ln~"},
		{"a JWT after a slash", "/" + good},
		{"a JWT after a segment", "a." + good},
		{"a JWT before what others skip", good + "~."},
		{"a JWT before a path", good + "/.."},
		{"a JWT with a segment after it", good + ".x"},
		{"a JWT with two after it, of which one is none", good + "~.x.y"},
		{"one that is encrypted and padded", segment(`{"alg":"x"}`) + "=.b.c.d.e"},
		{"two iat", signed(`{"iat":1,"iat":2}`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := enforcer.ParseToken(tt.raw); !errors.Is(err, enforcer.ErrGarbage) || !reflect.DeepEqual(got, enforcer.Token{}) {
				t.Errorf("got %+v, %v", shown(got), err)
			}
		})
	}
}

// Every encoding of one signature is refused when one of them is revoked.
func TestSignaturesCannotBeDisguised(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 100 {
		signature := make([]byte, n+1)
		for i := range signature {
			signature[i] = byte(rng.Uint32())
		}
		bare := base64.RawURLEncoding.EncodeToString(signature)
		padded := base64.URLEncoding.EncodeToString(signature)
		head := segment(`{"alg":"RS256"}`) + ".e30."
		for _, revoked := range []string{bare, padded} {
			e := holding(t, revocation.DomainToken, revoked)
			for _, disguise := range []string{bare, padded, bare + "=", bare + "====", disguised(bare)} {
				token, err := e.Parse(head + disguise)
				if err != nil {
					t.Fatal(err)
				}
				wantVerdict(t, e, token, enforcer.Revoked)
			}
		}
	}
}

// disguised changes the bits of the last character that mean nothing.
func disguised(bare string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	if len(bare)%4 == 0 {
		return bare
	}
	last := len(bare) - 1
	return bare[:last] + string(alphabet[strings.IndexByte(alphabet, bare[last])|1])
}

// A token is looked up under every name that a publisher may have given it.
func TestDomains(t *testing.T) {
	byID := enforcer.Token{ID: "key", Expiry: revocation.Never}
	bySignature := enforcer.Token{Signature: "key", Expiry: revocation.Never}
	tests := []struct {
		name   string
		domain revocation.Domain
		token  enforcer.Token
		want   enforcer.Verdict
	}{
		{"a jti", revocation.DomainToken, byID, enforcer.Revoked},
		{"a signature", revocation.DomainToken, bySignature, enforcer.Revoked},
		{"an opaque token", revocation.DomainOpaque, opaqueToken("key"), enforcer.Revoked},
		{"an opaque token, revoked as a key of a JWT", revocation.DomainToken, opaqueToken("key"), enforcer.Revoked},
		{"a signature, revoked as an opaque token", revocation.DomainOpaque, bySignature, enforcer.Revoked},
		{"a jti, by an opaque token", revocation.DomainOpaque, byID, enforcer.Pass},
		{"a jti, by a refresh token", revocation.DomainRefresh, byID, enforcer.Pass},
		{"an opaque token with a jti is opaque", revocation.DomainToken, enforcer.Token{ID: "key", Opaque: "x"}, enforcer.Pass},
		{"nothing at all has expired", revocation.DomainToken, enforcer.Token{}, enforcer.Expired},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantVerdict(t, holding(t, tt.domain, "key"), tt.token, tt.want)
		})
	}
}

// A claim that no rule named when the token was read is read when one does.
func TestRulesAfterParse(t *testing.T) {
	h := newHub()
	e := build(t, configOf(clockAt(epoch), &adapter{address: "127.0.0.1:1"}))
	tell := func(position uint64, reset bool) {
		b, _ := h.batch(position, h.version, reset, 100)
		b.CompleteAtMicros = epoch.UnixMicro()
		if err := e.Take(respond(b, "hub")); err != nil {
			t.Fatal(err)
		}
	}
	h.rule("azp", "client", epoch)
	tell(0, true)
	token, err := e.Parse(signed(`{"jti":"a","iat":1,"azp":"other","sub":"alice","x":"y"}`))
	if err != nil || !reflect.DeepEqual(token.Claims, map[string][]string{"azp": {"other"}}) {
		t.Fatalf("%+v, %v", token.Claims, err)
	}
	wantVerdict(t, e, token, enforcer.Pass)
	at := h.version
	h.rule("sub", "alice", epoch)
	tell(at, false)
	wantVerdict(t, e, token, enforcer.Revoked)
	if d := e.Check(token); d.Rule != "sub" {
		t.Errorf("%+v", d)
	}
}

// A token that is remembered does not keep the header that it was cut from.
func TestParseCopiesWhatItKeeps(t *testing.T) {
	e := holding(t, revocation.DomainToken, "x")
	for _, raw := range []string{"opaque", signed(`{"jti":"a"}`)} {
		header := "Basic " + strings.Repeat("A", 100<<10) + ", Bearer " + raw
		token, err := e.Parse(header[len(header)-len(raw):])
		if err != nil {
			t.Fatal(err)
		}
		begin := uintptr(unsafe.Pointer(unsafe.StringData(header)))
		for _, text := range []string{token.Opaque, token.Signature} {
			if at := uintptr(unsafe.Pointer(unsafe.StringData(text))); text != "" && at >= begin && at < begin+uintptr(len(header)) {
				t.Errorf("%q is a piece of the header", text)
			}
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(signed(`{"jti":"a","iat":1,"exp":2,"azp":["x",1]}`))
	f.Add(signed(`{"\u006ati":"\ud800","a":{"b":[1,"}"]}}`))
	f.Add("eyJ.e30.")
	f.Add("a.b.c=")
	f.Fuzz(func(t *testing.T, raw string) {
		token, err := enforcer.ParseToken(raw)
		if err != nil {
			if !errors.Is(err, enforcer.ErrGarbage) {
				t.Errorf("error %v", err)
			}
			return
		}
		if token.Opaque != "" {
			if _, err := revocation.ReadJWT(raw); err == nil || token.Opaque != raw {
				t.Errorf("%q is taken for opaque", raw)
			}
			return
		}
		compareWithAdapter(t, raw, token)
	})
}

// compareWithAdapter compares a token with what the adapter reads of it: what
// is revoked there by a whole JWT must be found here.
func compareWithAdapter(t *testing.T, raw string, token enforcer.Token) {
	t.Helper()
	read, err := revocation.ReadJWT(raw)
	if err == nil && (read.ID != token.ID || read.Expiry != token.Expiry) {
		t.Errorf("%+v, the adapter reads %+v", shown(token), read)
	}
	if signature, err := base64.RawURLEncoding.Strict().DecodeString(token.Signature); err != nil || strings.Contains(token.Signature, "=") {
		t.Errorf("signature %q of %x: %v", token.Signature, signature, err)
	}
}

// FuzzPayload puts any text where the payload is.
func FuzzPayload(f *testing.F) {
	f.Add(`{"jti":"a","iat":1,"exp":2,"azp":["x",1]}`)
	f.Add(`{"a":{"b":[1,"}"]},"c":-1e5,"d":[[],{}]}`)
	f.Fuzz(func(t *testing.T, payload string) {
		raw := signed(payload)
		if token, err := enforcer.ParseToken(raw); err == nil {
			compareWithAdapter(t, raw, token)
		}
	})
}

// BenchmarkParseNew reads tokens that were not read lately.
func BenchmarkParseNew(b *testing.B) {
	tokens, raw := make([]string, 1<<15), kilobyte()
	for i := range tokens {
		tokens[i] = raw[:len(raw)-8] + fmt.Sprintf("%08d", i)
	}
	e := holding(b, revocation.DomainToken, "x")
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := e.Parse(tokens[i&(1<<15-1)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkParseAgain reads one token again and again.
func BenchmarkParseAgain(b *testing.B) {
	raw := kilobyte()
	e := holding(b, revocation.DomainToken, "x")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseToken(b *testing.B) {
	raw := kilobyte()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := enforcer.ParseToken(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// kilobyte is an access token like those of API-M, of 1 KB.
func kilobyte() string {
	head := segment(`{"x5t":"MzYxMmFkOGYwMWI0ZWNmNDcxNGYwYmM4ZTA3MWI2NDAzZGQzNGM0ZGRlNjJkODFkZDRiOTFkMWFhMzU2ZGVlNg","kid":"MzYxMmFkOGYwMWI0ZWNmNDcxNGYwYmM4ZTA3MWI2NDAzZGQzNGM0ZGRlNjJkODFkZDRiOTFkMWFhMzU2ZGVlNg_RS256","alg":"RS256"}`)
	body := segment(`{"sub":"alice","aut":"APPLICATION_USER","aud":"HdPH4YnDwc9klPtQ9672zFUfXka","nbf":1619852296,"azp":"HdPH4YnDwc9klPtQ9672zFUfXka","scope":"read:pets write:pets","iss":"https:\/\/localhost:9443\/oauth2\/token","exp":1819855896,"iat":1619852296,"jti":"4e330dbd-75c6-4ab5-a749-b9497aa3521a"}`)
	return head + "." + body + "." + strings.Repeat("a", 342)
}
