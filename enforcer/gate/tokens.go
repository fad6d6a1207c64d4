package gate

import (
	"errors"
	"slices"
	"strings"
)

// Places are where a call carries tokens. All that are found are looked at.
type Places struct {
	Bearer       bool   // Authorization
	APIKeyHeader string // "": none
	Cookie       string // "": none
	Query        string // "": none
}

func (p Places) canonical() Places {
	p.APIKeyHeader = strings.ToLower(p.APIKeyHeader)
	return p
}

// errMalformed means that something stands where a token should, and is none. It
// says nothing more: what stands there may be a secret.
var errMalformed = errors.New("what the call carries is no token")

// maxTokens is how many different tokens a call may carry.
const maxTokens = 16

// finder collects the tokens of one call, each once, in the order found.
type finder struct {
	tokens []string
	err    error
}

func (f *finder) add(token string) {
	switch {
	case slices.Contains(f.tokens, token):
	case !isToken(token) || len(f.tokens) == maxTokens:
		f.err = errMalformed
	default:
		f.tokens = append(f.tokens, token)
	}
}

// isToken accepts visible ASCII.
func isToken(text string) bool {
	for i := range len(text) {
		if text[i] <= ' ' || text[i] >= 0x7f {
			return false
		}
	}
	return text != ""
}

// find returns all tokens of a call.
func (p Places) find(r Request) ([]string, error) {
	var f finder
	if p.Bearer {
		for _, value := range r.Header("authorization") {
			f.bearer(value)
		}
	}
	if p.APIKeyHeader != "" {
		for _, value := range r.Header(p.APIKeyHeader) {
			f.apiKey(value)
		}
	}
	if p.Cookie != "" {
		for _, value := range r.Header("cookie") {
			f.cookies(value, p.Cookie)
		}
	}
	if p.Query != "" {
		for i, line := range r.Lines {
			if i == 0 || line.Target != r.Lines[i-1].Target { // most differ in their method alone
				f.query(line.Target, p.Query)
			}
		}
	}
	return f.tokens, f.err
}

// bearer takes the tokens of one Authorization value. Gateways join repeated
// headers with commas, so that each part may begin with a scheme. What has none is
// a parameter of the scheme before it; where there was none it is a token, as some
// servers take it, and after a Bearer token nothing that we know.
func (f *finder) bearer(value string) {
	const bearer = "bearer"
	scheme := "" // of the part before, in lower case
	for part := range strings.SplitSeq(value, ",") {
		part = trim(part)
		word, _, blank := strings.Cut(strings.ReplaceAll(part, "\t", " "), " ")
		token, is := cutScheme(part)
		switch {
		case part == "":
		case is:
			f.add(token)
			scheme = bearer
		case scheme == "" && !blank:
			f.add(part)
			scheme = bearer
		case scheme == bearer && !blank:
			f.err = errMalformed
		default:
			if blank && (scheme == "" || scheme == bearer || !strings.Contains(word, "=")) {
				scheme = strings.ToLower(word)
			}
			f.notBearer(scheme, part)
		}
	}
}

// notBearer refuses a part of another scheme in which somebody may find a token
// nevertheless: Envoy looks for "Bearer " anywhere, and cuts off what is no
// base64url. A word with two dots may be a JWT, unless the scheme is known to have
// such words.
func (f *finder) notBearer(scheme, part string) {
	known := slices.Contains([]string{"basic", "digest", "negotiate"}, scheme)
	if strings.Contains(strings.ToLower(part), "bearer") {
		f.err = errMalformed
	}
	for word := range strings.FieldsSeq(part) {
		if strings.Count(word, ".") >= 2 && (!known || strings.Contains(word, "eyJ")) {
			f.err = errMalformed
		}
	}
}

// cutScheme returns what follows the scheme Bearer. What begins like it and goes
// on with something that no scheme has is taken for it, and then is no token.
func cutScheme(part string) (string, bool) {
	const scheme = "bearer"
	if len(part) < len(scheme) || !strings.EqualFold(part[:len(scheme)], scheme) {
		return "", false
	}
	rest := part[len(scheme):]
	switch {
	case rest == "" || rest[0] == ' ' || rest[0] == '\t':
		return trim(rest), true
	case isSchemeByte(rest[0]):
		return "", false
	}
	return "", true
}

func isSchemeByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$&'*+-.^_`|~", c) >= 0
}

// apiKey takes the keys of one value, with the scheme Bearer or without.
func (f *finder) apiKey(value string) {
	for part := range strings.SplitSeq(value, ",") {
		part = trim(part)
		if token, is := cutScheme(part); is {
			part = token
		} else if part == "" {
			continue
		}
		f.add(part)
	}
}

// cookies takes the named cookies of one value. Some servers end one at a blank as
// well: each word is looked at, too.
func (f *finder) cookies(value, name string) {
	for pair := range strings.FieldsFuncSeq(value, func(c rune) bool { return c == ';' || c == ',' }) {
		f.pair(pair, name)
		if strings.ContainsAny(trim(pair), " \t") {
			for word := range strings.FieldsSeq(pair) {
				f.pair(word, name)
			}
		}
	}
}

func (f *finder) pair(pair, name string) {
	key, token, _ := strings.Cut(trim(pair), "=")
	if named(key, name) {
		f.encoded(strings.Trim(trim(token), `"`))
	}
}

// query takes the named parameters of a target.
func (f *finder) query(target, name string) {
	for key, value := range parameters(target) {
		if named(key, name) {
			f.encoded(value)
		}
	}
}

// encoded takes a value that whoever serves the call may decode, or not. An empty
// one is no token. A plus at an end may be a blank, which is trimmed, or a plus.
func (f *finder) encoded(value string) {
	plain, changed := unescape(value)
	if plain = trim(plain); plain == "" {
		return
	}
	f.add(plain)
	if bare := strings.Trim(plain, "+ \t"); bare != "" && bare != plain {
		f.add(bare)
	}
	if again, twice := unescape(plain); changed && twice && again != plain {
		f.err = errMalformed // encoded twice
	}
}

func trim(text string) string { return strings.Trim(text, " \t") }
