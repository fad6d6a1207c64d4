package messaging

import (
	"encoding/json"
	"io"

	"revocation-adapter/revocation"
)

// The stored form has no exported reader or writer: only this package may touch
// the stream.
var (
	EncodeRecord = encodeRecord
	DecodeRecord = decodeRecord
)

// ReadWhatIsServed reads a record as the follower does.
func ReadWhatIsServed(data []byte) (revocation.Revocation, error) {
	return readRecord(data, whatIsServed)
}

// What is issued, and what the registry stores of it.
var (
	ReadIssued         = readIssued
	RedactIssued       = redactIssued
	EncodeGrant        = encodeAccessGrant
	DecodeGrant        = decodeAccessGrant
	DecodeRefreshGrant = decodeRefreshGrant
)

// Redact is what a dead letter keeps of an event.
var Redact = redact

// ReadRevokedList reads the control plane's answer.
func ReadRevokedList(r io.Reader, rules Rules, take func(Event) error, refused func(error)) error {
	l := &revokedList{dec: json.NewDecoder(r), rules: rules, take: take, refused: refused, goesOn: func() {}}
	return l.read()
}
