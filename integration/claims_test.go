package integration_test

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nuid"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
)

// TestClaimedOnce: of any number of claims of a one-time token, at any adapters, one
// is granted, whatever dies meanwhile, and one more after each approval.
func TestClaimedOnce(t *testing.T) {
	store, address := t.TempDir(), freePort(t)
	hub := natsOn(t, store, address)
	one, two := adapterAt(t, address), adapterAt(t, address)
	start := func() {
		for _, a := range []*adapter{one, two} {
			a.start(t)
			a.awaitReady(t)
		}
	}
	start()
	adds, drops := connectGateway(t, two, rtds, ""), connectGateway(t, two, delta, "")
	var tokens []string
	for i := range 100 {
		tokens = append(tokens, fmt.Sprint("one-time-", i))
	}

	won := contendFor(t, tokens, 32, one, two, func() { one.signal(t, syscall.SIGKILL) })
	one.start(t)
	one.awaitReady(t)
	for _, jti := range tokens {
		repeat, late := won[jti], claimOf(jti)
		for _, a := range []*adapter{one, two} {
			if got := claimAt(t, a, repeat); got != granted {
				t.Errorf("%s, granted and repeated, is %s", jti, got)
			}
			if got := claimAt(t, a, late); got != usedUp {
				t.Errorf("%s, once more, is %s", jti, got)
			}
		}
	}
	adds.awaits(t, tokens...)
	drops.awaits(t, tokens...)

	again := tokens[:20]
	for _, jti := range again {
		if code, _, errOut := two.run(t, "approve", jti); code != 0 {
			t.Fatalf("approve: exit %d, %s", code, errOut)
		}
	}
	eventually(t, "the approvals are known", func() bool {
		for _, jti := range again {
			if drops.holds(jti) {
				return false
			}
		}
		return true
	})
	contendFor(t, again, 32, one, two, func() {})

	one.stop(t)
	two.stop(t)
	hub.Shutdown()
	hub.WaitForShutdown()
	natsOn(t, store, address)
	start()
	for _, jti := range tokens {
		if got := claimAt(t, one, claimOf(jti)); got != usedUp {
			t.Errorf("%s, after a restart of everything, is %s", jti, got)
		}
	}
	connectGateway(t, one, delta, "").awaits(t, tokens...)
}

const (
	granted = revocationv1.ClaimResponse_OUTCOME_GRANTED
	usedUp  = revocationv1.ClaimResponse_OUTCOME_REVOKED
)

// natsOn starts a NATS server that is the hub of several adapters.
func natsOn(t *testing.T, store, address string) *server.Server {
	t.Helper()
	u, err := url.Parse("nats://" + address)
	must(t, err)
	port, err := strconv.Atoi(u.Port())
	must(t, err)
	s, err := server.NewServer(&server.Options{
		ServerName: "hub", Host: u.Hostname(), Port: port, JetStream: true, StoreDir: store, SyncAlways: true, NoLog: true, NoSigs: true,
	})
	must(t, err)
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(patience) {
		t.Fatal("the NATS server is not ready")
	}
	return s
}

// adapterAt configures an adapter at an external hub.
func adapterAt(t *testing.T, address string) *adapter {
	t.Helper()
	a := newAdapter(t, map[string]string{"hub": fmt.Sprintf("mode = \"external\"\nreplicas = 1\nurls = [\"nats://%s\"]\n", address)})
	a.hub = address
	return a
}

func claimOf(jti string) *revocationv1.ClaimRequest {
	return &revocationv1.ClaimRequest{
		ClaimId: nuid.Next(), Jti: jti, ExpiryMillis: inAnHour().UnixMilli(), Kind: revocationv1.Kind_KIND_JWT,
	}
}

func claimAt(t *testing.T, a *adapter, req *revocationv1.ClaimRequest) revocationv1.ClaimResponse_Outcome {
	t.Helper()
	return claimAnywhere(t, req, revocationv1.NewClaimServiceClient(a.dial(t, nil)))
}

// claimAnywhere does what a gateway does: it asks one adapter after another, with
// the same claim id, until one knows.
func claimAnywhere(t *testing.T, req *revocationv1.ClaimRequest, at ...revocationv1.ClaimServiceClient) revocationv1.ClaimResponse_Outcome {
	t.Helper()
	end := time.After(patience)
	for try := 0; ; try++ {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		resp, err := at[try%len(at)].Claim(ctx, req)
		cancel()
		if err == nil {
			return resp.GetOutcome()
		}
		if strings.Contains(err.Error(), req.GetJti()) {
			t.Errorf("an error names the token: %v", err)
		}
		select {
		case <-end:
			t.Errorf("nobody decides a claim: %v", err)
			return revocationv1.ClaimResponse_OUTCOME_UNSPECIFIED
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// contendFor has many claims of each token at two adapters at once, does something
// when a third of them is answered, and returns the one that was granted of each.
func contendFor(t *testing.T, tokens []string, contenders int, one, two *adapter, meanwhile func()) map[string]*revocationv1.ClaimRequest {
	t.Helper()
	clients := []revocationv1.ClaimServiceClient{
		revocationv1.NewClaimServiceClient(one.dial(t, nil)), revocationv1.NewClaimServiceClient(two.dial(t, nil)),
	}
	won := map[string]*revocationv1.ClaimRequest{}
	third := make(chan struct{})
	var mu sync.Mutex
	var answered atomic.Int64
	var group sync.WaitGroup
	for i := range contenders {
		for _, jti := range tokens {
			group.Go(func() {
				req := claimOf(jti)
				got := claimAnywhere(t, req, clients[i%2], clients[(i+1)%2])
				if answered.Add(1) == int64(len(tokens)*contenders/3) {
					close(third)
				}
				mu.Lock()
				defer mu.Unlock()
				switch {
				case got == granted && won[jti] != nil:
					t.Errorf("%s is granted twice", jti)
				case got == granted:
					won[jti] = req
				case got != usedUp:
					t.Errorf("a claim is %s", got)
				}
			})
		}
	}
	<-third
	meanwhile()
	group.Wait()
	if len(won) != len(tokens) {
		t.Errorf("%d tokens of %d were granted", len(won), len(tokens))
	}
	return won
}
