package messaging

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"revocation-adapter/revocation"
)

// Announcement is an event to publish, in the envelope that DecodeEvent reads.
type Announcement struct {
	EventID      string `json:"eventId"`
	RevokedToken string `json:"revokedToken"`
	ExpiryTime   int64  `json:"expiryTime"` // milliseconds since the epoch; 0: unknown
	Type         string `json:"type"`
	TenantID     string `json:"tenantId,omitempty"`
}

// ClaimRule is the revokedToken of an event of TypeClaimRule: what carries the
// claim and was issued before a time, in milliseconds since the epoch. 0 is no
// time, as what lifts a rule has none.
func ClaimRule(rule revocation.Rule, before int64) (string, error) {
	data, err := json.Marshal(struct {
		Claim  string `json:"claim"`
		Value  string `json:"value"`
		Before int64  `json:"issuedBefore,omitempty,string"`
	}{rule.Claim, rule.Value, before})
	return base64.StdEncoding.EncodeToString(data), err
}

// ListedToken is one token of a TokenList. Expiry is in milliseconds since the
// epoch; 0: unknown.
type ListedToken struct {
	Token  string // a jti, or the name of an opaque token's digest
	Expiry int64
}

// MarshalJSON implements json.Marshaler, in the least bytes that are understood.
func (t ListedToken) MarshalJSON() ([]byte, error) {
	if t.Expiry == 0 {
		return json.Marshal(t.Token)
	}
	return json.Marshal(struct {
		Token  string `json:"accessToken"`
		Expiry int64  `json:"expiryTime"`
	}{t.Token, t.Expiry})
}

// TokenList is the revokedToken of an event of TypeBatch: tokens of one type.
func TokenList(typ string, tokens []ListedToken) (string, error) {
	data, err := json.Marshal(struct {
		Type   string        `json:"tokenType"`
		Tokens []ListedToken `json:"revokedTokensList"`
	}{typ, tokens})
	return base64.StdEncoding.EncodeToString(data), err
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
