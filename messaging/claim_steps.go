package messaging

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"revocation-adapter/revocation"
)

// maxAhead is how far beyond this replica's version a record of the same log may
// be. A log that was made anew begins much further ahead: with its time of
// creation in microseconds.
const maxAhead = 1 << 20

var errOtherLog = fmt.Errorf("%w: the hub's log is not the one that this replica follows", ErrClaimsNotReady)

// decide takes each contest of a batch one step further: it reads the records of
// those that are stored already, and writes the others, at the same time.
func (c *Claims) decide(ctx context.Context, batch []*contest) {
	ctx, cancel := context.WithTimeout(ctx, claimAttempt)
	defer cancel()
	var read, alone, together []*contest
	for _, k := range batch {
		switch {
		case !c.begin(k):
		case k.stored:
			read = append(read, k)
		case !c.propose(k):
		case k.refused > 1: // it shall not be refused for others for ever
			alone = append(alone, k)
		default:
			together = append(together, k)
		}
	}
	if len(together) < minBatch {
		alone, together = append(alone, together...), nil
	}
	var steps sync.WaitGroup
	if len(together) > 0 {
		steps.Go(func() { c.writeTogether(ctx, together) })
	}
	steps.Go(func() { each(alone, func(k *contest) { c.writeAlone(ctx, k) }) })
	steps.Go(func() { each(read, func(k *contest) { c.read(ctx, k) }) })
	steps.Wait()
}

// read answers by the record that is stored. One that is approved is to be
// replaced, as is none.
func (c *Claims) read(ctx context.Context, k *contest) {
	head := c.log.Snapshot().Version()
	msg, err := c.hub.log.GetLastMsgForSubject(ctx, k.subject)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		c.absent(k)
		return
	case err != nil:
		c.fail(k, fmt.Errorf("read the record: %w", err))
		return
	case msg.Sequence > head && msg.Sequence-head > maxAhead:
		c.distrust(k)
		return
	}
	old, err := decodeRecord(msg.Data)
	switch {
	case err != nil:
		c.fail(k, fmt.Errorf("read the record: %w", err))
	case old.State == revocation.Revoked:
		c.settle(k, old)
	default:
		c.approved(k, old, msg.Sequence)
	}
}

// absent goes on with a token that has no record. If this replica knows that it is
// revoked, the hub has lost that: nobody is granted it.
func (c *Claims) absent(k *contest) {
	known, found := c.log.Lookup(k.first.Key)
	if found && known.State == revocation.Revoked && !known.Expired(c.hub.cfg.Now(), c.hub.cfg.Grace) {
		c.distrust(k)
		return
	}
	k.old, k.last, k.stored = nil, 0, false
	c.again(k)
}

// approved goes on with a token that was approved. A claim that was granted before
// is granted still.
func (c *Claims) approved(k *contest, old revocation.Revocation, sequence uint64) {
	c.keep(k, func(a *claimant) (verdict, bool) {
		return verdict{outcome: revocation.ClaimGranted}, a.GrantedBy(old)
	})
	k.old, k.last, k.stored = &old, sequence, false
	c.again(k)
}

// propose makes the record in which the first of the claims has the token. If that
// cannot be, nobody is told so.
func (c *Claims) propose(k *contest) bool {
	now := c.hub.cfg.Now()
	if k.record = k.first.Use(now); k.old != nil {
		k.record = k.first.UseAgain(*k.old, now)
	}
	if k.record.Used() && k.first.GrantedBy(k.record) {
		return true
	}
	c.fail(k, fmt.Errorf("%w: a claim does not use up what is approved", ErrRecord))
	return false
}

func (c *Claims) writeAlone(ctx context.Context, k *contest) {
	head := c.log.Snapshot().Version()
	sequence, err := c.writer.publish(ctx, []*write{&k.write})
	switch {
	case err == nil:
		c.won(k, sequence, head)
	case conflict(err) && k.tries == maxTries:
		c.fail(k, ErrConflict)
	case conflict(err):
		k.tries++
		k.stored = true
		c.again(k)
	case permanent(err):
		c.fail(k, err)
	default:
		c.unanswered(k, err)
	}
}

// writeTogether writes a batch, whole or not at all.
func (c *Claims) writeTogether(ctx context.Context, batch []*contest) {
	writes := make([]*write, 0, len(batch))
	for _, k := range batch {
		writes = append(writes, &k.write)
	}
	head := c.log.Snapshot().Version()
	sequence, err := c.writer.publish(ctx, writes)
	switch {
	case err == nil:
		first := sequence - uint64(len(batch)-1)
		for i, k := range batch {
			c.won(k, first+uint64(i), head)
		}
	case conflict(err) || permanent(err):
		c.refusedWhole(batch)
	default:
		for _, k := range batch {
			c.unanswered(k, err)
		}
	}
}

// refusedWhole goes on with a batch that was refused for one of its tokens, or
// more. Those of which the log tells by now that another replica has written them
// are read, and the rest is tried again. If it tells of none, all are read.
func (c *Claims) refusedWhole(batch []*contest) {
	told := false
	for _, k := range batch {
		version, _, found := c.log.Find(revocation.DomainToken, k.record.Key, k.record.Digest)
		k.refused++
		k.stored = found && version > k.last
		told = told || k.stored
	}
	if !told {
		for _, k := range batch {
			k.stored = true
		}
	}
	c.again(batch...)
}

// won answers by the record that was written. The numbers of the log that this
// replica follows never fall, and do not leap: one that does is another log's, in
// which the token may have been used as well.
func (c *Claims) won(k *contest, sequence, head uint64) {
	if sequence <= head || sequence-head > maxAhead {
		c.distrust(k)
		return
	}
	c.mu.Lock()
	c.written.add(k.subject, sequence, c.log.Snapshot().Version())
	c.mu.Unlock()
	c.settle(k, k.record)
}

// distrust grants nobody anything until the follower has compared the hub's log
// with what it has read.
func (c *Claims) distrust(k *contest) {
	c.doubt.Store(c.hub.cfg.Now().UnixNano())
	c.fail(k, errOtherLog)
}

// unanswered reads what became of a write; the second time nobody is asked again.
func (c *Claims) unanswered(k *contest, err error) {
	if k.lost {
		c.fail(k, err)
		return
	}
	k.lost, k.stored = true, true
	c.again(k)
}
