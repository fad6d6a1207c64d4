package messaging

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
)

// amqpBatchBytes bounds a batch: one event may list ten thousand tokens.
const amqpBatchBytes = 1 << 20

// amqpBatch is events that are stored together.
type amqpBatch struct {
	messages []Message
	bytes    int           // of them all
	last     uint64        // delivery tag of the newest
	stored   chan struct{} // closed when all of it is, or is buried
}

// take stores what is delivered until the deliveries end, and acknowledges it in
// their order: one acknowledgement is for all before it. What was delivered when
// the connection is lost, and live ends, is stored all the same if that is soon.
func (a *AMQP) take(ctx, live context.Context, channel *amqp091.Channel, deliveries <-chan amqp091.Delivery) error {
	finishing, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	defer context.AfterFunc(live, func() { time.AfterFunc(stopTimeout, giveUp) })()
	var workers, acker, pump errgroup.Group
	workers.SetLimit(a.cfg.Workers)
	atHand := make(chan delivered, amqpPrefetch) // the broker delivers no more at a time
	pump.Go(func() error {
		defer close(atHand)
		for d := range deliveries {
			atHand <- delivered{d, time.Now()}
		}
		return nil
	})
	inOrder := make(chan *amqpBatch, a.cfg.Workers)
	acker.Go(func() error { return acknowledge(finishing, channel, inOrder) })
	for first := range atHand {
		if ctx.Err() != nil || !a.intake.waitForRoom(live) {
			break
		}
		b := gatherAMQP(first, atHand)
		inOrder <- b
		workers.Go(func() error {
			a.store(finishing, b)
			return nil
		})
	}
	close(inOrder)
	_, _ = workers.Wait(), pump.Wait() // they have no errors
	return acker.Wait()
}

// delivered is a delivery and when it came: it may wait long for room.
type delivered struct {
	amqp091.Delivery
	at time.Time
}

// gatherAMQP returns a delivery and what else is at hand: a lone one never waits.
func gatherAMQP(first delivered, deliveries <-chan delivered) *amqpBatch {
	b := &amqpBatch{stored: make(chan struct{})}
	b.add(first)
	for len(b.messages) < MaxBatch && b.bytes < amqpBatchBytes {
		select {
		case d, open := <-deliveries:
			if !open {
				return b
			}
			b.add(d)
		default:
			return b
		}
	}
	return b
}

func (b *amqpBatch) add(d delivered) {
	b.last, b.bytes = d.DeliveryTag, b.bytes+len(d.Body)
	b.messages = append(b.messages, Message{
		Source: SourceAMQP, Subject: SubjectRevocation, Data: d.Body, At: d.at,
	})
}

// store hands a batch to the intake, and again what could not be stored: given
// back to the broker it would come at once, and not in order.
func (a *AMQP) store(ctx context.Context, b *amqpBatch) {
	stored := a.report.Begin(b.messages[0].At)
	left, n := b.messages, 0
	for try, pause := uint64(1), firstPause; len(left) > 0; try++ {
		var again []Message
		a.intake.Take(ctx, left, func(i int, r Result) {
			switch r.Fate {
			case FateRetry:
				again = append(again, left[i])
				again[len(again)-1].Deliveries = try
				a.report.Failed(r.Err)
			case FateDead:
				a.report.Failed(r.Err)
			default:
				n++
			}
		})
		if left = again; len(left) == 0 {
			break
		}
		if ctx.Err() != nil {
			stored(n)
			return // not acknowledged: the full sync will know
		}
		pause = wait(ctx, pause)
	}
	stored(n)
	close(b.stored)
}

// acknowledge tells the broker of each batch that is stored, in their order. When
// the broker does not hear it any more, the rest is stored and not acknowledged.
func acknowledge(ctx context.Context, channel *amqp091.Channel, batches <-chan *amqpBatch) (failed error) {
	for b := range batches {
		select {
		case <-b.stored:
		case <-ctx.Done():
			failed = cmp.Or(failed, ctx.Err()) // one acknowledgement is for all before it
			continue
		}
		if failed != nil {
			continue
		}
		const allBefore = true
		if err := channel.Ack(b.last, allBefore); err != nil {
			failed = fmt.Errorf("acknowledge to the broker: %w", err)
		}
	}
	return failed
}
