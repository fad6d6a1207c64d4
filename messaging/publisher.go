package messaging

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Announcement is an event to publish, in the envelope that DecodeEvent reads.
type Announcement struct {
	EventID      string `json:"eventId"`
	RevokedToken string `json:"revokedToken"`
	ExpiryTime   int64  `json:"expiryTime"` // milliseconds since the epoch; 0: unknown
	Type         string `json:"type"`
	TenantID     string `json:"tenantId,omitempty"`
}

// Publish sends an event to subject and returns when the hub has stored it in
// INGEST, with its sequence there.
func Publish(ctx context.Context, conn *nats.Conn, subject string, a Announcement) (sequence uint64, err error) {
	data, err := json.Marshal(map[string]any{"event": map[string]any{"payloadData": a}})
	if err != nil {
		return 0, err
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return 0, err
	}
	ack, err := js.Publish(ctx, subject, data)
	if err != nil {
		return 0, fmt.Errorf("publish to %s: %w", subject, err)
	}
	return ack.Sequence, nil
}
