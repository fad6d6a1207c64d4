package messaging_test

import (
	"fmt"
	"testing"
	"time"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// Gateways get a batch as one response: what is stored at once is published at
// once.
func TestABatchIsOnePublication(t *testing.T) {
	t.Parallel()
	r := follow(t, embedded(t))
	r.awaitReady(t)
	r.settle(t)
	const batches, size = 5, 1000
	w := messaging.NewWriter(r.hub, r.log)
	parts := 0
	for batch := range batches {
		now := time.Now()
		rs := make([]revocation.Revocation, size)
		for i := range rs {
			rs[i] = revoked(fmt.Sprint("jti-", batch, "-", i), now)
		}
		s := r.log.Snapshot()
		first := s.Version()
		if n := count(t, w.Put(t.Context(), rs...)); n != size {
			t.Fatalf("%d stored", n)
		}
		shown := 0
		for s.Version() < first+size {
			<-s.Next()
			s = r.log.Snapshot()
			shown++
		}
		t.Logf("batch %d: %d publications, %s after it was asked for", batch, shown, time.Since(now))
		parts += shown
	}
	if parts > batches+2 { // a question to the leader may fall into one
		t.Errorf("%d batches of %d are shown in %d parts", batches, size, parts)
	}
}
