package strict

import (
	"fmt"
	"reflect"

	"github.com/pelletier/go-toml/v2"
)

// Effective is a configuration as TOML with every Secret and URL masked. Read
// accepts it.
func Effective[C any](c C) ([]byte, error) {
	// go-toml asks no string for its MarshalText, so secrets are masked here.
	maskSection(reflect.ValueOf(&c).Elem())
	text, err := toml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	return text, nil
}

// maskSection changes what target holds, and no list that it shares.
func maskSection(target reflect.Value) {
	for _, field := range target.Fields() {
		switch value := field.Addr().Interface().(type) {
		case *Secret:
			*value = Secret(value.String())
		case *URL:
			*value = URL(value.String())
		default:
			maskInside(field)
		}
	}
}

func maskInside(field reflect.Value) {
	switch {
	case field.Kind() == reflect.Struct:
		maskSection(field)
	case isTables(field.Type()):
		for _, table := range copied(field) {
			maskSection(table)
		}
	case isURLs(field.Type()):
		for _, url := range copied(field) {
			url.SetString(url.Interface().(Masking).Masked())
		}
	}
}

// copied gives a field a list of its own, and returns its elements.
func copied(field reflect.Value) []reflect.Value {
	list := reflect.MakeSlice(field.Type(), field.Len(), field.Len())
	reflect.Copy(list, field)
	if !field.IsNil() {
		field.Set(list)
	}
	elements := make([]reflect.Value, field.Len())
	for i := range elements {
		elements[i] = field.Index(i)
	}
	return elements
}
