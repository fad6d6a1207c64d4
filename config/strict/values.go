package strict

import (
	"fmt"
	"reflect"
)

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
			r.written[key] = Mask // what is not a variable may be its password
		}
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
		if list := reflect.ValueOf(target).Elem(); isURLs(list.Type()) {
			r.urls(key, list, value)
			return
		}
		r.faults.Add(key, fmt.Sprintf("cannot be read into %T", target))
	}
}

// isURLs says whether the type is a list of texts that mask themselves.
func isURLs(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String && t.Elem().Implements(reflect.TypeFor[Masking]())
}

func assign[T bool | int64](r *reader, key string, target *T, value any) bool {
	typed, ok := value.(T)
	if !ok {
		r.faults.Wrong(key, kindOf(*target), kindOf(value))
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
		r.faults.Add(key, "is too large for this machine")
	}
}

// text is the value with $env{} replaced, and whether that went well.
func (r *reader) text(key string, value any) (string, bool) {
	raw, ok := value.(string)
	if !ok {
		r.faults.Wrong(key, "a string", kindOf(value))
		return fmt.Sprint(value), false
	}
	text, problems := expand(raw, r.env)
	for _, problem := range problems {
		r.faults.Add(key, problem)
	}
	if text != raw {
		r.written[key] = raw
	}
	return text, len(problems) == 0
}

func (r *reader) texts(key string, value any) []string {
	list, ok := value.([]any)
	if !ok {
		r.faults.Wrong(key, "a list of strings", kindOf(value))
	}
	texts := make([]string, 0, len(list))
	for i, element := range list {
		text, _ := r.text(place(key, i), element)
		texts = append(texts, text)
	}
	return texts
}

func (r *reader) urls(key string, target reflect.Value, value any) {
	target.SetZero()
	for i, text := range r.texts(key, value) {
		target.Set(reflect.Append(target, reflect.ValueOf(text).Convert(target.Type().Elem())))
		at := place(key, i)
		if raw, ok := r.written[at]; ok && !isReference(raw) {
			r.written[at] = Mask // what is not a variable may be its password
		}
	}
}

func (r *reader) duration(key string, target *Duration, value any) {
	text, ok := r.text(key, value)
	if !ok {
		return
	}
	var parsed Duration
	if parsed.UnmarshalText([]byte(text)) != nil {
		found := Faults{}
		found.Wrong(key, `a duration such as "90s", "10m" or "24h"`, fmt.Sprintf("%q", text))
		r.faults = append(r.faults, r.asWritten(found)...)
		return
	}
	*target = parsed
}
