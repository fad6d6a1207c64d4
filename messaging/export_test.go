package messaging

import (
	"encoding/json"
	"io"
)

// The stored form has no exported reader or writer: only this package may touch
// the stream.
var (
	EncodeRecord = encodeRecord
	DecodeRecord = decodeRecord
)

// Redact is what a dead letter keeps of an event.
var Redact = redact

// ReadRevokedList reads the control plane's answer.
func ReadRevokedList(r io.Reader, rules Rules, take func(Event) error, refused func(error)) error {
	l := &revokedList{dec: json.NewDecoder(r), rules: rules, take: take, refused: refused}
	return l.read()
}
