package xds_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
	"revocation-adapter/xds"
)

var streamRules = service{"StreamRules", func(ctx context.Context, c grpc.ClientConnInterface) (sotwStream, error) {
	return revocationv1.NewRuleDiscoveryServiceClient(c).StreamRules(ctx)
}}

// rulesOn opens a state-of-the-world stream of rules and sends its first request.
func (w *world) rulesOn(t *testing.T, s service, version string) *sotwClient {
	t.Helper()
	return w.subscribeAs(t, s, xds.RuleTypeURL, version)
}

// ruleDelta is delta for rules.
func (w *world) ruleDelta(t *testing.T, first *discovery.DeltaDiscoveryRequest) *deltaClient {
	t.Helper()
	first.TypeUrl = xds.RuleTypeURL
	return w.deltaWith(t, first)
}

func TestRulesOnEveryProtocol(t *testing.T) {
	t.Parallel()
	for _, s := range []service{aggregated, streamRules} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			w := start(t)
			w.revoke(uuids(1, 100)...)
			c := w.rulesOn(t, s, "")
			c.follow(1100)
			w.put(rule("azp=one", 17), rule("sub=a=b", 18))
			head := w.put(rule("azp=one", 20), withdrawn("sub=a=b"), rule("x=", 1))
			c.follow(head)
			if c.held["azp=one"] != 20 || len(c.held) > 3 {
				t.Errorf("held: %v", c.held)
			}
			head = w.put(rule("azp=two", 5))
			if resp := c.accept(); !slices.Equal(jtis(t, resp), []string{"azp=two"}) || resp.GetTypeUrl() != xds.RuleTypeURL {
				t.Errorf("then %v", resp)
			}
			again := w.rulesOn(t, s, text(head-1))
			if resp := again.accept(); !slices.Equal(jtis(t, resp), []string{"azp=two"}) || resp.GetVersionInfo() != text(head) {
				t.Errorf("resumed with %v", resp)
			}
		})
	}
	t.Run("delta", func(t *testing.T) {
		t.Parallel()
		w := start(t)
		w.revoke(uuids(1, 100)...)
		c := w.ruleDelta(t, &discovery.DeltaDiscoveryRequest{})
		c.follow(1100)
		c.follow(w.put(rule("azp=one", 17), rule("azp=two", 18)))
		same(t, c.held, w.ruleTruth())
		head := w.put(withdrawn("azp=one"))
		if resp := c.accept(); !slices.Equal(resp.GetRemovedResources(), []string{"azp=one"}) || resp.GetSystemVersionInfo() != text(head) {
			t.Errorf("withdrawn: %v", resp)
		}
		w.put(rule("azp=three", 3), withdrawn("azp=two"))
		again := w.ruleDelta(t, &discovery.DeltaDiscoveryRequest{InitialResourceVersions: maps.Clone(c.versions)})
		resp := again.accept()
		if !slices.Equal(names(resp), []string{"azp=three"}) || !slices.Contains(resp.GetRemovedResources(), "azp=two") {
			t.Errorf("resumed with %v, removed %v", names(resp), resp.GetRemovedResources())
		}
	})
	t.Run("FetchRules", func(t *testing.T) {
		t.Parallel()
		w := start(t)
		w.revoke("jti")
		head := w.put(rule("azp=one", 17))
		client := revocationv1.NewRuleDiscoveryServiceClient(w.dial())
		resp, err := client.FetchRules(t.Context(), &discovery.DiscoveryRequest{})
		if err != nil || !slices.Equal(jtis(t, resp), []string{"azp=one"}) || resp.GetVersionInfo() != text(head) {
			t.Errorf("fetched %v, %v", resp, err)
		}
		w.revoke("another") // no reason to fetch again
		resp, err = client.FetchRules(t.Context(), &discovery.DiscoveryRequest{VersionInfo: text(head)})
		if err != nil || resp.GetVersionInfo() != text(head) || len(resp.GetResources()) != 0 {
			t.Errorf("then %v, %v", resp, err)
		}
		if _, err := client.FetchRules(t.Context(), &discovery.DiscoveryRequest{TypeUrl: xds.TypeURL}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("tokens from FetchRules: %v", err)
		}
	})
}

// The service of one type never carries the other: a deployed enforcer would
// take a rule for a jti.
func TestRuleStreamsCarryNothingElse(t *testing.T) {
	t.Parallel()
	w := start(t)
	for s, url := range map[*service]string{&streamTokens: xds.RuleTypeURL, &streamRules: xds.TypeURL} {
		c := w.open(t, *s)
		c.url = url
		c.send(&discovery.DiscoveryRequest{Node: node(t.Name())})
		if got := c.end(); got.Code() != codes.InvalidArgument {
			t.Errorf("%s of %s ended with %v", s.name, url, got)
		}
	}
	str, err := revocationv1.NewRuleDiscoveryServiceClient(w.dial()).DeltaRules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	send(t, str.Send(&discovery.DeltaDiscoveryRequest{}))
	if resp, err := str.Recv(); err != nil || resp.GetTypeUrl() != xds.RuleTypeURL {
		t.Errorf("DeltaRules implies its type: %v, %v", resp, err)
	}
}

