package xds_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	keymgtservice "revocation-adapter/resources/proto/wso2/discovery/service/keymgt"
	"revocation-adapter/xds"
)

// tenantWorld has a token and a rule of each of two tenants, and of none.
func tenantWorld(t *testing.T) *world {
	t.Helper()
	w := start(t)
	w.put(of("a", revoked("of a", later)), of("b", revoked("of b", later)), revoked("of none", later),
		of("a", rule("azp=a", 1)), of("b", rule("azp=b", 1)), rule("azp=none", 1))
	return w
}

// subscribeAs is subscribe as a gateway of some tenants.
func (w *world) subscribeAs(t *testing.T, s service, url, version string, tenants ...string) *sotwClient {
	t.Helper()
	c := w.open(t, s)
	c.url, c.version = url, version
	c.send(&discovery.DiscoveryRequest{Node: nodeOf(t.Name(), tenants...)})
	return c
}

func TestTenantsOnEveryProtocol(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, url string
		s         service
		theirs    []string
	}{
		{"StreamTokens", xds.TypeURL, streamTokens, []string{"of a", "of none"}},
		{"aggregated", xds.TypeURL, aggregated, []string{"of a", "of none"}},
		{"StreamRules", xds.RuleTypeURL, streamRules, []string{"azp=a", "azp=none"}},
		{"aggregated rules", xds.RuleTypeURL, aggregated, []string{"azp=a", "azp=none"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := tenantWorld(t)
			client := w.subscribeAs(t, c.s, c.url, "", "a")
			if got := jtis(t, client.accept()); !slices.Equal(got, c.theirs) {
				t.Errorf("got %v, want %v", got, c.theirs)
			}
			w.put(of("b", revoked("later of b", later)), of("b", rule("azp=later", 1)))
			w.put(of("a", revoked("new", later)), of("a", rule("azp=new", 1)))
			if got := jtis(t, client.accept()); len(got) != 1 || !strings.HasSuffix(got[0], "new") {
				t.Errorf("then %v", got)
			}
			again := w.subscribeAs(t, c.s, c.url, client.version, "a")
			if got := jtis(t, again.accept()); len(got) != 0 {
				t.Errorf("resumed with %v", got)
			}
		})
	}
	for url, theirs := range map[string]string{xds.TypeURL: "of ", xds.RuleTypeURL: "azp="} {
		t.Run("delta of "+url, func(t *testing.T) {
			t.Parallel()
			w := tenantWorld(t)
			c := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{TypeUrl: url, Node: nodeOf(t.Name(), "a")})
			if got := names(c.accept()); !slices.Equal(got, []string{theirs + "a", theirs + "none"}) {
				t.Errorf("got %v", got)
			}
			w.put(of("b", approved("of b")), of("b", withdrawn("azp=b")))
			w.put(of("a", approved("of a")), of("a", withdrawn("azp=a")))
			if got := c.accept().GetRemovedResources(); !slices.Equal(got, []string{theirs + "a"}) {
				t.Errorf("removed %v", got)
			}
		})
	}
	t.Run("FetchTokens", func(t *testing.T) {
		t.Parallel()
		w := tenantWorld(t)
		client := keymgtservice.NewRevokedTokenDiscoveryServiceClient(w.dial())
		resp, err := client.FetchTokens(t.Context(), &discovery.DiscoveryRequest{Node: nodeOf("x", "b")})
		if err != nil || !slices.Equal(jtis(t, resp), []string{"of b", "of none"}) {
			t.Fatalf("fetched %v, %v", resp, err)
		}
		w.put(of("a", revoked("another of a", later))) // no reason for b to fetch again
		for tenant, n := range map[string]int{"b": 0, "a": 3} {
			next, err := client.FetchTokens(t.Context(), &discovery.DiscoveryRequest{Node: nodeOf("x", tenant), VersionInfo: resp.GetVersionInfo()})
			if err != nil || len(next.GetResources()) != n || (next.GetVersionInfo() == resp.GetVersionInfo()) != (n == 0) {
				t.Errorf("then, of %s: %v, %v", tenant, next, err)
			}
		}
	})
}

