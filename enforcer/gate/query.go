package gate

import (
	"iter"
	"strings"
	"unicode/utf8"
)

// parameters yields the names and the values of a target's query, as they came.
// Some servers end a value at a semicolon, and the query at a "#", and some do not:
// all is looked at.
func parameters(target string) iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		_, query, _ := strings.Cut(target, "?")
		for _, ends := range []string{"&", "&#", "&;", "&;#"} {
			if ends != "&" && !strings.ContainsAny(query, ends[1:]) {
				continue
			}
			for pair := range strings.FieldsFuncSeq(query, func(c rune) bool { return strings.ContainsRune(ends, c) }) {
				key, value, _ := strings.Cut(pair, "=")
				if !yield(key, value) {
					return
				}
			}
		}
	}
}

// named says whether a server may take the name of a parameter, or of a cookie, for
// the one that is meant: in any case, with "." and a blank as "_", as a list, up to
// a NUL.
func named(key, name string) bool {
	key, _ = unescape(strings.ReplaceAll(key, "+", " "))
	key = upTo(key, "\x00")
	key, name = underscored(key), underscored(name)
	return key == name || strings.HasPrefix(key, name+"[")
}

func underscored(name string) string {
	name = strings.ReplaceAll(strings.ReplaceAll(strings.ToLower(trim(name)), ".", "_"), " ", "_")
	if _, index, list := strings.Cut(name, "["); list && !strings.Contains(index, "]") {
		name = strings.ReplaceAll(name, "[", "_")
	}
	return name
}

// unescape decodes every %XX that is one, and %uXXXX, as IIS does, and leaves
// everything else. It says whether anything was decoded.
func unescape(text string) (string, bool) {
	if !strings.Contains(text, "%") {
		return text, false
	}
	out, changed := make([]byte, 0, len(text)), false
	for i := 0; i < len(text); {
		var length int
		out, length = appendDecoded(out, text[i:])
		i, changed = i+length, changed || length > 1
	}
	return string(out), changed
}

// appendDecoded appends the first byte of text, or what it is the code of, and says
// how long that is.
func appendDecoded(out []byte, text string) ([]byte, int) {
	from, to := 1, 3
	if len(text) > 1 && (text[1] == 'u' || text[1] == 'U') {
		from, to = 2, 6
	}
	if text[0] != '%' || len(text) < to {
		return append(out, text[0]), 1
	}
	code := rune(0)
	for _, digit := range []byte(text[from:to]) {
		value := nibble(digit)
		if value == 16 {
			return append(out, text[0]), 1
		}
		code = code<<4 | rune(value)
	}
	if to == 3 {
		return append(out, byte(code)), to
	}
	return utf8.AppendRune(out, code), to
}

// nibble is the value of a hexadecimal digit, or 16.
func nibble(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 16
}
