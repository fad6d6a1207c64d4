package messaging_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// BenchmarkDecisions measures single decisions on new keys by callers who wait for
// each, at an embedded hub that syncs before it answers.
func BenchmarkDecisions(b *testing.B) {
	for _, callers := range []int{1, 32, 128} {
		b.Run(fmt.Sprint(callers, " callers"), func(b *testing.B) { benchDecisions(b, callers) })
	}
}

func benchDecisions(b *testing.B, callers int) {
	b.Helper()
	cfg := config()
	cfg.Embedded = &messaging.EmbeddedConfig{Listen: "127.0.0.1:0", Store: filepath.Join(b.TempDir(), "hub")}
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	cfg.Log = quiet
	hub, err := messaging.Open(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(hub.Close)
	r := &replica{hub: hub, log: revocation.NewLog(grace)}
	metrics := messaging.NewMetrics(prometheus.NewRegistry())
	d := messaging.NewDecisions(hub, r.log, metrics)
	ended := make(chan error, 2)
	for _, run := range []func() error{
		func() error { return messaging.NewFollower(hub, r.log, metrics).Run(b.Context()) },
		func() error { return d.Run(b.Context()) },
	} {
		go func() { ended <- run() }()
	}
	b.Cleanup(func() {
		for range cap(ended) {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				b.Error(err)
			}
		}
	})
	var next atomic.Int64
	took := make([]time.Duration, b.N)
	b.ResetTimer()
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < b.N; i = int(next.Add(1)) - 1 {
				began := time.Now()
				key := fmt.Sprint("jti-", i)
				if o := d.Put(b.Context(), decided(key, key, revocation.Revoked, began))[0]; o.Err != nil {
					b.Error(o.Err)
				}
				took[i] = time.Since(began)
			}
		})
	}
	group.Wait()
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
	b.ReportMetric(float64(took[b.N/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[b.N*99/100].Microseconds())/1000, "p99-ms")
}
