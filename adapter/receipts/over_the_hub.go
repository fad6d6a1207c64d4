package receipts

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"revocation-adapter/messaging"
)

// Ask asks the adapters of the hub behind conn for a receipt, as Await gives it.
func Ask(ctx context.Context, conn *nats.Conn, q Query, wait time.Duration) (receipt Receipt, err error) {
	wait = min(maxWait, max(0, wait))
	data, err := json.Marshal(question{q, wait.Milliseconds()})
	if err != nil {
		return Receipt{}, fmt.Errorf("ask for receipts: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, wait+2*answerWithin) // beside what the replica waits for another one
	defer cancel()
	err = overHub(ctx, conn, askReceipt, data, &receipt)
	return receipt, err
}

// AskGateways asks the adapters of the hub behind conn for every gateway.
func AskGateways(ctx context.Context, conn *nats.Conn) (overview Overview, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*answerWithin)
	defer cancel()
	err = overHub(ctx, conn, askOverview, nil, &overview)
	return overview, err
}

func overHub(ctx context.Context, conn *nats.Conn, endpoint string, data []byte, to any) error {
	answer, err := messaging.AskAny(ctx, conn, endpoint, data)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(answer, to); err != nil {
		return fmt.Errorf("answer of an adapter: %w", err)
	}
	return nil
}
