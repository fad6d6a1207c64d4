package messaging

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/sirupsen/logrus"
)

// ErrStoreFailed means that a write of the embedded hub failed, after which its
// server takes no more: it must be opened anew.
var ErrStoreFailed = errors.New("the hub's store failed a write, and is opened anew")

// The disk of the embedded hub.
const (
	minFree   = 16 << 20 // bytes below which it is as good as full
	lookEvery = time.Second
)

// guard looks after the disk of an embedded hub.
type guard struct {
	hub      *Hub
	refusing []*nats.Subscription // not empty while the disk is full
	blind    bool                 // nobody says how much is free
}

// Guard looks after the disk of an embedded hub until ctx ends. While it is full,
// whoever publishes with acknowledgement is told so; the server would be silent.
// It ends with ErrStoreFailed when the hub must be opened anew.
func (h *Hub) Guard(ctx context.Context, m *Metrics) error {
	if h.server == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	g := &guard{hub: h}
	defer g.relent()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		full, err := g.look()
		if err != nil {
			return err
		}
		(*metrics)(m).diskFull.Set(full)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
		}
	}
}

func (g *guard) look() (full float64, err error) {
	free, err := freeBytes(g.hub.cfg.Embedded.Store)
	if err != nil && !g.blind {
		g.hub.cfg.Log.WithError(err).Warn("How much is free on the hub's disk cannot be told")
	}
	if g.blind = err != nil; g.blind && g.refusing != nil {
		return 1, nil // it was full when it was last seen
	} else if g.blind {
		free = minFree // a full disk is known by the first write that fails
	}
	say := g.hub.cfg.Log.WithFields(logrus.Fields{"store": g.hub.cfg.Embedded.Store, "free_bytes": free})
	switch {
	case free < minFree && g.refusing == nil:
		say.Error("The disk of the hub is full: events are refused, what is stored is still served")
		return 1, g.refuse()
	case free < minFree:
		return 1, nil
	case g.hub.server.failed.Load():
		say.Warn("A write of the hub failed: it is opened anew")
		return 0, ErrStoreFailed
	case g.refusing != nil:
		say.Info("The disk of the hub has space again")
		g.relent()
	}
	return 0, nil
}

// refuse answers what is published, in the words of JetStream.
func (g *guard) refuse() error {
	answer, err := json.Marshal(map[string]any{
		"type": "io.nats.jetstream.api.v1.pub_ack_response", "stream": IngestStream,
		"error": map[string]any{"code": 503, "err_code": codeNoSpace, "description": "the disk of the hub is full, the event is not stored"},
	})
	if err != nil {
		return err
	}
	for _, subject := range []string{SubjectRevocation, SubjectApproval, SubjectIssued} {
		sub, err := g.hub.conn.Subscribe(subject, func(msg *nats.Msg) {
			if msg.Reply != "" {
				_ = msg.Respond(answer) // or the publisher waits in vain
			}
		})
		if err != nil {
			return fmt.Errorf("refuse events: %w", err)
		}
		g.refusing = append(g.refusing, sub)
	}
	g.hub.noSpace.Store(true)
	return nil
}

func (g *guard) relent() {
	for _, sub := range g.refusing {
		_ = sub.Unsubscribe() // the connection is closed, or it is done
	}
	g.refusing = nil
	g.hub.noSpace.Store(false)
}

// codeNoSpace is JetStream's own for a store that cannot grow.
const codeNoSpace = 10047
