package integration_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"revocation-adapter/adapter/receipts"
	"revocation-adapter/xds"
)

// held is a gateway that ACKs only when it is told to.
type held struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[discovery.DiscoveryRequest, discovery.DiscoveryResponse]
	conn   *grpc.ClientConn
}

// holdBack opens a stream of tokens and ACKs its first answer.
func holdBack(t *testing.T, a *adapter) *held {
	t.Helper()
	conn := a.dial(t, nil)
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g := &held{t, stream, conn}
	node := asks()
	node.Id = "held"
	g.send(&discovery.DiscoveryRequest{TypeUrl: xds.TypeURL, Node: node})
	g.ack()
	return g
}

func (g *held) send(req *discovery.DiscoveryRequest) {
	g.t.Helper()
	if err := g.stream.Send(req); err != nil {
		g.t.Fatal(err)
	}
}

func (g *held) ack() {
	g.t.Helper()
	resp, err := g.stream.Recv()
	if err != nil {
		g.t.Fatal(err)
	}
	g.send(&discovery.DiscoveryRequest{TypeUrl: xds.TypeURL, VersionInfo: resp.GetVersionInfo(), ResponseNonce: resp.GetNonce()})
}

// overview is what adapter gateways says.
func (a *adapter) overview(t *testing.T) (o receipts.Overview) {
	t.Helper()
	code, out, errOut := a.run(t, "gateways", "--json")
	if code != 0 || json.Unmarshal([]byte(out), &o) != nil {
		t.Fatalf("exit %d: %s%s", code, out, errOut)
	}
	return o
}

func TestReceiptOfARevocation(t *testing.T) {
	t.Parallel()
	a := startAdapter(t)
	says := func(wantCode int, want string, args ...string) {
		t.Helper()
		code, out, errOut := a.run(t, args...)
		if ok, _ := regexp.MatchString(want, out+errOut); code != wantCode || !ok {
			t.Errorf("%s: exit %d, want %d; %s%swant %s", strings.Join(args, " "), code, wantCode, out, errOut, want)
		}
	}
	says(0, `enforced 0, pending 0, unreachable 0, not concerned 0, cannot 0`, "revoke", "nobody", "--wait", "5s")
	says(0, `No gateways`, "gateways")

	prompt := connectGateway(t, a, "delta", "")
	prompt.awaits(t, "nobody")
	says(0, `Version \d+ after .*: enforced 1, pending 0, unreachable 0, not concerned 0, cannot 0`, "revoke", "r-1", "--wait", "20s")
	says(0, `enforced 1, `, "revoke", "r-1", "--wait", "20s") // which changes nothing
	says(0, `enforced 1, `, "approve", "r-1", "--wait", "20s")
	says(0, `enforced 1, `, "revoke", "opaque", "--type", "Default", "--wait", "20s")
	says(1, `cannot 1(.|\n)*go on accepting`, "revoke", "--claim", "sub=alice", "--wait", "20s")
	says(2, `--wait must be`, "revoke", "r-2", "--wait", "2m")
	says(0, `^{"name":"r-1","state":"revoked","event_id":".+","sequence":\d+,"version":\d+,"gateways":{"enforced":1,"pending":\[\],.*"took_ms":\d+}\n$`,
		"revoke", "r-1", "--wait", "20s", "--json")
	says(0, `^{"name":"r-1","state":"approved","event_id":".+","sequence":\d+}\n$`, "approve", "r-1", "--json")

	slow := holdBack(t, a)
	says(1, `enforced 1, pending 1 \(.*held.*\), .*\n.*1 gateways are not known to enforce`, "revoke", "r-3", "--wait", "5s")
	if o := a.overview(t); len(o.Gateways) != 2 || len(o.Replicas) != 1 {
		t.Errorf("overview is %+v", o)
	}
	says(0, `(?m)^! .*held.* behind `, "gateways")
	slow.ack()
	eventually(t, "its ACK has come", func() bool {
		return !slices.ContainsFunc(a.overview(t).Gateways, func(g receipts.Gateway) bool { return g.Lag > 0 })
	})
	says(0, `(?m)^  .*held.* current `, "gateways")

	if err := slow.conn.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the gateway is gone", func() bool {
		return slices.ContainsFunc(a.overview(t).Gateways, func(g receipts.Gateway) bool { return !g.Connected })
	})
	says(1, `enforced 1, pending 0, unreachable 1 \(.*held.*\)`, "revoke", "r-4", "--wait", "10s")
	says(0, `(?m)^! .*held.* gone `, "gateways")
	a.stop(t)
	says(3, `is the adapter running`, "gateways")
}

// One of three adapters is paused, and then killed: what its gateways have nobody
// can tell.
func TestReceiptWithoutOneOfThreeAdapters(t *testing.T) {
	t.Parallel()
	address := freePort(t)
	startNATS(t, address)
	hub := fmt.Sprintf("mode = \"external\"\nreplicas = 1\nurls = [\"nats://%s\"]\n", address)
	var all [3]*adapter
	for i := range all {
		all[i] = newAdapter(t, map[string]string{"hub": hub})
		all[i].hub = address
		all[i].start(t)
		all[i].awaitReady(t)
	}
	connectGateway(t, all[0], rtds, "")
	connectGateway(t, all[1], sotw, "")
	far := connectGateway(t, all[2], delta, "")
	connected := func(want ...string) func() bool {
		return func() bool {
			o := all[0].overview(t)
			o.Gateways = slices.DeleteFunc(o.Gateways, func(g receipts.Gateway) bool { return !g.Connected })
			return slices.EqualFunc(o.Gateways, want, func(g receipts.Gateway, name string) bool { return strings.HasSuffix(g.Name, name) })
		}
	}
	eventually(t, "all are connected", connected("gw-delta", "gw-rtds", "gw-sotw"))
	if code, out, errOut := all[0].run(t, "revoke", "r-1", "--wait", "20s"); code != 0 || !strings.Contains(out, "enforced 3, ") {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}

	if err := all[2].cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nobody can tell of the paused adapter's gateway", connected("gw-rtds", "gw-sotw"))
	if err := all[2].cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is back", connected("gw-delta", "gw-rtds", "gw-sotw"))

	if err := all[2].cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-all[2].left
	code, out, errOut := all[0].run(t, "revoke", "r-2", "--wait", "20s")
	if code != 1 || !strings.Contains(out, "enforced 2, pending 0, unreachable 1 (gw-delta)") {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}
	moved := runGateway(t, all[1].dial(t, nil), delta, "")
	moved.awaits(t, "r-2")
	eventually(t, "its ACK has come", connected("gw-delta", "gw-rtds", "gw-sotw"))
	if code, out, errOut := all[0].run(t, "revoke", "r-3", "--wait", "20s"); code != 0 || !strings.Contains(out, "enforced 3, ") {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}
	if far.holds("r-2") {
		t.Error("the gateway of the killed adapter has what it cannot have")
	}
}
