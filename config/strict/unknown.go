package strict

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// unknownLines are the lines of keys that no field has: of the path of a key,
// and of its last name alone after a dot. In a list of sections several keys
// have one path, in the order of the file.
type unknownLines map[string][]string

// take returns the line of a key: of a path that several have, the next one.
func (u unknownLines) take(key, name string) string {
	path := regexp.MustCompile(`\[[0-9]+\]`).ReplaceAllString(key, "")
	lines, ok := u[path]
	if !ok {
		lines = u["."+name]
	}
	if len(lines) == 0 {
		return ""
	}
	if len(lines) > 1 {
		u[path] = lines[1:]
	}
	return lines[0]
}

// linesOfUnknown finds every key that no field has. The decoder's strict mode
// finds them, in a copy of the configuration that accepts any value: types are
// checked later, key by key.
func linesOfUnknown(data []byte, configuration reflect.Type) unknownLines {
	lines := unknownLines{}
	target := reflect.New(anyOf(configuration)).Interface()
	err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(target)
	var strict *toml.StrictMissingError
	if !errors.As(err, &strict) {
		return lines
	}
	for _, missing := range strict.Errors {
		row, column := missing.Position()
		lines.add(missing.Key(), fmt.Sprintf("\n%4d| %s", row, excerpt(data, row, column)))
	}
	return lines
}

func (u unknownLines) add(path []string, text string) {
	for depth := range len(path) - 1 { // [a.b] is reported by its unknown a
		key := dotted(path[:depth+1])
		if len(u[key]) == 0 {
			u[key] = []string{text}
		}
	}
	u[dotted(path)] = append(u[dotted(path)], text)
	// In an inline table the path is not whole: its last name has to do,
	// unless it is unknown in two places.
	last := "." + path[len(path)-1]
	if _, twice := u[last]; twice {
		text = ""
	}
	u[last] = []string{text}
}

// anyOf is the struct type with every value replaced by any.
func anyOf(section reflect.Type) reflect.Type {
	fields := make([]reflect.StructField, section.NumField())
	for i := range fields {
		field := section.Field(i)
		shape := reflect.TypeFor[any]()
		switch {
		case field.Type.Kind() == reflect.Struct:
			shape = anyOf(field.Type)
		case isTables(field.Type):
			shape = reflect.SliceOf(anyOf(field.Type.Elem()))
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
	return strings.TrimSpace(name) + " = " + Mask
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
		detail := r.unknown.take(key, name)
		if known[strings.ToLower(name)] {
			detail = ", the name is in lower case: " + strings.ToLower(name)
		}
		r.faults.Add(key, "unknown key"+detail)
	}
}
