package messaging

// The stored form has no exported reader or writer: only this package may touch
// the stream.
var (
	EncodeRecord = encodeRecord
	DecodeRecord = decodeRecord
)

// Redact is what a dead letter keeps of an event.
var Redact = redact