// A version proves what was told to an audience, and nothing to another.
func TestTenantsAreWhatAVersionProves(t *testing.T) {
	t.Parallel()
	w := tenantWorld(t)
	first := func(version string, tenants ...string) (n int, reached string) {
		resp := w.subscribeAs(t, aggregated, xds.TypeURL, version, tenants...).accept()
		return len(resp.GetResources()), resp.GetVersionInfo()
	}
	_, all := first("")
	_, a := first("", "a")
	_, both := first("", "b", "a")
	if number(t, all) != 1006 || !strings.HasPrefix(a, "1006-") || a == both {
		t.Errorf("versions %q, %q, %q", all, a, both)
	}
	cases := []struct {
		name, version string
		tenants       []string
		want          int
	}{
		{"all again", all, nil, 0},
		{"the same again", a, []string{"a"}, 0},
		{"in another order, twice", both, []string{"a", "b", "a"}, 0},
		{"fewer", both, []string{"a"}, 2},
		{"more", a, []string{"a", "b"}, 3},
		{"others", a, []string{"b"}, 2},
		{"all after some", a, nil, 3},
		{"some after all", all, []string{"a"}, 2},
		{"of two names that look like one", a, []string{"a", "x"}, 2},
	}
	for _, c := range cases {
		if n, _ := first(c.version, c.tenants...); n != c.want {
			t.Errorf("%s: %d tokens, want %d", c.name, n, c.want)
		}
	}
}

func TestTenantsInTheNode(t *testing.T) {
	t.Parallel()
	text, list := structpb.NewStringValue, func(vs ...*structpb.Value) *structpb.Value {
		return structpb.NewListValue(&structpb.ListValue{Values: vs})
	}
	many := make([]*structpb.Value, 1001)
	for i := range many {
		many[i] = text(fmt.Sprint(i))
	}
	cases := []struct {
		name  string
		value *structpb.Value
		want  int // tokens; -1: refused
	}{
		{"a list", list(text("a"), text("b")), 3},
		{"a string", text("a"), 2},
		{"a string with commas", text(" b ,a,"), 3},
		{"whole numbers", list(structpb.NewNumberValue(-1234)), 1},
		{"an empty list", list(), 3},
		{"an empty string", text(""), 3},
		{"null", structpb.NewNullValue(), 3},
		{"unknown", list(text("of nobody")), 1},
		{"a number", structpb.NewNumberValue(1), -1},
		{"a fraction", list(structpb.NewNumberValue(1.5)), -1},
		{"a list of lists", list(list(text("a"))), -1},
		{"too many", list(many...), -1},
		{"too long", text(strings.Repeat("a", 257)), -1},
	}
	w := tenantWorld(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			n := node(c.name)
			n.Metadata.Fields["tenants"] = c.value
			client := w.open(t, aggregated)
			client.send(&discovery.DiscoveryRequest{Node: n})
			if c.want < 0 {
				if got := client.end(); got.Code() != codes.InvalidArgument {
					t.Errorf("ended with %v", got)
				}
			} else if got := jtis(t, client.next()); len(got) != c.want {
				t.Errorf("got %v, want %d", got, c.want)
			}
		})
	}
}

// Tenants are fixed with the first request.
func TestTenantsOfAStreamStay(t *testing.T) {
	t.Parallel()
	w := tenantWorld(t)
	for name, later := range map[string]*core.Node{"none": nil, "no tenants": node("x"), "the same": nodeOf("x", "a")} {
		c := w.subscribeAs(t, aggregated, xds.TypeURL, "", "a")
		c.send(&discovery.DiscoveryRequest{Node: later, ResponseNonce: c.next().GetNonce()})
		if resp := c.next(); len(resp.GetResources()) != 2 { // it said that it is nowhere
			t.Errorf("a later node, %s: %v", name, resp)
		}
	}
	c := w.subscribeAs(t, aggregated, xds.TypeURL, "", "a")
	c.send(&discovery.DiscoveryRequest{Node: nodeOf("x", "b"), ResponseNonce: c.next().GetNonce()})
	if got := c.end(); got.Code() != codes.InvalidArgument {
		t.Errorf("ended with %v", got)
	}
}

