package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"revocation-adapter/integration/chaos/history"
	"revocation-adapter/messaging"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// settleLimit bounds each wait for quiet. An event in the hands of a replica that
// died is delivered again after 30 s.
const settleLimit = 60 * time.Second

// settle waits until every event is handled, every replica is at the end of the
// log, and every gateway has the last revocation. What does not happen in time
// is an incident; the checker still has its say.
func (w *world) settle(ctx context.Context, p *publisher) error {
	w.say("healed, waiting for quiet")
	w.expect(ctx, "events still wait in the hub", w.nothingWaits)
	jti, acked := w.finalEvent(ctx, p)
	if !acked {
		w.incident("the last event is not acknowledged within %s", finishLimit)
	}
	w.expect(ctx, "gateways lack the last revocation", func(context.Context) error {
		if lacking := w.record.lacking(jti); len(lacking) > 0 {
			return fmt.Errorf("%d gateways, among them %s", len(lacking), lacking[0])
		}
		return nil
	})
	w.expect(ctx, "replicas are behind the hub", w.replicasAreCurrent)
	w.expect(ctx, "there are dead letters", w.noDeadLetters)
	w.say("quiet")
	return ctx.Err()
}

func (w *world) finalEvent(ctx context.Context, p *publisher) (jti string, acked bool) {
	ctx, cancel := context.WithTimeout(ctx, finishLimit)
	defer cancel()
	return p.last(ctx)
}

func (w *world) expect(ctx context.Context, otherwise string, try func(context.Context) error) {
	limited, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	if err := until(limited, func() error { return try(limited) }); err != nil && ctx.Err() == nil {
		w.incident("%s after %s: %v", otherwise, settleLimit, err)
	}
}

// state asks a stream's leader.
func (w *world) state(ctx context.Context, stream string) (jetstream.StreamState, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s, err := w.js.Stream(ctx, stream)
	if err != nil {
		return jetstream.StreamState{}, err
	}
	return s.CachedInfo().State, nil
}

func (w *world) nothingWaits(ctx context.Context) error {
	state, err := w.state(ctx, messaging.IngestStream)
	if err == nil && state.Msgs > 0 {
		err = fmt.Errorf("%d events", state.Msgs)
	}
	return err
}

func (w *world) noDeadLetters(ctx context.Context) error {
	state, err := w.state(ctx, messaging.DeadLetterStream)
	if err == nil && state.Msgs > 0 {
		err = fmt.Errorf("%d events", state.Msgs)
	}
	return err
}

func (w *world) replicasAreCurrent(ctx context.Context) error {
	state, err := w.state(ctx, messaging.LogStream)
	if err != nil {
		return err
	}
	for i, r := range w.replicas {
		switch is, err := r.readiness(ctx); {
		case err != nil:
			return fmt.Errorf("replica %d: %w", i, err)
		case !is.Ready || is.Version != state.LastSeq:
			return fmt.Errorf("replica %d is at %d of %d, ready %t %s", i, is.Version, state.LastSeq, is.Ready, is.Reason)
		}
	}
	return nil
}

// leaders are the streams that each node leads, as far as anybody says.
func (w *world) leaders(ctx context.Context) map[string][]string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	leads := map[string][]string{}
	for _, name := range []string{messaging.IngestStream, messaging.LogStream} {
		if s, err := w.js.Stream(ctx, name); err == nil && s.CachedInfo().Cluster != nil {
			leader := s.CachedInfo().Cluster.Leader
			leads[leader] = append(leads[leader], name)
		}
	}
	return leads
}

// hubSays reads what the leader of the log has of every jti.
func (w *world) hubSays(ctx context.Context, events []history.Event) (map[string]revocation.State, error) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	log, err := w.js.Stream(ctx, messaging.LogStream)
	if err != nil {
		return nil, err
	}
	says := map[string]revocation.State{}
	for _, e := range events {
		if _, known := says[e.JTI]; known {
			continue
		}
		digest := revocation.DigestOf(revocation.DomainToken, e.JTI)
		msg, err := log.GetLastMsgForSubject(ctx, "revoked."+revocation.DomainToken.String()+"."+digest.String())
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			says[e.JTI] = 0
			continue
		}
		var rec revocationv1.Record
		if err == nil {
			err = proto.Unmarshal(msg.Data, &rec)
		}
		if err != nil {
			return nil, fmt.Errorf("read the hub's record of %s: %w", e.JTI, err)
		}
		says[e.JTI] = revocation.Approved
		if rec.GetState() == revocationv1.State_STATE_REVOKED {
			says[e.JTI] = revocation.Revoked
		}
	}
	return says, nil
}

// lacking names the gateways that were never told of a jti.
func (r *recorder) lacking(jti string) (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	told := make([]bool, gateways)
	for _, resp := range r.responses {
		told[resp.Gateway] = told[resp.Gateway] || slices.Contains(resp.Added, jti)
	}
	for i, is := range told {
		if !is {
			names = append(names, nameOf(i))
		}
	}
	return names
}
