package enforcer

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"

	"revocation-adapter/revocation"
)

// Token is what a call carries: a JWT (an API key is one) or an opaque token.
type Token struct {
	ID        string // jti; empty: it has none
	Signature string // third segment of a JWT, canonical base64url without padding: older publishers revoke by it
	Opaque    string // an opaque token, whole; empty: a JWT
	IssuedAt  int64  // iat in milliseconds since the epoch; 0: it has none
	Expiry    int64  // exp in milliseconds since the epoch; revocation.Never: it has none. Of an opaque token, 0 is none too
	// Claims are those that rules may name, by their exact names: each text of a
	// string, of a number as it is written, or of a list of these.
	Claims map[string][]string

	read *reading // by Parse and ParseToken; nil: the token was made by hand
}

// expired says whether exp and grace have passed, all in milliseconds.
func (t *Token) expired(now, grace int64) bool {
	if t.Opaque != "" && t.Expiry == 0 {
		return false
	}
	return t.Expiry < revocation.Never-grace && t.Expiry+grace <= now
}

// ErrGarbage means that a text can be no token: nothing is known of it, so it
// must not pass.
var ErrGarbage = errors.New("not a token")

// maxToken bounds what is read, in bytes.
const maxToken = 64 << 10

// ParseToken reads the token of a call, with all its claims. It verifies nothing.
// What is no JWT, and does not look like one, is an opaque token. Its error is
// ErrGarbage.
func ParseToken(raw string) (Token, error) {
	t, err := parse(raw, filter{all: true})
	if err != nil {
		return t, err
	}
	t.read = newReading(raw, nil, t)
	t.read.all = true
	return t, nil
}

// Parse is ParseToken with no more claims than rules name, which is faster. Of a
// token that it returned, Check also sees the claims that a rule names only
// since.
func (e *Enforcer) Parse(raw string) (Token, error) {
	kept := e.view.Load().set.claims
	if t, ok := e.recent.find(raw, kept); ok {
		return t, nil
	}
	raw = strings.Clone(raw) // pieces of it are kept, and what it was cut from is not
	t, err := parse(raw, filter{names: kept})
	if err != nil {
		return t, err
	}
	t.read = newReading(raw, kept, t)
	e.recent.keep(t)
	return t, nil
}

// String says nothing of the token, so that it is in no log by mistake.
func (t Token) String() string {
	if t.Opaque != "" {
		return "an opaque token"
	}
	return "a JWT"
}

// claim returns the values of a claim.
func (t *Token) claim(name string) []string {
	if t.read != nil && !t.read.all && !slices.Contains(t.read.kept, name) {
		whole, err := parse(t.read.raw, filter{all: true})
		if err != nil { // it was read before
			return nil
		}
		t.Claims, t.read = whole.Claims, nil
	}
	return t.Claims[name]
}

func parse(raw string, f filter) (Token, error) {
	if len(raw) > maxToken || !bearer(raw) {
		return Token{}, ErrGarbage
	}
	header, rest, _ := strings.Cut(raw, ".")
	payload, signature, two := strings.Cut(rest, ".")
	if !two || strings.Contains(signature, ".") {
		return opaque(raw)
	}
	if head := decodeSegment(header); isObject(head) {
		return parseJWT(head, payload, signature, f)
	}
	return opaque(raw)
}

func opaque(raw string) (Token, error) {
	text := strings.TrimRight(raw, "=")
	if text == "" || strings.Contains(text, "=") || holdsJWT(raw) {
		return Token{}, ErrGarbage
	}
	return Token{Opaque: raw, Expiry: revocation.Never}, nil
}

// holdsJWT says whether somebody may find a JWT in what is none: Envoy cuts off
// what is no base64url. An encrypted one, of five segments, is taken as it is.
func holdsJWT(raw string) bool {
	dots := strings.Count(raw, ".")
	odd := strings.ContainsAny(raw, "~+/=")
	switch {
	case dots < 2:
		return false
	case odd: // "{" and a quote, a blank or a line break
		return slices.ContainsFunc([]string{"eyJ", "eyA", "ewk", "ewo", "ew0"}, func(begin string) bool { return strings.Contains(raw, begin) })
	}
	return dots != 4 && strings.Contains(raw, "eyJ")
}

func parseJWT(head []byte, payload, signature string, f filter) (Token, error) {
	body := decodeSegment(payload)
	sig, ok := canonical(signature)
	if !ok || !isObject(body) || !hasAlg(head) {
		return Token{}, ErrGarbage
	}
	r := reader{filter: f, token: Token{Signature: sig, Expiry: revocation.Never}}
	for key, value := range members(body) {
		if !r.take(key, value) {
			return Token{}, ErrGarbage
		}
	}
	return r.token, nil
}

func hasAlg(head []byte) bool {
	for key := range members(head) {
		if string(key) == "alg" {
			return true
		}
	}
	return false
}

// reader reads the payload of a JWT, member by member.
type reader struct {
	filter
	token         Token
	jti, iat, exp bool // they came already
}

// take reads a member. One that counts must not come twice: who verifies the
// token may have read the other one.
func (r *reader) take(key, value []byte) bool {
	ok := true
	switch string(key) {
	case "jti":
		r.jti, ok = true, !r.jti
		r.token.ID, _ = text(value)
	case "iat":
		r.iat, ok = true, !r.iat
		r.token.IssuedAt = issuedAt(value)
	case "exp":
		expiry, _, err := revocation.ReadExpiry(value)
		r.exp, ok = true, !r.exp && err == nil
		r.token.Expiry = expiry
	}
	if name, wanted := r.name(key); wanted && ok {
		r.keep(name, value)
	}
	return ok
}

// keep keeps the texts of a claim. One that comes twice has all its values.
func (r *reader) keep(name string, value []byte) {
	values := r.token.Claims[name]
	before := len(values)
	if value[0] == '[' {
		for element := range elements(value) {
			values = appendText(values, element)
		}
	} else {
		values = appendText(values, value)
	}
	if len(values) == before {
		return
	}
	if r.token.Claims == nil {
		r.token.Claims = map[string][]string{}
	}
	r.token.Claims[name] = values
}

// appendText appends a string, or a number as it is written.
func appendText(values []string, value []byte) []string {
	if c := value[0]; c == '-' || '0' <= c && c <= '9' {
		return append(values, string(value))
	}
	if s, ok := text(value); ok {
		return append(values, s)
	}
	return values
}

// issuedAt reads a NumericDate in milliseconds, rounded down: to the older side,
// which rules revoke. 0: it is none.
func issuedAt(value []byte) int64 {
	seconds, err := strconv.ParseFloat(string(value), 64)
	switch {
	case err != nil || !(seconds > 0):
		return 0
	case seconds >= float64(revocation.Never/1000):
		return revocation.Never
	}
	return int64(math.Floor(seconds * 1000))
}

// filter says which claims are kept.
type filter struct {
	all   bool
	names []string
}

func (f filter) name(key []byte) (string, bool) {
	if f.all {
		return string(key), true
	}
	for _, name := range f.names {
		if name != "" && string(key) == name {
			return name, true
		}
	}
	return "", false
}