// What a gateway refuses is never taken back because it is another tenant's now.
func TestKeyMovesToAnotherTenant(t *testing.T) {
	t.Parallel()
	w := tenantWorld(t)
	c := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{Node: nodeOf(t.Name(), "a")})
	c.accept()
	w.put(of("b", revoked("of a", later.Add(1))))
	w.put(of("a", revoked("new", later)))
	c.accept()
	if !maps.Equal(c.held, map[string]int64{"of a": later.UnixMilli(), "of none": later.UnixMilli(), "new": later.UnixMilli()}) {
		t.Errorf("holds %v", c.held)
	}
	again := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{Node: nodeOf(t.Name(), "a"), InitialResourceVersions: maps.Clone(c.versions)})
	if resp := again.accept(); len(resp.GetResources())+len(resp.GetRemovedResources()) != 0 {
		t.Errorf("resumed with %v, removed %v", names(resp), resp.GetRemovedResources())
	}
	w.put(of("b", approved("of a"))) // which a stream of a is not told
	once := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{Node: nodeOf(t.Name(), "a"), InitialResourceVersions: maps.Clone(c.versions)})
	if resp := once.accept(); !slices.Equal(resp.GetRemovedResources(), []string{"of a"}) {
		t.Errorf("approved since: removed %v", resp.GetRemovedResources())
	}
	other := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{Node: nodeOf(t.Name(), "b"), InitialResourceVersions: map[string]string{"of none": "1003"}})
	if resp := other.accept(); !slices.Equal(names(resp), []string{"of b"}) {
		t.Errorf("another tenant's: %v", names(resp))
	}
}

// Silence is no lag: what is of other tenants needs no answer.
func TestTenantsAreShown(t *testing.T) {
	t.Parallel()
	w := tenantWorld(t)
	conn := w.dial()
	c, d := openOn(t.Context(), t, aggregated, conn), deltaOn(t.Context(), t, conn)
	c.send(&discovery.DiscoveryRequest{Node: nodeOf("sotw", "b", "a")})
	d.send(&discovery.DeltaDiscoveryRequest{Node: nodeOf("delta", "a")})
	c.accept()
	d.accept()
	w.put(of("c", revoked("of c", later)))
	for _, gateway := range []string{"sotw", "delta"} {
		until(t, gateway+" is not behind", func() bool { return w.metric("revocation_adapter_gateway_lag_versions", gateway) == 0 })
	}
	if n := w.metric("revocation_adapter_gateways_limited", ""); n != 2 {
		t.Errorf("%v gateways with tenants, want 2", n)
	}
	lines := w.lines("A gateway asks for some tenants only")
	logged := map[any]any{}
	for _, line := range lines {
		logged[line.Data["gateway"]] = line.Data["tenants"]
	}
	if len(lines) != 2 || logged["sotw"] != `["a" "b"]` || logged["delta"] != `["a"]` {
		t.Errorf("logged %v", logged)
	}
}

// By name a key is told whosever it is, beside a wildcard too.
func TestTenantsDoNotHideNames(t *testing.T) {
	t.Parallel()
	w := tenantWorld(t)
	d := w.deltaWith(t, &discovery.DeltaDiscoveryRequest{
		Node: nodeOf(t.Name(), "a"), ResourceNamesSubscribe: []string{"*", "of b"},
	})
	for len(d.held) < 3 {
		d.accept()
	}
	w.put(of("b", approved("of b")))
	if resp := d.accept(); !slices.Equal(resp.GetRemovedResources(), []string{"of b"}) {
		t.Errorf("removed %v", resp.GetRemovedResources())
	}
	c := w.open(t, aggregated)
	c.names = []string{"of a", "of b", "of none"}
	w.put(of("b", revoked("of b", later)))
	c.send(&discovery.DiscoveryRequest{Node: nodeOf(t.Name(), "a")})
	if got := jtis(t, c.accept()); len(got) != 3 {
		t.Errorf("by name: %v", got)
	}
}
