package enforcer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/sirupsen/logrus"
	rpc "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
)

// BatchType is the type URL of what an Enforcer asks for.
const BatchType = "type.googleapis.com/revocation.v1.Batch"

// pace is how long an Enforcer waits for what.
type pace struct {
	retryMin, retryMax time.Duration // after all adapters failed
	settled            time.Duration // a stream that lived so long was no failure
	silence            time.Duration // of an adapter, after which another one is tried
	ping, pong         time.Duration
	connect            time.Duration
	claim, claimRetry  time.Duration // for one answer, and after all adapters failed
	purge              time.Duration
}

func steady() pace {
	return pace{
		retryMin: 100 * time.Millisecond, retryMax: 10 * time.Second,
		settled: 5 * time.Second, silence: 15 * time.Second,
		ping: 10 * time.Second, pong: 5 * time.Second, connect: 2 * time.Second,
		claim: 750 * time.Millisecond, claimRetry: 50 * time.Millisecond,
		purge: time.Minute,
	}
}

// Why an adapter is left for the next.
var (
	errSilent = errors.New("the adapter says nothing, not even that nothing changed")
	errOld    = errors.New("the adapter has not known for long that its log is complete")
)

// follow holds a stream of one adapter after another. The next is tried at once;
// it waits only when all have failed.
func (e *Enforcer) follow(ctx context.Context, adapter int) error {
	for failed := 0; ; adapter = (adapter + 1) % len(e.cfg.Adapters) {
		e.links.follow(adapter)
		began := time.Now()
		err := e.stream(ctx, adapter)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		e.reconnects.Inc()
		failed++
		if time.Since(began) >= e.pace.settled {
			failed = 1
		}
		say := e.log.WithField("adapter", e.cfg.Adapters[adapter]).WithError(err)
		if failed <= len(e.cfg.Adapters) {
			say.Warn("The stream of an adapter ended, trying the next")
		} else { // the metrics tell, and who follows next is logged
			say.Debug("No adapter can be followed, trying again")
		}
		if failed%len(e.cfg.Adapters) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(e.pace.retry(failed / len(e.cfg.Adapters))):
		}
	}
}

// retry is how long to wait when all adapters have failed for the nth time:
// anything up to a bound that doubles, so that gateways come back spread.
func (p pace) retry(n int) time.Duration {
	bound := p.retryMin << min(n-1, 20)
	return rand.N(min(bound, p.retryMax)) + 1
}

// stream follows one adapter until its stream ends, and returns why it did.
func (e *Enforcer) stream(ctx context.Context, adapter int) error {
	conn, err := e.links.renewed(adapter)
	if err != nil {
		return err
	}
	defer e.links.drop(adapter, conn)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &session{Enforcer: e, log: e.log.WithField("adapter", e.cfg.Adapters[adapter]), silence: e.pace.silence}
	if len(e.cfg.Adapters) == 1 {
		s.silence = math.MaxInt64 // there is nobody else to try
	}
	s.began = time.Now()
	s.timer = time.AfterFunc(s.silence, func() { cancel(errSilent) })
	defer s.timer.Stop()
	defer e.connected.Store(false)
	err = s.run(ctx, conn)
	return cmp.Or(context.Cause(ctx), err)
}

// session is one stream of one adapter.
type session struct {
	*Enforcer
	log     logrus.FieldLogger
	began   time.Time
	silence time.Duration
	timer   *time.Timer // ends the stream after silence
	warned  bool        // that the adapter is behind
	stream  discovery.AggregatedDiscoveryService_StreamAggregatedResourcesClient
}

func (s *session) run(ctx context.Context, conn *grpc.ClientConn) (err error) {
	s.stream, err = discovery.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	if err != nil {
		return fmt.Errorf("open a stream: %w", err)
	}
	if err := s.stream.Send(s.request()); err != nil {
		return fmt.Errorf("ask for batches: %w", err)
	}
	for {
		response, err := s.stream.Recv()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if err := s.answer(response, s.take(response)); err != nil {
			return err
		}
	}
}

