package strict

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// parse returns the file as a tree, or what stopped it.
func parse(data []byte) (map[string]any, *Fault) {
	var tree map[string]any
	err := toml.Unmarshal(data, &tree)
	if err == nil {
		return tree, nil
	}
	var at *toml.DecodeError
	if !errors.As(err, &at) {
		return nil, &Fault{key: "configuration", problem: quiet(err.Error())}
	}
	row, column := at.Position()
	return nil, &Fault{
		key:     fmt.Sprintf("line %d, column %d", row, column),
		problem: quiet(at.Error()),
	}
}

// quiet removes the pieces of the file that go-toml puts into a message, since
// they may be pieces of a secret. For the same reason nothing here shows the
// lines around an error, as DecodeError.String does.
func quiet(message string) string {
	message, _, _ = strings.Cut(strings.TrimPrefix(message, "toml: "), ": strconv")
	message = regexp.MustCompile(`but got U\+.*`).ReplaceAllString(message, "but got something else")
	return regexp.MustCompile(`:? U\+[0-9A-F]+( '.')?`).ReplaceAllString(message, "")
}

// dotted writes a key as TOML does, quoting the names that need it.
func dotted(path []string) string {
	names := make([]string, len(path))
	for i, name := range path {
		names[i] = name
		if !regexp.MustCompile(`^[A-Za-z0-9_-]+(\[[0-9]+\])?$`).MatchString(name) {
			names[i] = strconv.Quote(name)
		}
	}
	return strings.Join(names, ".")
}

// place names one element of a list.
func place(name string, i int) string { return fmt.Sprintf("%s[%d]", name, i) }

func kindOf(value any) string {
	switch value.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a number with a fraction"
	case bool:
		return "true or false"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	}
	return "a date or a time"
}
