package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"revocation-adapter/integration/chaos/history"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// publishLimit is how long one try by the hub may take.
const publishLimit = 2 * time.Second

// byHub publishes into the hub itself.
type byHub struct{ conn *nats.Conn }

func newByHub(urls []string) (*byHub, error) {
	conn, err := nats.Connect(strings.Join(urls, ","), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond),
		nats.Timeout(time.Second), nats.PingInterval(time.Second), nats.MaxPingsOutstanding(2), nats.Name("publisher"))
	if err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	return &byHub{conn}, nil
}

func (b *byHub) send(ctx context.Context, kind string, e history.Event) (receipt, error) {
	subject := messaging.SubjectRevocation
	if e.State == revocation.Approved {
		subject = messaging.SubjectApproval
	}
	ctx, cancel := context.WithTimeout(ctx, publishLimit)
	defer cancel()
	_, err := messaging.Publish(ctx, b.conn, subject, messaging.Announcement{
		EventID: e.ID, RevokedToken: e.JTI, ExpiryTime: e.Expiry, Type: kind, TenantID: "-1234",
	})
	return receipt{}, err
}

func (b *byHub) named() bool { return true }
func (b *byHub) close()      { b.conn.Close() }
