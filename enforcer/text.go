package enforcer

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"iter"
	"strings"
	"unicode/utf8"
)

// Of which bytes below 64, and from there on, a bearer token consists (RFC 6750):
// letters, digits and -._~+/=, as bits.
const (
	bearerLow  = 0x3ff<<'0' | 1<<'-' | 1<<'.' | 1<<'+' | 1<<'/' | 1<<'='
	bearerHigh = 0x3ffffff<<('A'-64) | 0x3ffffff<<('a'-64) | 1<<('_'-64) | 1<<('~'-64)
)

// bearer says whether s has no other bytes. Where padding may be, it does not
// say: a JWT of API-M has it before dots.
func bearer(s string) bool {
	for i := range len(s) {
		bits := uint64(bearerLow)
		if s[i] >= 64 {
			bits = bearerHigh
		}
		if s[i] >= 128 || bits>>(s[i]&63)&1 == 0 {
			return false
		}
	}
	return s != ""
}

// decodeSegment decodes base64url, padded or not; nil, if it is none.
func decodeSegment(segment string) []byte {
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(segment, "="))
	if err != nil {
		return nil
	}
	return raw
}

const base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// canonical returns a segment as it is when encoded without padding: the last
// character of another encoding may have bits that mean nothing. False, if it is
// no base64url.
func canonical(segment string) (string, bool) {
	segment = strings.TrimRight(segment, "=")
	if strings.ContainsAny(segment, "=.~+/") || len(segment)%4 == 1 {
		return "", false
	}
	spare := spareBits(len(segment))
	if spare == 0 {
		return segment, true
	}
	last := len(segment) - 1
	value := strings.IndexByte(base64url, segment[last])
	if value&(1<<spare-1) == 0 {
		return segment, true
	}
	return segment[:last] + string(base64url[value>>spare<<spare]), true
}

// spareBits is how many bits of the last character of n mean nothing.
func spareBits(n int) int { return [4]int{0, 0, 4, 2}[n%4] }

// isObject says whether raw is the JSON text of an object. Of nothing else the
// functions below are asked.
func isObject(raw []byte) bool {
	trimmed := bytes.TrimLeft(raw, " \t\r\n")
	return len(trimmed) > 0 && trimmed[0] == '{' && json.Valid(trimmed)
}

// members yields the names and the JSON texts of the members of an object.
func members(object []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		rest := inside(object)
		for rest[0] != '}' {
			n := valueLen(rest)
			key := name(rest[:n])
			rest = space(space(rest[n:])[1:]) // the colon
			n = valueLen(rest)
			if !yield(key, rest[:n]) {
				return
			}
			rest = next(rest[n:])
		}
	}
}

// elements yields the JSON texts of the elements of an array.
func elements(array []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		rest := inside(array)
		for rest[0] != ']' {
			n := valueLen(rest)
			if !yield(rest[:n]) {
				return
			}
			rest = next(rest[n:])
		}
	}
}

func inside(b []byte) []byte { return space(space(b)[1:]) }

// next skips a comma, if there is one.
func next(b []byte) []byte {
	b = space(b)
	if b[0] == ',' {
		b = space(b[1:])
	}
	return b
}

func space(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t' || b[0] == '\n' || b[0] == '\r') {
		b = b[1:]
	}
	return b
}

// valueLen is the length of the JSON text at the beginning of b.
func valueLen(b []byte) int {
	switch b[0] {
	case '"':
		return stringLen(b)
	case '{', '[':
		return nestedLen(b)
	}
	return bytes.IndexAny(b, ",]} \t\r\n")
}

func stringLen(b []byte) int {
	for i := 1; ; i++ {
		switch b[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		}
	}
}

func nestedLen(b []byte) int {
	depth := 0
	for i := 0; ; i++ {
		switch b[i] {
		case '"':
			i += stringLen(b[i:]) - 1
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			if depth == 0 {
				return i + 1
			}
		}
	}
}

// name is the text of a name. It may be written in many ways.
func name(quoted []byte) []byte {
	if plain(quoted) {
		return quoted[1 : len(quoted)-1]
	}
	s, _ := text(quoted)
	return []byte(s)
}

// text is the text of a JSON string; false, if it is none.
func text(value []byte) (string, bool) {
	if value[0] != '"' {
		return "", false
	}
	if plain(value) {
		return string(value[1 : len(value)-1]), true
	}
	var s string
	err := json.Unmarshal(value, &s)
	return s, err == nil
}

// plain says whether a JSON string is written as what it means.
func plain(quoted []byte) bool {
	return bytes.IndexByte(quoted, '\\') < 0 && utf8.Valid(quoted)
}