// Both types on one stream: each has its own version, nonce and refusals.
func TestRulesAndTokensOnOneStream(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.put(rule("azp=one", 1), revoked("a", later)) // 1001, 1002
	c := w.open(t, aggregated)
	tell := func(url, version, nonce string, refused bool) {
		req := &discovery.DiscoveryRequest{TypeUrl: url, VersionInfo: version, ResponseNonce: nonce}
		if refused {
			req.ErrorDetail = refusal("no")
		}
		send(t, c.stream.Send(req))
	}
	tell(xds.TypeURL, "", "", false)
	first := c.next()
	tell(xds.RuleTypeURL, "", "", false)
	second := c.next()
	if !slices.Equal(jtis(t, first), []string{"a"}) || !slices.Equal(jtis(t, second), []string{"azp=one"}) {
		t.Fatalf("got %v and %v", jtis(t, first), jtis(t, second))
	}
	tell(xds.TypeURL, "1000", first.GetNonce(), true) // tokens are refused
	tell(xds.RuleTypeURL, second.GetVersionInfo(), second.GetNonce(), false)
	w.put(rule("azp=two", 2))
	third := c.next()
	if !slices.Equal(jtis(t, third), []string{"azp=two"}) || third.GetTypeUrl() != xds.RuleTypeURL {
		t.Fatalf("rules wait for tokens that were refused: %v", third)
	}
	tell(xds.RuleTypeURL, third.GetVersionInfo(), third.GetNonce(), false)
	w.clock.move(time.Minute)
	if fourth := c.next(); !slices.Equal(jtis(t, fourth), []string{"a"}) {
		t.Errorf("the tokens that were refused come again as %v", fourth)
	}
	w.refusals(1)
}

func TestRulesAndTokensOnOneDeltaStream(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.put(rule("azp=one", 1), revoked("a", later))
	c := w.delta(t)
	c.follow(1002)
	c.url = xds.RuleTypeURL
	c.send(&discovery.DeltaDiscoveryRequest{})
	c.follow(1002)
	if !maps.Equal(c.held, map[string]int64{"a": later.UnixMilli(), "azp=one": 1}) {
		t.Errorf("held: %v", c.held)
	}
	w.put(withdrawn("azp=one"))
	for removed := false; !removed; { // the version of tokens rises too
		resp := c.next()
		c.url = resp.GetTypeUrl()
		c.ack(resp)
		removed = slices.Equal(resp.GetRemovedResources(), []string{"azp=one"})
		if removed != (resp.GetTypeUrl() == xds.RuleTypeURL) {
			t.Fatalf("got %v", resp)
		}
	}
}

// Of tokens, who wants rules alone hears nothing, and nothing is done
// for him: a clock that nobody looks at tells.
func TestTokensDoNotWakeRuleStreams(t *testing.T) {
	t.Parallel()
	var looks atomic.Int64
	w := start(t, func(c *xds.Config) {
		now := c.Now
		c.Now = func() time.Time {
			looks.Add(1)
			return now()
		}
	})
	sotw, delta := w.rulesOn(t, aggregated, ""), w.ruleDelta(t, &discovery.DeltaDiscoveryRequest{})
	sotw.accept()
	delta.accept()
	head := w.put(rule("azp=one", 1))
	sotw.follow(head)
	delta.follow(head)
	until(t, "both are acked", func() bool { return w.metric("revocation_adapter_gateway_lag_versions", t.Name()) == 0 })
	before := looks.Load()
	for _, name := range uuids(1, 50) {
		line := "New Revoked token cache update for the label: commonEnforcerLabel version: " + text(w.revoke(name))
		until(t, "the version is served", func() bool { return len(w.lines(line)) == 1 })
	}
	if n := looks.Load() - before; n >= 10 { // the last ACKs may be among them
		t.Errorf("the clock was looked at %d times", n)
	}
	if lag := w.metric("revocation_adapter_gateway_lag_versions", t.Name()); lag != 0 {
		t.Errorf("they are %v versions behind", lag)
	}
	head = w.put(rule("azp=two", 1))
	sotw.follow(head)
	delta.follow(head)
}

// A version that rose without a rule is one to resume from, at every replica.
func TestRuleVersionsBetweenRules(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.put(rule("azp=one", 1))
	w.revoke("a", "b") // 1002, 1003
	w.hub.Store(1010)
	for _, claim := range []string{"1001", "1002", "1003"} {
		c := w.rulesOn(t, aggregated, claim)
		if resp := c.accept(); len(resp.GetResources()) != 0 || resp.GetVersionInfo() != "1003" {
			t.Errorf("from %s: %v", claim, resp)
		}
	}
	ahead, beyond := w.rulesOn(t, aggregated, "1005"), w.rulesOn(t, aggregated, "1011")
	if resp := beyond.accept(); len(resp.GetResources()) != 1 {
		t.Errorf("from beyond the hub's log: %v", resp)
	}
	w.revoke("c")
	head := w.revoke("d") // 1005
	if resp := ahead.accept(); len(resp.GetResources()) != 0 || resp.GetVersionInfo() != text(head) {
		t.Errorf("from ahead of this replica: %v", resp)
	}
}

