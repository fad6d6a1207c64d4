package config

import (
	"fmt"
	"io"
	"os"
	"reflect"
)

// Load reads the file at path with the process's environment, validates it and
// checks the files it names. The error names path and holds every fault.
func Load(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	c, r := read(data, os.LookupEnv)
	r.faults.follow(r.asWritten(c.checkFiles()))
	if err := r.faults.join(); err != nil {
		return Config{}, fmt.Errorf("configuration %s:\n%w", path, err)
	}
	return c, nil
}

// Read reads TOML over the defaults and validates the outcome, without looking
// at the files it names. The environment is asked through env, in the manner
// of os.LookupEnv. The error joins every fault.
func Read(source io.Reader, env func(string) (string, bool)) (Config, error) {
	data, err := io.ReadAll(source)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	c, r := read(data, env)
	if err := r.faults.join(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// read returns a Config that counts only if the reader has no faults.
func read(data []byte, env func(string) (string, bool)) (Config, *reader) {
	c, r := Default(), &reader{env: env, written: map[string]string{}}
	tree, broken := parse(data)
	if broken != nil {
		r.faults = faults{*broken}
		return c, r
	}
	r.unknown = unknownLines(data)
	r.section(nil, reflect.ValueOf(&c).Elem(), tree)
	r.faults.follow(r.asWritten(c.validate()))
	return c, r
}

// reader carries one file's values into a Config.
type reader struct {
	env     func(string) (string, bool)
	unknown map[string]string // the line of a key that no field has
	written map[string]string // key → a value with $env{} as the file has it
	faults  faults
}

// asWritten replaces what came from the environment by what the file says.
func (r *reader) asWritten(found faults) faults {
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
		value, ok := tree[name]
		if !ok {
			continue
		}
		at := append(path[:len(path):len(path)], name)
		if target.Field(i).Kind() != reflect.Struct {
			r.set(dotted(at), target.Field(i).Addr().Interface(), value)
			continue
		}
		table, ok := value.(map[string]any)
		if !ok {
			r.faults.wrong(dotted(at), "a table", kindOf(value))
			continue
		}
		r.section(at, target.Field(i), table)
	}
}

// set puts a value into the field that target points to. What cannot be used
// as a string stays there all the same: no later rule shall take the key for
// unset.
func (r *reader) set(key string, target, value any) {
	switch target := target.(type) {
	case *string:
		*target, _ = r.text(key, value)
	case *Secret:
		text, _ := r.text(key, value)
		*target = Secret(text)
	case *URL:
		text, _ := r.text(key, value)
		*target = URL(text)
		if raw, ok := r.written[key]; ok && !isReference(raw) {
			r.written[key] = mask // what is not a variable may be its password
		}
	case *[]URL:
		*target = r.urls(key, value)
	case *[]string:
		*target = r.texts(key, value)
	case *Duration:
		r.duration(key, target, value)
	case *bool:
		assign(r, key, target, value)
	case *int64:
		assign(r, key, target, value)
	case *int:
		r.integer(key, target, value)
	default:
		r.faults.add(key, fmt.Sprintf("cannot be read into %T", target))
	}
}

func assign[T bool | int64](r *reader, key string, target *T, value any) bool {
	typed, ok := value.(T)
	if !ok {
		r.faults.wrong(key, kindOf(*target), kindOf(value))
		return false
	}
	*target = typed
	return true
}

func (r *reader) integer(key string, target *int, value any) {
	wide := int64(*target)
	assign(r, key, &wide, value)
	*target = int(wide)
	if int64(*target) != wide {
		r.faults.add(key, "is too large for this machine")
	}
}

// text is the value with $env{} replaced, and whether that went well.
func (r *reader) text(key string, value any) (string, bool) {
	raw, ok := value.(string)
	if !ok {
		r.faults.wrong(key, "a string", kindOf(value))
		return fmt.Sprint(value), false
	}
	text, problems := expand(raw, r.env)
	for _, problem := range problems {
		r.faults.add(key, problem)
	}
	if text != raw {
		r.written[key] = raw
	}
	return text, len(problems) == 0
}

func (r *reader) texts(key string, value any) []string {
	list, ok := value.([]any)
	if !ok {
		r.faults.wrong(key, "a list of strings", kindOf(value))
	}
	texts := make([]string, 0, len(list))
	for i, element := range list {
		text, _ := r.text(fmt.Sprintf("%s[%d]", key, i), element)
		texts = append(texts, text)
	}
	return texts
}

func (r *reader) urls(key string, value any) []URL {
	list, ok := value.([]any)
	if !ok {
		r.faults.wrong(key, "a list of strings", kindOf(value))
	}
	var urls []URL
	for i, element := range list {
		at := fmt.Sprintf("%s[%d]", key, i)
		text, _ := r.text(at, element)
		urls = append(urls, URL(text))
		if raw, ok := r.written[at]; ok && !isReference(raw) {
			r.written[at] = mask // what is not a variable may be its password
		}
	}
	return urls
}

func (r *reader) duration(key string, target *Duration, value any) {
	text, ok := r.text(key, value)
	if !ok {
		return
	}
	var parsed Duration
	if parsed.UnmarshalText([]byte(text)) != nil {
		found := faults{}
		found.wrong(key, `a duration such as "90s", "10m" or "24h"`, fmt.Sprintf("%q", text))
		r.faults = append(r.faults, r.asWritten(found)...)
		return
	}
	*target = parsed
}
