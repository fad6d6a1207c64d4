package xds_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/resources/proto/wso2/discovery/keymgt"
	keymgtservice "revocation-adapter/resources/proto/wso2/discovery/service/keymgt"
	"revocation-adapter/xds"
)

// sotwStream is a client's end of either state-of-the-world method.
type sotwStream interface {
	Send(*discovery.DiscoveryRequest) error
	Recv() (*discovery.DiscoveryResponse, error)
}

// service opens one of the state-of-the-world methods.
type service struct {
	name string
	open func(context.Context, grpc.ClientConnInterface) (sotwStream, error)
}

var streamTokens = service{"StreamTokens", func(ctx context.Context, c grpc.ClientConnInterface) (sotwStream, error) {
	return keymgtservice.NewRevokedTokenDiscoveryServiceClient(c).StreamTokens(ctx)
}}

var aggregated = service{"StreamAggregatedResources", func(ctx context.Context, c grpc.ClientConnInterface) (sotwStream, error) {
	return discovery.NewAggregatedDiscoveryServiceClient(c).StreamAggregatedResources(ctx)
}}

// services are both of them.
var services = []service{streamTokens, aggregated}

// node is who a client says it is: like every deployed enforcer, but for the
// instance.
func node(instance string) *core.Node {
	return &core.Node{Id: "commonEnforcerLabel", Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
		"instanceIdentifier": structpb.NewStringValue(instance),
	}}}
}

// nodeOf is a node that asks for some tenants; for all, if there are none.
func nodeOf(instance string, tenants ...string) *core.Node {
	n := node(instance)
	if len(tenants) > 0 {
		list := make([]*structpb.Value, len(tenants))
		for i, tenant := range tenants {
			list[i] = structpb.NewStringValue(tenant)
		}
		n.Metadata.Fields["tenants"] = structpb.NewListValue(&structpb.ListValue{Values: list})
	}
	return n
}

// inbox is what a stream delivers, read as it comes.
type inbox[T any] struct {
	t   *testing.T
	all chan T
	err error // how the stream ended, after all is closed
}

// read takes everything that receive returns, until the stream ends.
func read[T any](ctx context.Context, t *testing.T, receive func() (T, error)) *inbox[T] {
	t.Helper()
	in := &inbox[T]{t: t, all: make(chan T)}
	go func() {
		defer close(in.all)
		for {
			next, err := receive()
			if err != nil {
				in.err = err
				return
			}
			select {
			case in.all <- next:
			case <-ctx.Done():
				in.err = ctx.Err()
				return
			}
		}
	}()
	return in
}

// errLate means that something did not come in time.
var errLate = errors.New("nothing came in time")

// get returns the next response, or how the stream ended.
func (in *inbox[T]) get() (next T, err error) {
	late := time.NewTimer(within)
	defer late.Stop()
	select {
	case next, ok := <-in.all:
		if !ok {
			return next, in.err
		}
		return next, nil
	case <-late.C:
		return next, errLate
	}
}

// next returns the next response.
func (in *inbox[T]) next() T {
	in.t.Helper()
	next, err := in.get()
	if err != nil {
		in.t.Fatalf("waiting for a response: %v", err)
	}
	return next
}

// quiet fails if a response comes within d.
func (in *inbox[T]) quiet(d time.Duration) {
	in.t.Helper()
	select {
	case r, ok := <-in.all:
		if !ok {
			in.t.Fatalf("the stream ended: %v", in.err)
		}
		in.t.Fatalf("a response that nobody waits for: %.300v", r)
	case <-time.After(d):
	}
}

// end waits for the stream's end and returns its status.
func (in *inbox[T]) end() *status.Status {
	in.t.Helper()
	late := time.After(within)
	for {
		select {
		case _, ok := <-in.all:
			if !ok {
				if errors.Is(in.err, io.EOF) {
					return status.New(codes.OK, "")
				}
				return status.Convert(in.err)
			}
		case <-late:
			in.t.Fatal("the stream has not ended")
		}
	}
}

// sotwClient is a gateway that takes state-of-the-world responses as an
// enforcer does: it adds what they carry.
type sotwClient struct {
	*inbox[*discovery.DiscoveryResponse]
	stream  sotwStream
	url     string // xds.TypeURL, unless it is set
	names   []string
	held    map[string]int64 // accepted: the expiry by name
	version string           // accepted last
}

// open opens a stream on a connection of its own and sends nothing.
func (w *world) open(t *testing.T, s service) *sotwClient {
	t.Helper()
	return openOn(t.Context(), t, s, w.dial())
}

