package gate

import "strings"

// Headers returns what a Request wants: all values of a header, by its name.
// Names count in any case, and with "_" for "-": servers behind CGI, WSGI and the
// like cannot tell the two apart.
func Headers(all map[string][]string) func(name string) []string {
	return func(name string) (values []string) {
		for key, of := range all {
			if sameHeader(key, name) {
				values = append(values, of...)
			}
		}
		return values
	}
}

func sameHeader(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	if strings.EqualFold(a, b) {
		return true
	}
	return strings.EqualFold(strings.ReplaceAll(a, "_", "-"), strings.ReplaceAll(b, "_", "-"))
}
