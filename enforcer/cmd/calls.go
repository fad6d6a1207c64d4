package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"revocation-adapter/config/jwks"
	"revocation-adapter/enforcer/gate"
)

// calls counts what became of them.
type calls struct {
	total   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

func newCalls(metrics prometheus.Registerer) *calls {
	c := &calls{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "revocation_enforcer", Name: "calls_total",
			Help: "Calls that were decided, by the way in which the gateway asked and the verdict.",
		}, []string{"front", "verdict"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "revocation_enforcer", Name: "call_seconds",
			Help:    "How long decisions took, claims included.",
			Buckets: []float64{1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1, 3},
		}, []string{"front"}),
	}
	metrics.MustRegister(c.total, c.seconds)
	return c
}

// verifier verifies the tokens of calls.
type verifier struct{ keys *jwks.Keys }

// Verify implements gate.Verifier.
func (v verifier) Verify(ctx context.Context, raw string) error {
	err := v.keys.Verify(ctx, raw)
	if errors.Is(err, jwks.ErrUndecided) {
		return fmt.Errorf("%w: %w", gate.ErrUndecided, err)
	}
	return err
}

// failedSources tells of keys that get old.
func failedSources(keys *jwks.Keys) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "revocation_enforcer", Name: "key_sources_failed",
		Help: "Sources of keys that could not be used when they were read last.",
	}, func() float64 { return float64(keys.Failed()) })
}

// decide answers the calls of one front, counts them, and logs those that are
// refused: why, and nothing of the call.
func (s *sidecar) decide(front string) func(context.Context, gate.Request) gate.Answer {
	for _, verdict := range gate.Verdicts() {
		s.calls.total.WithLabelValues(front, string(verdict))
	}
	seconds := s.calls.seconds.WithLabelValues(front)
	return func(ctx context.Context, r gate.Request) gate.Answer {
		began := time.Now()
		answer := s.gate.Decide(ctx, r)
		seconds.Observe(time.Since(began).Seconds())
		s.calls.total.WithLabelValues(front, string(answer.Verdict)).Inc()
		if !answer.Verdict.Pass() {
			s.log.WithFields(logrus.Fields{"front": front, "verdict": answer.Verdict}).Debug("A call is refused")
		}
		return answer
	}
}
