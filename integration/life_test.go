package integration_test

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/nats-io/nats-server/v2/server"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	keymgtservice "revocation-adapter/resources/proto/wso2/discovery/service/keymgt"
)

func TestRestartLosesNothing(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{"stopped": syscall.SIGTERM, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			a := startAdapter(t)
			var all []string
			for i := range 8 {
				jti := fmt.Sprint("kept-", i)
				if code, _, errOut := a.run(t, "revoke", jti, "--expires-in", "1h"); code != 0 {
					t.Fatal(errOut)
				}
				all = append(all, jti)
			}
			before := connectGateway(t, a, rtds, "")
			before.awaits(t, all...)
			reached := before.number(t)
			a.signal(t, signal)
			a.start(t)
			a.awaitReady(t)
			after := connectGateway(t, a, rtds, "")
			after.awaits(t, all...)
			if got := after.number(t); got != reached {
				t.Errorf("version %d after the restart, was %d", got, reached)
			}
			a.publish(t, event("new", inAnHour()))
			before.awaits(t, "new")
			if before.number(t) <= reached {
				t.Errorf("version %d after one more event, was %d", before.number(t), reached)
			}
		})
	}
}

func TestStreamsEndWithError(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			a := startAdapter(t)
			var gateways []*gateway
			for _, protocol := range []string{rtds, sotw, delta} {
				gateways = append(gateways, connectGateway(t, a, protocol, ""))
			}
			a.publish(t, event("before", inAnHour()))
			for _, g := range gateways {
				g.awaits(t, "before")
			}
			if took := a.signal(t, signal); took > 5*time.Second {
				t.Errorf("it took %s to stop", took)
			}
			if code := a.cmd.ProcessState.ExitCode(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			a.start(t)
			a.awaitReady(t)
			a.publish(t, event("after", inAnHour()))
			for _, g := range gateways {
				g.awaits(t, "after")
				for _, code := range g.endings() {
					if code != codes.Unavailable {
						t.Errorf("a %s stream ended with %s", g.protocol, code)
					}
				}
			}
		})
	}
}

func TestResumeByVersion(t *testing.T) {
	a := startAdapter(t)
	first := connectGateway(t, a, rtds, "")
	a.publish(t, event("old-1", inAnHour()))
	a.publish(t, event("old-2", inAnHour()))
	first.awaits(t, "old-1", "old-2")
	eventually(t, "both are ACKed as one version", func() bool {
		return strings.Contains(a.log.String(), "version: "+first.acked()+" ")
	})
	resumed := connectGateway(t, a, rtds, first.acked())
	a.publish(t, event("since", inAnHour()))
	resumed.awaits(t, "since")
	if _, seen := resumed.count(); seen != 1 {
		t.Errorf("a gateway that resumed was sent %d tokens, want the new one", seen)
	}
	foreign := connectGateway(t, a, rtds, "9999999999999999999")
	foreign.awaits(t, "old-1", "old-2", "since")
}

func TestNobodyBeforeTheSet(t *testing.T) {
	nowhere := freePort(t)
	a := newAdapter(t, map[string]string{"hub": fmt.Sprintf("mode = \"external\"\nreplicas = 1\nurls = [\"nats://%s\"]\n", nowhere)})
	a.start(t)
	eventually(t, "it is alive", func() bool { code, _ := a.get(t, "/healthz"); return code == http.StatusOK })
	if code, body := a.get(t, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "hub") {
		t.Errorf("/readyz without a hub: %d %s", code, body)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	str, err := keymgtservice.NewRevokedTokenDiscoveryServiceClient(a.dial(t, nil)).StreamTokens(ctx)
	if err == nil {
		_ = str.Send(&discovery.DiscoveryRequest{TypeUrl: typeURL}) // the answer tells
		_, err = str.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a gateway was told %v, want UNAVAILABLE", err)
	}
	g := connectGateway(t, a, rtds, "")
	startNATS(t, nowhere)
	a.awaitReady(t)
	eventually(t, "the gateway is served", func() bool { return g.acked() != "" })
}

// startNATS starts a server such as a production cluster has, on an address.
func startNATS(t *testing.T, address string) {
	t.Helper()
	opts := &server.Options{JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true, SyncAlways: true}
	if _, err := fmt.Sscanf(strings.ReplaceAll(address, ":", " "), "%s %d", &opts.Host, &opts.Port); err != nil {
		t.Fatal(err)
	}
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(patience) {
		t.Fatal("the NATS server is not ready")
	}
}

func TestExternalHub(t *testing.T) {
	address := freePort(t)
	startNATS(t, address)
	hub := fmt.Sprintf("mode = \"external\"\nreplicas = 1\nurls = [\"nats://%s\"]\n", address)
	one, two := newAdapter(t, map[string]string{"hub": hub}), newAdapter(t, map[string]string{"hub": hub})
	one.hub, two.hub = address, address
	one.start(t)
	two.start(t)
	one.awaitReady(t)
	two.awaitReady(t)
	g1, g2 := connectGateway(t, one, rtds, ""), connectGateway(t, two, delta, "")
	for i := range 20 {
		one.publish(t, event(fmt.Sprint("shared-", i), inAnHour()))
	}
	for i := range 20 {
		g1.awaits(t, fmt.Sprint("shared-", i))
		g2.awaits(t, fmt.Sprint("shared-", i))
	}
	eventually(t, "both are at the same version", func() bool { return g1.acked() == g2.acked() })
	one.stop(t) // its gateway goes to the other
	moved := connectGateway(t, two, rtds, g1.acked())
	two.publish(t, event("after-fail-over", inAnHour()))
	moved.awaits(t, "after-fail-over")
	if _, seen := moved.count(); seen != 1 {
		t.Errorf("after the fail-over %d tokens were sent, want the new one", seen)
	}
}

func TestOneAdapterPerStore(t *testing.T) {
	a := startAdapter(t)
	second := newAdapter(t, map[string]string{
		"hub": fmt.Sprintf("listen = %q\nstore = %q\n", freePort(t), a.dir+"/hub"),
	})
	out, err := exec.Command(binary, "run", "--config", second.config).CombinedOutput()
	if err == nil || !strings.Contains(string(out), fmt.Sprint("pid ", a.cmd.Process.Pid)) {
		t.Errorf("the second adapter: %v, %s", err, out)
	}
	a.publish(t, event("still-served", inAnHour()))
	connectGateway(t, a, rtds, "").awaits(t, "still-served")
}