func openOn(ctx context.Context, t *testing.T, s service, conn grpc.ClientConnInterface) *sotwClient {
	t.Helper()
	stream, err := s.open(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	return &sotwClient{inbox: read(ctx, t, stream.Recv), stream: stream, held: map[string]int64{}}
}

// subscribe opens a stream and sends its first request.
func (w *world) subscribe(t *testing.T, s service, version string, names ...string) *sotwClient {
	t.Helper()
	c := w.open(t, s)
	c.version, c.names = version, names
	c.send(&discovery.DiscoveryRequest{Node: node(t.Name())})
	return c
}

// startWith serves a log that revokes names, and returns once the streams that
// are served have been told of them.
func startWith(t *testing.T, names ...string) *world {
	t.Helper()
	w := start(t)
	witness := w.witness(t)
	witness.follow(w.revoke(names...))
	return w
}

// witness is a stream that has its first answer. When it has come to a version,
// so have all streams that are served: those that are parked have been given
// it, and others get no older one.
func (w *world) witness(t *testing.T) *sotwClient {
	t.Helper()
	c := w.subscribe(t, aggregated, "")
	c.accept()
	return c
}

// send completes a request with what the client always says.
func (c *sotwClient) send(req *discovery.DiscoveryRequest) {
	req.TypeUrl, req.VersionInfo, req.ResourceNames = cmp.Or(c.url, xds.TypeURL), c.version, c.names
	if err := c.stream.Send(req); err != nil && !errors.Is(err, io.EOF) {
		c.t.Errorf("send: %v", err)
	}
}

// take accepts a response without an answer to the server.
func (c *sotwClient) take(resp *discovery.DiscoveryResponse) {
	c.t.Helper()
	for _, r := range resp.GetResources() {
		name, stamp := entryOf(c.t, r)
		c.held[name] = stamp
	}
	c.version = resp.GetVersionInfo()
}

func (c *sotwClient) ack(resp *discovery.DiscoveryResponse) {
	c.t.Helper()
	c.take(resp)
	c.send(&discovery.DiscoveryRequest{ResponseNonce: resp.GetNonce()})
}

func (c *sotwClient) nack(resp *discovery.DiscoveryResponse) {
	c.send(&discovery.DiscoveryRequest{ResponseNonce: resp.GetNonce(), ErrorDetail: refusal("no")})
}

func refusal(why string) *rpcstatus.Status {
	return &rpcstatus.Status{Code: int32(codes.InvalidArgument), Message: why}
}

// accept ACKs the next response and returns it.
func (c *sotwClient) accept() *discovery.DiscoveryResponse {
	c.t.Helper()
	resp := c.next()
	c.ack(resp)
	return resp
}

// follow ACKs responses until one is at version, and returns them.
func (c *sotwClient) follow(version uint64) (all []*discovery.DiscoveryResponse) {
	c.t.Helper()
	for {
		resp := c.accept()
		all = append(all, resp)
		if resp.GetVersionInfo() == text(version) {
			return all
		}
	}
}

func text(version uint64) string { return strconv.FormatUint(version, 10) }

func number(t *testing.T, version string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		t.Errorf("a response's version is no number: %v", err)
	}
	return n
}

// tokens decodes what a response carries.
func tokens(t *testing.T, resources []*anypb.Any) []*keymgt.RevokedToken {
	t.Helper()
	all := make([]*keymgt.RevokedToken, len(resources))
	for i, r := range resources {
		all[i] = tokenOf(t, r)
	}
	return all
}

func tokenOf(t *testing.T, resource *anypb.Any) *keymgt.RevokedToken {
	t.Helper()
	token := new(keymgt.RevokedToken)
	if resource.GetTypeUrl() != xds.TypeURL {
		t.Errorf("a resource of type %q", resource.GetTypeUrl())
	}
	if err := proto.Unmarshal(resource.GetValue(), token); err != nil {
		t.Errorf("a resource that is no token: %v", err)
	}
	return token
}

// entryOf is what a resource is called, and what the tests compare of it: when a
// token expires, and what a rule covers.
func entryOf(t *testing.T, resource *anypb.Any) (name string, stamp int64) {
	t.Helper()
	if resource.GetTypeUrl() != xds.RuleTypeURL {
		token := tokenOf(t, resource)
		return token.GetJti(), token.GetExpirytime()
	}
	rule := new(revocationv1.Rule)
	if err := proto.Unmarshal(resource.GetValue(), rule); err != nil {
		t.Errorf("a resource that is no rule: %v", err)
	}
	return rule.GetClaim() + "=" + rule.GetValue(), rule.GetIssuedBeforeMillis()
}

// jtis are the names in a state-of-the-world response, in its order.
func jtis(t *testing.T, resp *discovery.DiscoveryResponse) []string {
	t.Helper()
	names := []string{}
	for _, r := range resp.GetResources() {
		name, _ := entryOf(t, r)
		names = append(names, name)
	}
	return names
}

// same reports how two sets differ, without printing all of them.
func same(t *testing.T, got, want map[string]int64) {
	t.Helper()
	var faults []string
	for name, expiry := range want {
		if e, ok := got[name]; !ok {
			faults = append(faults, fmt.Sprintf("%.40s is missing", name))
		} else if e != expiry {
			faults = append(faults, fmt.Sprintf("%.40s expires at %d, want %d", name, e, expiry))
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			faults = append(faults, fmt.Sprintf("%.40s is too many", name))
		}
	}
	if len(faults) > 0 {
		t.Errorf("%d held, want %d; %d faults, such as: %v", len(got), len(want), len(faults), faults[:min(5, len(faults))])
	}
}
