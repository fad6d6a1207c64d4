package strict

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Mask stands for a secret wherever the configuration is shown.
const Mask = "********"

// Duration is a time.Duration, written in a file as time.ParseDuration reads
// it: "10m", "1h30m".
type Duration time.Duration

// String drops the zero units that time.Duration prints: "10m", not "10m0s".
func (d Duration) String() string {
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// MarshalText is String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}

// Secret prints and marshals as a mask, under every verb; a conversion to
// string gives the value. An empty secret stays empty.
type Secret string

// String is the mask.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return Mask
}

// Format prints the mask.
func (s Secret) Format(state fmt.State, _ rune) { Show(state, s.String()) }

// MarshalText is the mask.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Masking is a string type whose values may hold a secret, and show themselves
// without it.
type Masking interface{ Masked() string }

// URL is the address of a server and may hold a password or a token. It prints
// and marshals without them; a conversion to string gives the whole.
type URL string

// String masks the password of user:password@, the whole of what else stands
// before the @ (it would be a token), and a port that is none (it would be a
// password without its @). It works on the text, since what no parser accepts
// must not show its password either.
func (u URL) String() string {
	scheme, info, rest := u.split()
	if i := strings.IndexAny(rest, "?#"); i >= 0 {
		rest = rest[:i+1] + Mask
	}
	if strings.HasPrefix(rest, "@") {
		return scheme + maskedUser(info) + rest
	}
	server, _, _ := strings.Cut(rest, "/")
	colon := strings.Index(server, ":")
	if colon < 0 || server[0] == '[' || IsPort(server[colon+1:]) {
		return scheme + rest
	}
	return scheme + server[:colon+1] + Mask
}

// Masked is String.
func (u URL) Masked() string { return u.String() }

// split cuts before the last @, and after a :// in front of it.
func (u URL) split() (scheme, info, rest string) {
	text := string(u)
	at := max(strings.LastIndex(text, "@"), 0)
	start := 0
	if i := strings.Index(text, "://"); i >= 0 && (i+3 <= at || text[at] != '@') {
		start = i + 3
	}
	return text[:start], text[start:max(at, start)], text[max(at, start):]
}

// Format prints what String returns.
func (u URL) Format(state fmt.State, _ rune) { Show(state, u.String()) }

// MarshalText is String.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// Show writes text for a Formatter. It serves fmt, which ignores a Formatter's write errors as well.
func Show(state fmt.State, text string) { _, _ = io.WriteString(state, text) }

func maskedUser(info string) string {
	if user, _, ok := strings.Cut(info, ":"); ok {
		return user + ":" + Mask
	}
	return Mask
}
