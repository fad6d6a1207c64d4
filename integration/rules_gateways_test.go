package integration_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	keymgtservice "revocation-adapter/resources/proto/wso2/discovery/service/keymgt"
	"revocation-adapter/revocation"
)

const ruleURL = "type.googleapis.com/revocation.v1.Rule"

// logMessage is a record as a message of the hub's log.
func logMessage(t *testing.T, domain revocation.Domain, key, tenant string, state revocationv1.State) *nats.Msg {
	t.Helper()
	digest := revocation.DigestOf(domain, key)
	rec := &revocationv1.Record{
		Format: 1, Domain: revocationv1.Domain(domain), Key: key, Digest: digest[:], State: state, Tenant: tenant,
		ExpiryMillis: inAnHour().UnixMilli(), Lifetime: revocationv1.Lifetime_LIFETIME_DATED, TimeMicros: time.Now().UnixMicro(),
	}
	if domain == revocation.DomainRule {
		rec.IssuedBeforeMillis = 1_716_000_000_000
	}
	data, err := proto.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	msg := nats.NewMsg("revoked." + domain.String() + "." + digest.String())
	msg.Data = data
	return msg
}

// keep writes records, one after the other.
func keep(t *testing.T, conn *nats.Conn, msgs ...*nats.Msg) {
	t.Helper()
	for _, msg := range msgs {
		if _, err := conn.RequestMsg(msg, patience); err != nil {
			t.Fatal(err)
		}
	}
}

func rule(t *testing.T, key, tenant string) *nats.Msg {
	t.Helper()
	return logMessage(t, revocation.DomainRule, key, tenant, revocationv1.State_STATE_REVOKED)
}

func tokenOf(t *testing.T, jti, tenant string) *nats.Msg {
	t.Helper()
	return logMessage(t, revocation.DomainToken, jti, tenant, revocationv1.State_STATE_REVOKED)
}

// asks is the node of a gateway that asks for some tenants.
func asks(tenants ...any) *core.Node {
	list, _ := structpb.NewList(tenants) // of strings
	return &core.Node{Id: "gateway", Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
		"instanceIdentifier": structpb.NewStringValue(fmt.Sprint(tenants...)),
		"tenants":            structpb.NewListValue(list),
	}}}
}

// incremental is a delta stream of one type.
type incremental struct {
	t    *testing.T
	str  discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	url  string
	held map[string]string // versions
}

func follow(t *testing.T, conn *grpc.ClientConn, url string, node *core.Node, held map[string]string) *incremental {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	str, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	in := &incremental{t: t, str: str, url: url, held: map[string]string{}}
	maps.Copy(in.held, held)
	_ = str.Send(&discovery.DeltaDiscoveryRequest{Node: node, TypeUrl: url, InitialResourceVersions: held}) // the reason comes from Recv
	return in
}

// next takes a response.
func (in *incremental) next() *discovery.DeltaDiscoveryResponse {
	in.t.Helper()
	resp, err := in.str.Recv()
	if err != nil {
		in.t.Fatal(err)
	}
	for _, r := range resp.GetResources() {
		in.held[r.GetName()] = r.GetVersion()
	}
	for _, name := range resp.GetRemovedResources() {
		delete(in.held, name)
	}
	_ = in.str.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: in.url, ResponseNonce: resp.GetNonce()}) // as above
	return resp
}

// until takes responses until exactly names are held.
func (in *incremental) until(names ...string) {
	in.t.Helper()
	for !slices.Equal(slices.Sorted(maps.Keys(in.held)), names) {
		in.next()
	}
}