// answer acknowledges a response that was taken, or refuses it.
func (s *session) answer(response *discovery.DiscoveryResponse, fault error) error {
	answer := &discovery.DiscoveryRequest{
		TypeUrl: BatchType, VersionInfo: response.GetVersionInfo(), ResponseNonce: response.GetNonce(),
	}
	switch {
	case errors.Is(fault, errGap):
		return fault
	case errors.Is(fault, errBehind): // it may come as far yet, but not for ever
	case fault != nil:
		s.badBatches.Inc()
		s.log.WithError(fault).Warn("A batch was refused")
		answer.VersionInfo = s.held()
		answer.ErrorDetail = &rpc.Status{Code: int32(codes.InvalidArgument), Message: fault.Error()}
	default:
		s.heard()
	}
	if err := s.stream.Send(answer); err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	return s.worthIt()
}

// heard notes that the adapter said something that counts.
func (s *session) heard() {
	s.timer.Reset(s.silence)
	s.batches.Inc()
	v := s.view.Load()
	if !s.connected.Swap(true) {
		s.log.WithField("version", v.version).Info("An adapter is followed")
	}
	if at, waits := s.waits(); waits && !s.warned {
		s.warned = true
		s.log.WithField("version", at).WithField("known", v.seen).
			Warn("The adapter's whole set is older than what is known, and is not used until it has caught up")
	}
}

// waits says whether a whole set has come that is not in force, and how far it
// goes.
func (e *Enforcer) waits() (at uint64, waits bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.progress.at, e.progress.load != nil && e.progress.at == e.progress.head
}

// worthIt fails when another adapter may know more: this one is alive, but has not
// heard for long that its log is complete. It is asked at every response, and says
// so only when the adapter had time to send what is new.
func (s *session) worthIt() error {
	patience := s.cfg.MaxStaleness / 2
	if patience == 0 || len(s.cfg.Adapters) == 1 || time.Since(s.began) < s.silence {
		return nil
	}
	s.mu.Lock()
	loading := s.progress.at < s.progress.head
	s.mu.Unlock()
	if v, now := s.look(); loading || now.UnixMicro()-v.complete < patience.Microseconds() {
		return nil
	}
	return errOld
}

// maxInfo bounds a version_info in bytes.
const maxInfo = 1 << 10

// take puts a response in force.
func (e *Enforcer) take(r *discovery.DiscoveryResponse) error {
	switch {
	case r.GetTypeUrl() != BatchType:
		return fmt.Errorf("%w: the response is of another type", errBatch)
	case len(r.GetVersionInfo()) > maxInfo:
		return fmt.Errorf("%w: version_info of %d bytes", errBatch, len(r.GetVersionInfo()))
	case len(r.GetResources()) == 0:
		return e.skip(r.GetVersionInfo())
	case len(r.GetResources()) > 1:
		return fmt.Errorf("%w: %d resources", errBatch, len(r.GetResources()))
	}
	var b revocationv1.Batch
	if err := r.GetResources()[0].UnmarshalTo(&b); err != nil {
		return fmt.Errorf("%w: %w", errBatch, err)
	}
	return e.accept(&b, r.GetVersionInfo())
}

func (e *Enforcer) held() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.progress.info
}

// request is the first of a stream: what came last is gone on from.
func (e *Enforcer) request() *discovery.DiscoveryRequest {
	return &discovery.DiscoveryRequest{
		TypeUrl: BatchType, VersionInfo: e.held(),
		Node: &core.Node{Id: "enforcer", Metadata: &structpb.Struct{Fields: e.metadata()}},
	}
}

func (e *Enforcer) metadata() map[string]*structpb.Value {
	fields := map[string]*structpb.Value{}
	if e.cfg.Instance != "" {
		fields["instanceIdentifier"] = structpb.NewStringValue(e.cfg.Instance)
	}
	if len(e.cfg.Tenants) > 0 {
		names := make([]*structpb.Value, len(e.cfg.Tenants))
		for i, name := range e.cfg.Tenants {
			names[i] = structpb.NewStringValue(name)
		}
		fields["tenants"] = structpb.NewListValue(&structpb.ListValue{Values: names})
	}
	return fields
}
