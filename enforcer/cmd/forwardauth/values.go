package forwardauth

import (
	"iter"
	"net/http"
	"slices"
	"strings"
)

// values are those of headers, each once. On their way several may have become
// one, with commas: then each counts as well as the whole, which may be a path
// with commas. One more than maxNamed is too many: the rest is not read.
func values(r *http.Request, headers []string, begins func(rest string) bool) []string {
	var all []string
	for _, name := range headers {
		for _, value := range r.Header.Values(name) {
			all = add(all, value)
			for piece := range pieces(value, begins) {
				if all = add(all, piece); len(all) > maxNamed {
					return all
				}
			}
		}
	}
	return all
}

func add(all []string, value string) []string {
	value = strings.TrimSpace(value)
	if value == "" || len(all) > maxNamed || slices.Contains(all, value) {
		return all
	}
	return append(all, value)
}

// pieces cuts a value at the commas after which another one begins.
func pieces(value string, begins func(rest string) bool) iter.Seq[string] {
	return func(yield func(string) bool) {
		from := 0
		for i := range len(value) {
			if value[i] != ',' || !begins(value[i+1:]) {
				continue
			}
			if !yield(value[from:i]) {
				return
			}
			from = i + 1
		}
		yield(value[from:])
	}
}

// beginsTarget says whether a text begins as a path or a whole URL does: a comma
// before anything else is of the URI itself.
func beginsTarget(rest string) bool {
	rest = strings.TrimLeft(rest, " \t")
	scheme := strings.TrimLeftFunc(rest, func(c rune) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' })
	return strings.HasPrefix(rest, "/") || len(scheme) < len(rest) && strings.HasPrefix(scheme, "://")
}
