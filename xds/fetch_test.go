package xds_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	keymgtservice "revocation-adapter/resources/proto/wso2/discovery/service/keymgt"
	"revocation-adapter/xds"
)

// fetch repeats FetchTokens until the version stands still.
func fetch(t *testing.T, w *world, version string) []*discovery.DiscoveryResponse {
	t.Helper()
	client := keymgtservice.NewRevokedTokenDiscoveryServiceClient(w.dial())
	var all []*discovery.DiscoveryResponse
	for range 100 {
		resp, err := client.FetchTokens(t.Context(), &discovery.DiscoveryRequest{VersionInfo: version})
		if err != nil {
			t.Fatal(err)
		}
		if resp.GetVersionInfo() == version {
			if len(resp.GetResources()) != 0 {
				t.Errorf("%d tokens at a version that stands still", len(resp.GetResources()))
			}
			return all
		}
		all, version = append(all, resp), resp.GetVersionInfo()
	}
	t.Fatal("the version never stands still")
	return nil
}

func TestFetchRepeatedGetsTheWholeSet(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.revoke(fortyThousand()...)
	head := w.approve(fortyThousand()[7])
	all := fetch(t, w, "")
	rising(t, all, head)
	held := map[string]int64{}
	for _, resp := range all {
		for _, token := range tokens(t, resp.GetResources()) {
			held[token.GetJti()] = token.GetExpirytime()
		}
	}
	same(t, held, w.truth())
}

func TestFetchFromAVersion(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.revoke("a", "b", "c") // 1001 to 1003
	w.hub.Store(1010)
	cases := []struct {
		name, version string
		want          []string
	}{
		{"none", "", []string{"a", "b", "c"}},
		{"a word", "latest", []string{"a", "b", "c"}},
		{"beyond the hub's last", "1011", []string{"a", "b", "c"}},
		{"in the middle", "1001", []string{"b", "c"}},
		{"the head", "1003", nil},
		{"ahead of this replica", "1007", nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, resp := range fetch(t, w, c.version) {
				got = append(got, jtis(t, resp)...)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestFetchNeedsTheHubForVersionsAhead(t *testing.T) {
	t.Parallel()
	w := start(t, func(c *xds.Config) {
		c.Last = func(context.Context) (uint64, error) { return 0, errors.New("no leader") }
	})
	client := keymgtservice.NewRevokedTokenDiscoveryServiceClient(w.dial())
	_, err := client.FetchTokens(t.Context(), &discovery.DiscoveryRequest{VersionInfo: "1001"})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want UNAVAILABLE", err)
	}
}

func TestUnknownTypesAreRefused(t *testing.T) {
	t.Parallel()
	const other = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	w := start(t)
	conn := w.dial()
	sotw := func(s service, typeURL string) func(t *testing.T) *status.Status {
		return func(t *testing.T) *status.Status {
			t.Helper()
			c := openOn(t.Context(), t, s, conn)
			if err := c.stream.Send(&discovery.DiscoveryRequest{TypeUrl: typeURL}); err != nil {
				t.Fatal(err)
			}
			return c.end()
		}
	}
	delta := func(typeURL string) func(t *testing.T) *status.Status {
		return func(t *testing.T) *status.Status {
			t.Helper()
			c := deltaOn(t.Context(), t, conn)
			if err := c.stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: typeURL}); err != nil {
				t.Fatal(err)
			}
			return c.end()
		}
	}
	cases := []struct {
		name string
		end  func(t *testing.T) *status.Status
	}{
		{"StreamTokens", sotw(streamTokens, other)},
		{"StreamAggregatedResources", sotw(aggregated, other)},
		{"StreamAggregatedResources without a type", sotw(aggregated, "")},
		{"DeltaAggregatedResources", delta(other)},
		{"DeltaAggregatedResources without a type", delta("")},
		{"FetchTokens", func(t *testing.T) *status.Status {
			t.Helper()
			client := keymgtservice.NewRevokedTokenDiscoveryServiceClient(conn)
			_, err := client.FetchTokens(t.Context(), &discovery.DiscoveryRequest{TypeUrl: other})
			return status.Convert(err)
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := c.end(t); got.Code() != codes.InvalidArgument {
				t.Errorf("ended with %v, want INVALID_ARGUMENT", got)
			}
		})
	}
	t.Run("later, on a stream that is served", func(t *testing.T) {
		c := w.subscribe(t, aggregated, "")
		c.accept()
		if err := c.stream.Send(&discovery.DiscoveryRequest{TypeUrl: other}); err != nil {
			t.Fatal(err)
		}
		if got := c.end(); got.Code() != codes.InvalidArgument {
			t.Errorf("ended with %v, want INVALID_ARGUMENT", got)
		}
	})
	t.Run("StreamTokens implies its type", func(t *testing.T) {
		c := openOn(t.Context(), t, streamTokens, conn)
		if err := c.stream.Send(&discovery.DiscoveryRequest{}); err != nil {
			t.Fatal(err)
		}
		c.next()
	})
}
