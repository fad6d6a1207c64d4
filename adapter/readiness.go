package main

import "github.com/prometheus/client_golang/prometheus"

// readiness tells what /readyz tells, to whoever watches many replicas. It is told
// from the start, hub or not: a replica that cannot open its hub is one to alert on.
func (r *replica) readiness() []prometheus.Collector {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "revocation_adapter", Name: name, Help: help}, value)
	}
	return []prometheus.Collector{
		gauge("ready", "1 while gateways are served, as /readyz says.",
			func() float64 { return indicator(r.notReady() == "") }),
		gauge("log_went_back", "1 while the hub's log ends before what was shown already. A person must look.",
			func() float64 { return indicator(r.wentBack()) }),
		gauge("log_max_live", "Keys that the log may hold: revocation.max_live.",
			func() float64 { return float64(r.cfg.Revocation.MaxLive) }),
	}
}

func (r *replica) wentBack() bool {
	parts := r.hub.Load()
	return parts != nil && parts.hub.WentBack()
}

func indicator(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
