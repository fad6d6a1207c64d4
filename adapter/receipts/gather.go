package receipts

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"revocation-adapter/messaging"
	"revocation-adapter/xds"
)

// question is what replicas ask each other: how their gateways stand.
type question struct {
	Query
	WaitMillis int64 `json:"wait_ms"`
}

// standAnswer is how the gateways of one replica stand.
func (r *Receipts) standAnswer(ctx context.Context, data []byte) ([]byte, error) {
	var q question
	if err := json.Unmarshal(data, &q); err != nil {
		return nil, fmt.Errorf("question about receipts: %w", err)
	}
	wait := min(maxWait, max(0, time.Duration(q.WaitMillis)*time.Millisecond))
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return json.Marshal(r.cfg.Server.Await(ctx, q.concern()))
}

// gatewaysAnswer is how the gateways of one replica are.
func (r *Receipts) gatewaysAnswer(context.Context, []byte) ([]byte, error) {
	return json.Marshal(r.cfg.Server.Gateways())
}

// receiptAnswer is the whole receipt, for the command line.
func (r *Receipts) receiptAnswer(ctx context.Context, data []byte) ([]byte, error) {
	var q question
	if err := json.Unmarshal(data, &q); err != nil {
		return nil, fmt.Errorf("question about receipts: %w", err)
	}
	receipt, err := r.Await(ctx, q.Query, time.Duration(q.WaitMillis)*time.Millisecond)
	if err != nil {
		return nil, err
	}
	return json.Marshal(receipt)
}

// overviewAnswer is every gateway of every replica, for the command line.
func (r *Receipts) overviewAnswer(ctx context.Context, _ []byte) ([]byte, error) {
	all, err := r.Gateways(ctx)
	if err != nil {
		return nil, err
	}
	return json.Marshal(Overview{Replicas: r.Replicas(), Gateways: all})
}

func (q Query) concern() xds.Concern {
	c := xds.Concern{Version: q.Version}
	for _, p := range q.Parts {
		c.Parts = append(c.Parts, xds.Part(p))
	}
	return c
}

// ask asks all replicas, and decodes what each of them answers. One whose answer is
// not understood is as good as one that does not answer.
func ask[T any](ctx context.Context, r *Receipts, endpoint string, data []byte) (all map[string]T, silent []string, err error) {
	answers, silent, err := r.replicas.Ask(ctx, endpoint, data)
	if err != nil {
		return nil, nil, err
	}
	decoded, faults := make([]T, len(answers)), make([]error, len(answers))
	var group sync.WaitGroup
	for i, a := range answers { // of a thousand gateways each takes some milliseconds
		group.Go(func() { faults[i] = json.Unmarshal(a.Data, &decoded[i]) })
	}
	group.Wait()
	all = make(map[string]T, len(answers))
	for i, a := range answers {
		if faults[i] != nil {
			silent = append(silent, a.Replica)
			continue
		}
		all[a.Replica] = decoded[i]
	}
	if len(silent) > 0 {
		r.cfg.Log.WithField("replicas", silent).Debug("Replicas do not say how their gateways are")
	}
	return all, silent, nil
}

// better is the one of two figures that counts of a gateway that two replicas know:
// while it moves, one of them has its newest stream.
func better(a, b xds.Figure) xds.Figure {
	order := []xds.Figure{0, xds.Gone, xds.NotConcerned, xds.Cannot, xds.Pending, xds.Enforced}
	if slices.Index(order, a) >= slices.Index(order, b) {
		return a
	}
	return b
}

// join is how every gateway that is known stands.
func join(standings map[string]xds.Standing, lately map[string]messaging.Seen, c xds.Concern) xds.Standing {
	all := xds.Standing{}
	for _, standing := range standings {
		for name, figure := range standing {
			all[name] = better(all[name], figure)
		}
	}
	for name, seen := range lately {
		if all[name] > xds.Gone {
			continue
		}
		var was xds.GatewayStatus
		if json.Unmarshal(seen.Data, &was) == nil {
			all[name] = was.Stands(c)
		} else {
			all[name] = xds.Gone // of a newer adapter
		}
	}
	return all
}

// count is a receipt of how gateways stand.
func count(version uint64, standing xds.Standing) Receipt {
	receipt := Receipt{Version: version, Pending: []string{}, Unreachable: []string{}}
	for name, figure := range standing {
		switch figure {
		case xds.Enforced:
			receipt.Enforced++
		case xds.NotConcerned:
			receipt.NotConcerned++
		case xds.Cannot:
			receipt.Cannot++
		case xds.Pending:
			receipt.Pending = append(receipt.Pending, name)
		default:
			receipt.Unreachable = append(receipt.Unreachable, name)
		}
	}
	slices.Sort(receipt.Pending)
	slices.Sort(receipt.Unreachable)
	return receipt
}
