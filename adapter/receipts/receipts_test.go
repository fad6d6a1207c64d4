package receipts_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/nats-io/nats.go"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"

	"revocation-adapter/adapter/receipts"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
	"revocation-adapter/xds"
)

// The answer comes with the last ACK, on whichever replica, and not before.
func TestReceiptWaitsForEveryGatewayOfEveryReplica(t *testing.T) {
	t.Parallel()
	_, all := three(t)
	var gateways []*gateway
	for i, r := range all {
		gateways = append(gateways, r.connect(t, fmt.Sprint("gw-", i+1), xds.TypeURL))
	}
	v := revoke(t, all, "a")
	answer := all[0].awaiting(t, tokensAt(v), patience)
	gateways[0].follow(v)
	gateways[1].follow(v)
	held := gateways[2].receive()
	all[1].comes(t, tokensAt(v), `enforced 2, pending ["gw-3"], unreachable [], not concerned 0, cannot 0`)
	silent(t, answer)
	began := time.Now()
	gateways[2].ack(held)
	answered(t, answer, `enforced 3, pending [], unreachable [], not concerned 0, cannot 0`)
	if took := time.Since(began); took > patience/3 {
		t.Errorf("the answer came %s after the last ACK", took)
	}
}

func TestReceiptOfAGatewayThatRefuses(t *testing.T) {
	t.Parallel()
	_, all := three(t)
	g := all[1].connect(t, "gw", xds.TypeURL)
	v := revoke(t, all, "a")
	resp := g.receive()
	fatal(t, g.stream.Send(&discovery.DiscoveryRequest{
		TypeUrl: g.url, ResponseNonce: resp.GetNonce(), VersionInfo: "1000",
		ErrorDetail: &status.Status{Code: int32(codes.Internal), Message: "no"},
	}))
	all[0].comes(t, tokensAt(v), `enforced 0, pending ["gw"], unreachable [], not concerned 0, cannot 0`)
	g.follow(v) // it is offered again
	all[0].comes(t, tokensAt(v), `enforced 1, pending [], unreachable [], not concerned 0, cannot 0`)
}

// A gateway that leaves while somebody waits is unreachable: it is not waited for.
func TestReceiptOfAGatewayThatLeaves(t *testing.T) {
	t.Parallel()
	s, all := three(t)
	stays, leaves := all[0].connect(t, "stays", xds.TypeURL), all[1].connect(t, "leaves", xds.TypeURL)
	present(t, s, 2)
	v := revoke(t, all, "a")
	answer := all[2].awaiting(t, tokensAt(v), patience)
	stays.follow(v)
	leaves.receive()
	silent(t, answer)
	leaves.close()
	answered(t, answer, `enforced 1, pending [], unreachable ["leaves"], not concerned 0, cannot 0`)
	all[0].comes(t, tokensAt(v), `enforced 1, pending [], unreachable ["leaves"], not concerned 0, cannot 0`)
	all[0].connect(t, "leaves", xds.TypeURL) // to another replica
	all[1].comes(t, tokensAt(v), `enforced 2, pending [], unreachable [], not concerned 0, cannot 0`)
}

func TestReceiptOfAllFigures(t *testing.T) {
	t.Parallel()
	s, all := three(t)
	carbon, other := all[0].connect(t, "carbon", xds.BatchTypeURL, "carbon"), all[1].connect(t, "other", xds.TypeURL, "other")
	all[2].connect(t, "rules", xds.RuleTypeURL)
	adds := all[2].connect(t, "adds", xds.TypeURL)
	gone := all[1].connect(t, "gone", xds.TypeURL, "other")
	present(t, s, 5)
	gone.close()
	v := revoke(t, all, "a")
	adds.follow(v)
	carbon.follow(v)
	q := tokensAt(v, "carbon")
	all[0].comes(t, q, `enforced 2, pending [], unreachable [], not concerned 3, cannot 0`)
	q.Parts[0].State = revocation.Approved
	all[0].comes(t, q, `enforced 1, pending [], unreachable [], not concerned 3, cannot 1`)
	q = tokensAt(v)
	all[1].comes(t, q, `enforced 2, pending ["other"], unreachable ["gone"], not concerned 1, cannot 0`)
	other.follow(v)
	all[1].comes(t, q, `enforced 3, pending [], unreachable ["gone"], not concerned 1, cannot 0`)
}

// While a gateway moves, two replicas know it: what its newest stream has come to
// counts.
func TestReceiptOfAGatewayOnTwoReplicas(t *testing.T) {
	t.Parallel()
	_, all := three(t)
	all[0].connect(t, "gw", xds.TypeURL)
	second := all[1].connect(t, "gw", xds.TypeURL)
	v := revoke(t, all, "a")
	began := time.Now()
	answer := all[2].awaiting(t, tokensAt(v), patience)
	second.follow(v)
	answered(t, answer, `enforced 1, pending [], unreachable [], not concerned 0, cannot 0`)
	if took := time.Since(began); took > patience/3 {
		t.Errorf("its older stream held the answer for %s", took)
	}
	all[2].comes(t, tokensAt(v), `enforced 1, pending [], unreachable [], not concerned 0, cannot 0`)
	gateways, err := all[2].Gateways(t.Context())
	if err != nil || len(gateways) != 1 || gateways[0].Replica != "r2" || gateways[0].Version != v {
		t.Errorf("gateways are %+v, %v", gateways, err)
	}
}

