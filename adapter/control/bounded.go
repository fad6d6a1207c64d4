package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// bounded is an array in JSON of which no more is kept than may go into one call: a
// body of the largest size may name millions of things in three bytes each.
type bounded[T any] []T

// UnmarshalJSON reads until there are too many, which is a fault.
func (b *bounded[T]) UnmarshalJSON(text []byte) error {
	*b = nil
	if string(text) == "null" {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if start, err := dec.Token(); err != nil || start != json.Delim('[') {
		return errors.New("tokens and rules are arrays")
	}
	for dec.More() {
		if len(*b) == maxItems {
			return tooManyItems()
		}
		var one T
		if err := dec.Decode(&one); err != nil {
			return err
		}
		*b = append(*b, one)
	}
	return nil
}

func tooManyItems() error {
	return &fault{
		status: http.StatusRequestEntityTooLarge, code: "invalid_request",
		detail: fmt.Sprintf("the list holds more than %d tokens and rules, which is the most that go into one call", maxItems),
	}
}
