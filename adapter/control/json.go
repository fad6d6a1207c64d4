package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
)

// json answers 200 with a body.
func (c *call) json(body any) error {
	c.w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(c.w).Encode(body); err != nil {
		c.cfg.Log.WithError(err).Debug("An answer could not be sent")
	}
	return nil
}

// body reads the whole body.
func (c *call) body(limit int) ([]byte, error) {
	text, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, int64(limit)))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return nil, tooLong(limit)
	}
	if err != nil {
		return nil, invalid("the body does not end")
	}
	return text, nil
}

// isJSON refuses a body that does not say that it is JSON.
func (c *call) isJSON() error {
	kind, _, _ := strings.Cut(c.r.Header.Get("Content-Type"), ";")
	if strings.EqualFold(strings.TrimSpace(kind), "application/json") {
		return nil
	}
	return &fault{status: http.StatusUnsupportedMediaType, code: "invalid_request", detail: "the body must be application/json"}
}

// readJSON reads a body that holds one object, with no member that is not known.
func (c *call) readJSON(into any, limit int) error {
	if err := c.isJSON(); err != nil {
		return err
	}
	text, err := c.body(limit)
	if err != nil {
		return err
	}
	return parseJSON(text, into)
}

func parseJSON(text []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if f := new(fault); errors.As(err, &f) {
		return f
	}
	if err != nil {
		return invalid("the body is not the JSON object that is wanted: " + withoutValues(err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return invalid("something follows the JSON object")
	}
	return nil
}

// withoutValues says what is wrong with JSON, and quotes none of its values: they
// may be tokens.
func withoutValues(err error) string {
	var typ *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &typ) && typ.Field == "":
		return "it is something else"
	case errors.As(err, &typ):
		return "the member " + typ.Field + " has another type"
	case errors.As(err, &syntax):
		return "it is not JSON"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it ends too early"
	}
	return err.Error() // an unknown member, by its name, or a time
}