func TestRulesAreRefusedUntilTheLogIsComplete(t *testing.T) {
	t.Parallel()
	w := start(t, func(c *xds.Config) { c.NotReady = func() string { return "still reading" } })
	if got := w.rulesOn(t, streamRules, "").end(); got.Code() != codes.Unavailable {
		t.Errorf("ended with %v", got)
	}
	client := revocationv1.NewRuleDiscoveryServiceClient(w.dial())
	if _, err := client.FetchRules(t.Context(), &discovery.DiscoveryRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("FetchRules: %v", err)
	}
}

// A refused rule is offered again at the next that changes, or after a while;
// tokens that come meanwhile are no reason.
func TestRuleThatIsRefused(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.put(rule("azp=one", 1))
	c := w.rulesOn(t, aggregated, "")
	for n := range 6 {
		c.nack(c.next())
		w.refusals(n + 1)
		w.clock.move(time.Minute)
	}
	c.nack(c.next())
	w.refusals(7)
	w.clock.move(time.Second) // less than it waits by now
	w.revoke("a")
	c.quiet(300 * time.Millisecond)
	w.put(rule("azp=two", 1))
	if resp := c.accept(); !slices.Equal(jtis(t, resp), []string{"azp=one", "azp=two"}) {
		t.Errorf("got %v", jtis(t, resp))
	}
}

func TestRulesAreWhatProtobufMakes(t *testing.T) {
	t.Parallel()
	w := start(t)
	longest := rule("sub="+strings.Repeat("v", revocation.MaxKey-4), revocation.Never)
	longest.Expiry, longest.Lifetime = revocation.Never, revocation.Forever
	w.put(rule("azp=client", 1_716_000_000_000), rule("x=a=b", 0), of("acme", rule("x==", 5)),
		of(strings.Repeat("t", revocation.MaxTenant), longest))
	raw := rawResponse(t, w, discovery.AggregatedDiscoveryService_StreamAggregatedResources_FullMethodName,
		&discovery.DiscoveryRequest{TypeUrl: xds.RuleTypeURL})
	resp := new(discovery.DiscoveryResponse)
	if n := entries(t, raw, resp, func(i int) proto.Message { return resp.GetResources()[i] }); n != 4 {
		t.Fatalf("%d rules, want 4", n)
	}
	for _, r := range resp.GetResources() {
		rule := new(revocationv1.Rule)
		if err := errors.Join(proto.Unmarshal(r.GetValue(), rule)); err != nil {
			t.Error(err)
		}
		known(t, rule)
		sameBytes(t, r.GetValue(), rule)
	}
	third := new(revocationv1.Rule)
	if err := resp.GetResources()[2].UnmarshalTo(third); err != nil || third.GetTenant() != "acme" || third.GetValue() != "=" || third.GetClaim() != "x" {
		t.Errorf("%v, %v", third, err)
	}
	raw = rawResponse(t, w, discovery.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName,
		&discovery.DeltaDiscoveryRequest{TypeUrl: xds.RuleTypeURL})
	incremental := new(discovery.DeltaDiscoveryResponse)
	entries(t, raw, incremental, func(i int) proto.Message { return incremental.GetResources()[i] })
}

func TestRulesComeInChunks(t *testing.T) {
	t.Parallel()
	w := start(t)
	var changes []revocation.Revocation
	for i, name := range threeChunks() {
		changes = append(changes, rule("sub="+name, int64(i+1)))
	}
	head := w.put(changes...)
	c, d := w.rulesOn(t, aggregated, ""), w.ruleDelta(t, &discovery.DeltaDiscoveryRequest{})
	if n, m := len(c.follow(head)), len(d.follow(head)); n < 3 || m < 3 {
		t.Errorf("%d and %d chunks, want at least 3", n, m)
	}
	same(t, c.held, w.ruleTruth())
	same(t, d.held, w.ruleTruth())
}

// Parked for long, they end as all others do: with an error, after which a client
// comes back.
func TestRuleStreamsEndWithUnavailableAtShutdown(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.put(rule("azp=one", 1))
	alone, beside := w.rulesOn(t, streamRules, ""), w.rulesOn(t, aggregated, "")
	alone.accept()
	beside.accept()
	incremental := w.ruleDelta(t, &discovery.DeltaDiscoveryRequest{})
	incremental.accept()
	str, err := revocationv1.NewRuleDiscoveryServiceClient(w.dial()).DeltaRules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	send(t, str.Send(&discovery.DeltaDiscoveryRequest{}))
	own := read(t.Context(), t, str.Recv)
	own.next()
	w.shutDown()
	for name, got := range map[string]*status.Status{
		"StreamRules": alone.end(), "aggregated": beside.end(), "delta": incremental.end(), "DeltaRules": own.end(),
	} {
		if got.Code() != codes.Unavailable {
			t.Errorf("%s ended with %v", name, got)
		}
	}
}
