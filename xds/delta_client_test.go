package xds_test

import (
	"cmp"
	"context"
	"errors"
	"io"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"revocation-adapter/xds"
)

// deltaClient is a gateway that takes incremental responses.
type deltaClient struct {
	*inbox[*discovery.DeltaDiscoveryResponse]
	stream   grpc.BidiStreamingClient[discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse]
	url      string            // xds.TypeURL, unless it is set
	held     map[string]int64  // accepted: the expiry by name
	versions map[string]string // accepted: the resource's version by name
}

// delta opens an incremental stream on a connection of its own and sends a
// first request that names nothing.
func (w *world) delta(t *testing.T) *deltaClient {
	t.Helper()
	return w.deltaWith(t, &discovery.DeltaDiscoveryRequest{})
}

// deltaWith opens an incremental stream with a first request.
func (w *world) deltaWith(t *testing.T, first *discovery.DeltaDiscoveryRequest) *deltaClient {
	t.Helper()
	c := deltaOn(t.Context(), t, w.dial())
	if first.GetNode() == nil {
		first.Node = node(t.Name())
	}
	c.send(first)
	return c
}

func deltaOn(ctx context.Context, t *testing.T, conn grpc.ClientConnInterface) *deltaClient {
	t.Helper()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &deltaClient{
		inbox: read(ctx, t, stream.Recv), stream: stream,
		held: map[string]int64{}, versions: map[string]string{},
	}
}

func (c *deltaClient) send(req *discovery.DeltaDiscoveryRequest) {
	req.TypeUrl = cmp.Or(req.GetTypeUrl(), c.url, xds.TypeURL)
	c.url = req.GetTypeUrl()
	if err := c.stream.Send(req); err != nil && !errors.Is(err, io.EOF) {
		c.t.Errorf("send: %v", err)
	}
}

// take accepts a response without an answer to the server.
func (c *deltaClient) take(resp *discovery.DeltaDiscoveryResponse) {
	c.t.Helper()
	for _, r := range resp.GetResources() {
		name, stamp := entryOf(c.t, r.GetResource())
		if name != r.GetName() {
			c.t.Errorf("resource %q is called %q", r.GetName(), name)
		}
		c.held[name], c.versions[name] = stamp, r.GetVersion()
	}
	for _, name := range resp.GetRemovedResources() {
		delete(c.held, name)
		delete(c.versions, name)
	}
}

func (c *deltaClient) ack(resp *discovery.DeltaDiscoveryResponse) {
	c.t.Helper()
	c.take(resp)
	c.send(&discovery.DeltaDiscoveryRequest{ResponseNonce: resp.GetNonce()})
}

func (c *deltaClient) nack(resp *discovery.DeltaDiscoveryResponse) {
	c.send(&discovery.DeltaDiscoveryRequest{ResponseNonce: resp.GetNonce(), ErrorDetail: refusal("no")})
}

func (c *deltaClient) accept() *discovery.DeltaDiscoveryResponse {
	c.t.Helper()
	resp := c.next()
	c.ack(resp)
	return resp
}

func (c *deltaClient) follow(version uint64) (all []*discovery.DeltaDiscoveryResponse) {
	c.t.Helper()
	for {
		resp := c.accept()
		all = append(all, resp)
		if resp.GetSystemVersionInfo() == text(version) {
			return all
		}
	}
}

// names are those of a delta response's resources, in its order.
func names(resp *discovery.DeltaDiscoveryResponse) []string {
	all := []string{}
	for _, r := range resp.GetResources() {
		all = append(all, r.GetName())
	}
	return all
}
