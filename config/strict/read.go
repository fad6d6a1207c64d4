// Package strict reads the TOML file of a process over its defaults, and forgives
// nothing.
//
// Unknown keys are refused with their line, and all faults are reported at once,
// each by its key. $env{NAME} in a string value is replaced by the environment
// variable; where an error shows such a value, it shows it as the file has it.
// No error and no output of the package holds a secret. It opens the named
// files, to see that they can be read, and nothing else.
//
// A configuration is a struct of sections, each field with a toml tag. A field is
// a string, Secret, URL, Duration, bool, int, int64, a list of strings or URLs,
// a section of its own, or a list of sections, [[in TOML]].
package strict

import (
	"fmt"
	"io"
	"os"
	"reflect"
)

// Checked is a configuration that knows its own rules.
type Checked interface {
	// Check reports every broken rule that can be seen without touching a file.
	Check(f *Faults)
	// Files are those that the configuration names.
	Files() []File
}

// Environment is asked for variables, in the manner of os.LookupEnv.
type Environment func(string) (string, bool)

// Load reads the file at path over defaults with the process's environment,
// checks the outcome and the files it names. The error names path and holds
// every fault.
func Load[C Checked](path string, defaults C) (C, error) {
	var none C
	data, err := os.ReadFile(path)
	if err != nil {
		return none, fmt.Errorf("read configuration: %w", err)
	}
	c, r := read(data, os.LookupEnv, defaults)
	r.faults.follow(r.asWritten(checkFiles(c.Files())))
	if err := r.faults.Join(); err != nil {
		return none, fmt.Errorf("configuration %s:\n%w", path, err)
	}
	return c, nil
}

// Read reads TOML over defaults and checks the outcome, without looking at the
// files it names. The error joins every fault.
func Read[C Checked](source io.Reader, env Environment, defaults C) (C, error) {
	var none C
	data, err := io.ReadAll(source)
	if err != nil {
		return none, fmt.Errorf("read configuration: %w", err)
	}
	c, r := read(data, env, defaults)
	if err := r.faults.Join(); err != nil {
		return none, err
	}
	return c, nil
}

// read returns a configuration that counts only if the reader has no faults.
func read[C Checked](data []byte, env Environment, c C) (C, *reader) {
	r := &reader{env: env, written: map[string]string{}}
	tree, broken := parse(data)
	if broken != nil {
		r.faults = Faults{*broken}
		return c, r
	}
	r.unknown = linesOfUnknown(data, reflect.TypeFor[C]())
	r.section(nil, reflect.ValueOf(&c).Elem(), tree)
	var found Faults
	c.Check(&found)
	r.faults.follow(r.asWritten(found))
	return c, r
}

// reader carries one file's values into a configuration.
type reader struct {
	env     Environment
	unknown unknownLines
	written map[string]string // key → a value with $env{} as the file has it
	faults  Faults
}

// asWritten replaces what came from the environment by what the file says.
func (r *reader) asWritten(found Faults) Faults {
	for i, one := range found {
		if text, ok := r.written[one.key]; ok && one.is != "" {
			found[i].is = fmt.Sprintf("%q", text)
		}
	}
	return found
}

// section sets the fields of one struct, in its own order, so that faults come
// in the order of the documentation.
func (r *reader) section(path []string, target reflect.Value, tree map[string]any) {
	r.strangers(path, target.Type(), tree)
	for i := range target.NumField() {
		name := target.Type().Field(i).Tag.Get("toml")
		if value, ok := tree[name]; ok {
			r.field(append(path[:len(path):len(path)], name), target.Field(i), value)
		}
	}
}

func (r *reader) field(path []string, target reflect.Value, value any) {
	switch {
	case target.Kind() == reflect.Struct:
		r.table(path, target, value)
	case isTables(target.Type()):
		r.tables(path, target, value)
	default:
		r.set(dotted(path), target.Addr().Interface(), value)
	}
}

func (r *reader) table(path []string, target reflect.Value, value any) {
	table, ok := value.(map[string]any)
	if !ok {
		r.faults.Wrong(dotted(path), "a table", kindOf(value))
		return
	}
	r.section(path, target, table)
}

// tables replaces a list of sections: each begins empty, and is named by its
// place, as in one_time[0].
func (r *reader) tables(path []string, target reflect.Value, value any) {
	list, ok := value.([]any)
	if !ok {
		r.faults.Wrong(dotted(path), "a list of tables", kindOf(value))
		return
	}
	target.SetZero()
	if len(list) > 0 {
		target.Set(reflect.MakeSlice(target.Type(), len(list), len(list)))
	}
	for i, element := range list {
		last := len(path) - 1
		r.table(append(path[:last:last], place(path[last], i)), target.Index(i), element)
	}
}

// isTables says whether the type is a list of sections.
func isTables(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct
}
