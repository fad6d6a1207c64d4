package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// parse returns the file as a tree, or what stopped it.
func parse(data []byte) (map[string]any, *fault) {
	var tree map[string]any
	err := toml.Unmarshal(data, &tree)
	if err == nil {
		return tree, nil
	}
	var at *toml.DecodeError
	if !errors.As(err, &at) {
		return nil, &fault{key: "configuration", problem: quiet(err.Error())}
	}
	row, column := at.Position()
	return nil, &fault{
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

// unknownLines maps every key that no field has to its line. The decoder's
// strict mode finds them, in a copy of Config that accepts any value: types
// are checked later, key by key.
func unknownLines(data []byte) map[string]string {
	lines := map[string]string{}
	target := reflect.New(anyOf(reflect.TypeFor[Config]())).Interface()
	err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(target)
	var strict *toml.StrictMissingError
	if !errors.As(err, &strict) {
		return lines
	}
	for _, missing := range strict.Errors {
		row, column := missing.Position()
		text := fmt.Sprintf("\n%4d| %s", row, excerpt(data, row, column))
		path := missing.Key()
		for depth := range path { // [a.b] is reported by its unknown a
			key := dotted(path[:depth+1])
			lines[key] = cmp.Or(lines[key], text)
		}
		// In an inline table the path is not whole: its last name has to do,
		// unless it is unknown in two places.
		last := "." + path[len(path)-1]
		if _, twice := lines[last]; twice {
			text = ""
		}
		lines[last] = text
	}
	return lines
}

// anyOf is the struct type with every value replaced by any.
func anyOf(section reflect.Type) reflect.Type {
	fields := make([]reflect.StructField, section.NumField())
	for i := range fields {
		field := section.Field(i)
		shape := reflect.TypeFor[any]()
		if field.Type.Kind() == reflect.Struct {
			shape = anyOf(field.Type)
		}
		fields[i] = reflect.StructField{Name: field.Name, Type: shape, Tag: field.Tag}
	}
	return reflect.StructOf(fields)
}

// excerpt is the line of an unknown key, without its value: a misspelt
// password is a password. Where the key does not open the line, what stands
// before it may be another value, and only dots are shown.
func excerpt(data []byte, row, column int) string {
	line := string(bytes.Split(data, []byte("\n"))[row-1])
	before, after := line[:column-1], line[column-1:]
	if strings.Trim(before, " \t[") != "" {
		return "..."
	}
	if strings.Contains(before, "[") {
		name, _, _ := strings.Cut(after, "]")
		return strings.TrimSpace(before) + name + strings.Repeat("]", strings.Count(before, "["))
	}
	name, _, _ := strings.Cut(after, "=")
	return strings.TrimSpace(name) + " = " + mask
}

// strangers reports the keys of a table that its section does not have. Names
// are compared exactly: the decoder alone would take Listen for listen.
func (r *reader) strangers(path []string, section reflect.Type, tree map[string]any) {
	known := map[string]bool{}
	for i := range section.NumField() {
		known[section.Field(i).Tag.Get("toml")] = true
	}
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		if known[name] {
			continue
		}
		key := dotted(append(path[:len(path):len(path)], name))
		detail := cmp.Or(r.unknown[key], r.unknown["."+name])
		if known[strings.ToLower(name)] {
			detail = ", the name is in lower case: " + strings.ToLower(name)
		}
		r.faults.add(key, "unknown key"+detail)
	}
}

// dotted writes a key as TOML does, quoting the names that need it.
func dotted(path []string) string {
	names := make([]string, len(path))
	for i, name := range path {
		names[i] = name
		if !regexp.MustCompile(`^[A-Za-z0-9_-]+$`).MatchString(name) {
			names[i] = strconv.Quote(name)
		}
	}
	return strings.Join(names, ".")
}

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
