package enforcer

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

const namespace = "revocation_enforcer"

// metrics are what an Enforcer tells. Checks are not counted: whoever checks
// counts.
type metrics struct {
	batches, badBatches, resets, reconnects prometheus.Counter
	snapshotWrites, snapshotFailures        prometheus.Counter
	connected                               atomic.Bool

	gauges []prometheus.Collector
}

func newMetrics(e *Enforcer) *metrics {
	m := &metrics{
		batches:          counter("batches_total", "Responses of adapters that were taken, those that said nothing new too."),
		badBatches:       counter("bad_batches_total", "Responses of adapters that were refused, of which nothing counts."),
		resets:           counter("resets_total", "Whole sets that adapters began to send."),
		reconnects:       counter("reconnects_total", "Streams of adapters that ended, or could not be opened."),
		snapshotWrites:   counter("snapshot_writes_total", "Times that the snapshot file was written."),
		snapshotFailures: counter("snapshot_failures_total", "Times that the snapshot file could not be read or written."),
	}
	m.gauges = []prometheus.Collector{
		gauge("tokens", "Tokens in the set. Those that have expired are dropped now and then.",
			func() float64 { return float64(e.view.Load().set.tokens.count) }),
		gauge("rules", "Rules in the set.",
			func() float64 { return float64(e.view.Load().set.rules.count) }),
		gauge("version", "Version of the adapters' log that the set holds.",
			func() float64 { return float64(e.view.Load().version) }),
		gauge("complete_timestamp_seconds", "Everything that the hub had stored by then is in the set. 0: it is not known.",
			func() float64 { return float64(e.view.Load().complete) / 1e6 }),
		gauge("stale", "1 while the set is too old, or was never complete.",
			func() float64 { return indicator(e.Freshness().Stale) }),
		gauge("connected", "1 while an adapter is followed.",
			func() float64 { return indicator(m.connected.Load()) }),
	}
	return m
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
}

func gauge(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, value)
}

func indicator(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func (m *metrics) register(reg prometheus.Registerer) error {
	all := append([]prometheus.Collector{
		m.batches, m.badBatches, m.resets, m.reconnects, m.snapshotWrites, m.snapshotFailures,
	}, m.gauges...)
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}
