package xds

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revocation-adapter/revocation"
)

type metrics struct {
	responses *prometheus.CounterVec
	bytes     *prometheus.CounterVec
	nacks     *prometheus.CounterVec
	refused   prometheus.Counter
	ackTime   prometheus.Histogram

	// Per protocol, looked up once.
	push  [2]prometheus.Counter
	pushB [2]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, gs *gateways, head func() *revocation.Snapshot) *metrics {
	m := &metrics{
		responses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "revocation_adapter_xds_responses_total",
			Help: "Responses pushed to gateways, by protocol.",
		}, []string{"protocol"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "revocation_adapter_xds_response_bytes_total",
			Help: "Bytes of the responses pushed to gateways, by protocol, before TLS and framing.",
		}, []string{"protocol"}),
		nacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "revocation_adapter_xds_nacks_total",
			Help: "Responses that gateways refused, by protocol.",
		}, []string{"protocol"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "revocation_adapter_xds_refused_streams_total",
			Help: "Streams refused because the log was not complete or there were too many.",
		}),
		ackTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "revocation_adapter_publication_to_ack_seconds",
			Help:    "Time from the publication of a change to a gateway's ACK of it.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
	}
	for _, p := range []protocol{sotw, delta} {
		m.push[p] = m.responses.WithLabelValues(p.String())
		m.pushB[p] = m.bytes.WithLabelValues(p.String())
		m.nacks.WithLabelValues(p.String())
	}
	reg.MustRegister(m.responses, m.bytes, m.nacks, m.refused, m.ackTime, gatewayCollector(gs, head))
	return m
}

// envelope is what a response has beside its entries, version and type URL, in
// bytes: the nonce, and the fields around them.
const envelope = 10

func (m *metrics) pushed(p protocol, c *chunk) {
	m.push[p].Inc()
	m.pushB[p].Add(float64(len(c.wire) + len(c.text) + len(c.kind.url()) + envelope))
}

func (m *metrics) acked(c *chunk, now time.Time) {
	m.ackTime.Observe(now.Sub(c.at).Seconds())
}

// collector describes the gateways when it is asked, and at no other time.
type collector struct {
	gateways                *gateways
	head                    func() *revocation.Snapshot
	connected, limited, lag *prometheus.Desc
}

func gatewayCollector(gs *gateways, head func() *revocation.Snapshot) *collector {
	return &collector{
		gateways: gs, head: head,
		connected: prometheus.NewDesc("revocation_adapter_gateways_connected",
			"Gateways that hold a stream, by protocol.", []string{"protocol"}, nil),
		limited: prometheus.NewDesc("revocation_adapter_gateways_limited",
			"Gateways with a stream that carries some tenants only.", nil, nil),
		lag: prometheus.NewDesc("revocation_adapter_gateway_lag_versions",
			"How many versions a gateway's newest ACK is behind.", []string{"gateway"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.connected
	ch <- c.limited
	ch <- c.lag
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	head := c.head()
	var connected [protocols]int
	limited := 0
	c.gateways.each(func(g *gateway) {
		for p := range connected {
			if g.speaks(protocol(p)) { // one of protocols
				connected[p]++
			}
		}
		limited += g.limited()
		ch <- prometheus.MustNewConstMetric(c.lag, prometheus.GaugeValue, float64(g.behind(head)), g.name)
	})
	ch <- prometheus.MustNewConstMetric(c.limited, prometheus.GaugeValue, float64(limited))
	for p, n := range connected {
		ch <- prometheus.MustNewConstMetric(c.connected, prometheus.GaugeValue, float64(n), protocol(p).String()) // 0 or 1
	}
}