func TestRulesReachGateways(t *testing.T) {
	a := startAdapter(t)
	operator := a.operator(t)
	tokens := connectGateway(t, a, rtds, "")
	rules := follow(t, a.dial(t, nil), ruleURL, nil, nil)
	keep(t, operator, rule(t, "azp=client", ""), rule(t, "sub=someone", ""))
	rules.until("azp=client", "sub=someone")
	a.publish(t, event("a token", inAnHour()))
	tokens.awaits(t, "a token")
	keep(t, operator, logMessage(t, revocation.DomainRule, "azp=client", "", revocationv1.State_STATE_APPROVED))
	rules.until("sub=someone")
	if held, seen := tokens.count(); held != 1 || seen != 1 {
		t.Errorf("a gateway that knows only tokens got %d of them, %d times", held, seen)
	}
	a.stop(t)
	a.start(t)
	a.awaitReady(t)
	rules = follow(t, a.dial(t, nil), ruleURL, nil, rules.held)
	if resp := rules.next(); len(resp.GetResources()) != 0 {
		t.Errorf("after a restart %v comes again", resp.GetResources())
	}
	code, out, errOut := a.run(t, "watch", "--rules", "--count", "2")
	if code != 0 || !strings.Contains(out, `rule "sub=someone" issued before 2024-05-18T02:40:00Z`) || !strings.Contains(out, `"a token"`) {
		t.Errorf("watch --rules: exit %d, %s%s", code, out, errOut)
	}
	if code, _, errOut := a.run(t, "watch", "--rules", "--protocol", "rtds"); code != 2 || !strings.Contains(errOut, "enforcers know no rules") {
		t.Errorf("watch --rules as an enforcer: exit %d, %s", code, errOut)
	}
}

func TestTenantsAskedFor(t *testing.T) {
	a := startAdapter(t)
	operator := a.operator(t)
	keep(t, operator, tokenOf(t, "of acme", "acme"), tokenOf(t, "of other", "other"), tokenOf(t, "of none", ""),
		rule(t, "azp=acme", "acme"), rule(t, "azp=other", "other"))
	conn := a.dial(t, nil)
	follow(t, conn, typeURL, asks("acme"), nil).until("of acme", "of none")
	rules := follow(t, conn, ruleURL, asks("acme"), nil)
	rules.until("azp=acme")
	keep(t, operator, rule(t, "azp=another", "other"), rule(t, "azp=new", "acme"))
	if resp := rules.next(); len(resp.GetResources()) != 1 || resp.GetResources()[0].GetName() != "azp=new" {
		t.Errorf("then %v", resp.GetResources())
	}
	client := keymgtservice.NewRevokedTokenDiscoveryServiceClient(conn)
	fetch := func(version string, tenants ...any) (n int, reached string) {
		resp, err := client.FetchTokens(t.Context(), &discovery.DiscoveryRequest{Node: asks(tenants...), VersionInfo: version})
		if err != nil {
			t.Fatal(err)
		}
		return len(resp.GetResources()), resp.GetVersionInfo()
	}
	n, version := fetch("", "acme")
	same, _ := fetch(version, "acme")
	another, _ := fetch(version, "other")
	all, _ := fetch(version)
	if n != 2 || same != 0 || another != 2 || all != 3 {
		t.Errorf("%d tokens, then %d, as another tenant %d, as all %d; want 2, 0, 2, 3", n, same, another, all)
	}
	code, out, errOut := a.run(t, "watch", "--tenants", "acme,nobody", "--count", "1")
	if code != 0 || strings.Contains(out, "of other") || !strings.Contains(out, "of acme") || !strings.Contains(out, "of none") {
		t.Errorf("watch --tenants: exit %d, %s%s", code, out, errOut)
	}
	if !strings.Contains(a.log.String(), "A gateway asks for some tenants only") {
		t.Error("the log does not say what the gateway asked for")
	}
}

func TestBatchIsOneResponse(t *testing.T) {
	a := startAdapter(t)
	operator := a.operator(t)
	const batches, size = 3, 1000
	tokens := follow(t, a.dial(t, nil), typeURL, nil, nil)
	tokens.next()
	responses := 0
	for batch := range batches {
		for i := range size {
			msg := tokenOf(t, fmt.Sprint("jti ", batch, " ", i), "")
			msg.Header.Set("Nats-Batch-Id", fmt.Sprint("batch-", batch))
			msg.Header.Set("Nats-Batch-Sequence", strconv.Itoa(i+1))
			if i < size-1 {
				if err := operator.PublishMsg(msg); err != nil {
					t.Fatal(err)
				}
				continue
			}
			msg.Header.Set("Nats-Batch-Commit", "1")
			keep(t, operator, msg)
		}
		for len(tokens.held) < (batch+1)*size {
			tokens.next()
			responses++
		}
	}
	if responses > batches+2 { // a question to the leader may fall into one
		t.Errorf("%d batches came in %d responses", batches, responses)
	}
}
