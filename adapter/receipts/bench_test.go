package receipts_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"revocation-adapter/adapter/receipts"
	"revocation-adapter/xds"
)

// crowd connects 1,000 gateways to each replica, 100 on a connection.
func crowd(b *testing.B, all []*replica) (gateways []*gateway) {
	b.Helper()
	for i, r := range all {
		for j := range 1000 {
			if j%100 == 0 {
				conn, err := grpc.NewClient("passthrough:///"+r.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
				fatal(b, err)
				b.Cleanup(func() { fatal(b, conn.Close()) })
				r.conn = conn
			}
			gateways = append(gateways, r.connectOn(b, r.conn, node(fmt.Sprintf("gateway-%d-%04d.example.com", i, j)), xds.TypeURL))
		}
	}
	return gateways
}

func follow(gateways []*gateway, version uint64) {
	var all sync.WaitGroup
	for _, g := range gateways {
		all.Go(func() { g.follow(version) })
	}
	all.Wait()
}

// Both ask three replicas with 1,000 gateways each, over a real NATS server, all in
// one process.
func BenchmarkGateways(b *testing.B) {
	s, all := three(b)
	crowd(b, all)
	present(b, s, 3000)
	for b.Loop() {
		gateways, err := all[0].Gateways(b.Context())
		if err != nil || len(gateways) != 3000 {
			b.Fatal(len(gateways), err)
		}
	}
}

func BenchmarkAwait(b *testing.B) {
	s, all := three(b)
	gateways := crowd(b, all)
	present(b, s, 3000)
	worst := time.Duration(0)
	for i := 0; b.Loop(); i++ {
		answer := make(chan receipts.Receipt, 1)
		v := revoke(b, all, fmt.Sprint("token-", i))
		go func() {
			receipt, err := all[0].Await(b.Context(), tokensAt(v), patience)
			if err != nil {
				b.Error(err)
			}
			answer <- receipt
		}()
		follow(gateways, v)
		acked := time.Now()
		if r := <-answer; r.Enforced != 3000 {
			b.Fatal(stands(r))
		}
		worst = max(worst, time.Since(acked))
	}
	b.ReportMetric(float64(worst.Microseconds())/1000, "ms-after-last-ACK-max")
}