// The gateways of a replica that is killed are unreachable, from the first answer
// on, and are so when it is known no more.
func TestReceiptAfterAReplicaIsKilled(t *testing.T) {
	t.Parallel()
	s, all := three(t)
	one, three := all[0].connect(t, "gw-1", xds.TypeURL), all[2].connect(t, "gw-3", xds.TypeURL)
	present(t, s, 2)
	eventually(t, "all are known here", func() bool {
		known, err := all[0].Gateways(t.Context())
		return err == nil && len(known) == 2
	})
	all[2].hub.Close() // it is there and cannot be asked, as if it were paused
	v := revoke(t, all, "a")
	one.follow(v)
	three.follow(v) // which nobody can tell
	began := time.Now()
	receipt, err := all[0].Await(t.Context(), tokensAt(v), time.Second)
	fatal(t, err)
	if got := stands(receipt); got != `enforced 1, pending [], unreachable ["gw-3"], not concerned 0, cannot 0` {
		t.Error(got)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a replica that is silent held the answer for %s", took)
	}
	eventually(t, "the replica is known no more", func() bool { return len(all[0].Replicas()) == 2 })
	quickest := patience
	for range 5 { // the machine may be busy
		began = time.Now()
		all[0].comes(t, tokensAt(v), `enforced 1, pending [], unreachable ["gw-3"], not concerned 0, cannot 0`)
		quickest = min(quickest, time.Since(began))
	}
	if quickest > 500*time.Millisecond {
		t.Errorf("a replica that is gone held the answer for %s", quickest)
	}
	gateways, err := all[1].Gateways(t.Context())
	if err != nil || len(gateways) != 2 || gateways[1].Connected || gateways[1].Replica != "r3" || !gateways[0].Connected {
		t.Errorf("gateways are %+v, %v", gateways, err)
	}
}

func TestReceiptOfACancelledAsker(t *testing.T) {
	t.Parallel()
	_, all := three(t)
	all[1].connect(t, "gw", xds.TypeURL)
	v := revoke(t, all, "a")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := all[0].Await(ctx, tokensAt(v), patience)
		ended <- err
	}()
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Await: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it waits though nobody does")
	}
}

func TestReceiptBeforeRun(t *testing.T) {
	t.Parallel()
	r := start(t, hub(t), "r1")
	unready, err := receipts.New(receipts.Config{Hub: r.hub, Server: r.server, Name: "r2", Memory: time.Minute, Log: quiet()})
	fatal(t, err)
	if _, err := unready.Await(t.Context(), tokensAt(1), 0); !errors.Is(err, receipts.ErrNotReady) {
		t.Errorf("Await: %v, want %v", err, receipts.ErrNotReady)
	}
	if _, err := unready.Gateways(t.Context()); !errors.Is(err, receipts.ErrNotReady) {
		t.Errorf("Gateways: %v, want %v", err, receipts.ErrNotReady)
	}
}

// The command line is no replica: it asks one over the hub.
func TestReceiptOverTheHub(t *testing.T) {
	t.Parallel()
	s, all := three(t)
	g := all[1].connect(t, "gw", xds.TypeURL)
	all[2].connect(t, "slow", xds.TypeURL)
	v := revoke(t, all, "a")
	g.follow(v)
	all[0].comes(t, tokensAt(v), `enforced 1, pending ["slow"], unreachable [], not concerned 0, cannot 0`)
	conn, err := nats.Connect(s.ClientURL())
	fatal(t, err)
	defer conn.Close()
	receipt, err := receipts.Ask(t.Context(), conn, tokensAt(v), 100*time.Millisecond)
	fatal(t, err)
	if got := stands(receipt); got != `enforced 1, pending ["slow"], unreachable [], not concerned 0, cannot 0` || receipt.Version != v {
		t.Errorf("version %d, %s", receipt.Version, got)
	}
	overview, err := receipts.AskGateways(t.Context(), conn)
	if err != nil || !slices.Equal(overview.Replicas, []string{"r1", "r2", "r3"}) || len(overview.Gateways) != 2 || overview.Gateways[1].Lag != 1 {
		t.Errorf("overview is %+v, %v", overview, err)
	}
	for _, r := range all {
		r.stop()
	}
	if _, err := receipts.AskGateways(t.Context(), conn); !errors.Is(err, messaging.ErrNoAnswer) {
		t.Errorf("without replicas: %v", err)
	}
}
