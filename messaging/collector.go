package messaging

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"revocation-adapter/revocation"
)

// scrapeTimeout bounds what a scrape waits for the hub.
const scrapeTimeout = 2 * time.Second

// collector asks the hub and the log when it is asked itself.
type collector struct {
	hub *Hub
	log *revocation.Log

	live, tombstones, version, connected *prometheus.Desc
	ingest, ingestAge, dead, deadAge     *prometheus.Desc
}

// NewCollector describes the log and the streams of hub to Prometheus.
func NewCollector(hub *Hub, log *revocation.Log) prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("revocation_adapter_"+name, help, labels, nil)
	}
	return &collector{
		hub: hub, log: log,
		live:       desc("live_revocations", "Keys that are refused, by how well their expiry is known.", "lifetime"),
		tombstones: desc("approved_keys", "Keys that were revoked and re-approved, and have not expired."),
		version:    desc("log_version", "Version of the log: the hub's sequence up to which it is complete."),
		connected:  desc("hub_connected", "1 while the hub can be reached."),
		ingest:     desc("ingest_pending_events", "Events in the hub that are not handled yet."),
		ingestAge:  desc("ingest_oldest_age_seconds", "Age of the oldest event in the hub that is not handled yet; 0 without one."),
		dead:       desc("dead_letters", "Events that could not be understood or stored."),
		deadAge:    desc("dead_letter_oldest_age_seconds", "Age of the oldest dead letter; 0 without one."),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.live, c.tombstones, c.version, c.connected, c.ingest, c.ingestAge, c.dead, c.deadAge} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. What the hub does not tell in time
// is left out.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	s := c.log.Snapshot()
	counts := s.Counts()
	gauge(c.live, float64(counts.Dated), revocation.Dated.String())
	gauge(c.live, float64(counts.Unknown), revocation.Unknown.String())
	gauge(c.live, float64(counts.Forever), revocation.Forever.String())
	gauge(c.tombstones, float64(counts.Approved))
	gauge(c.version, float64(s.Version()))
	if !c.hub.Connected() {
		gauge(c.connected, 0)
		return
	}
	gauge(c.connected, 1)
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout) //nolint:forbidigo // Collect has no context
	defer cancel()
	if info, ok := info(ctx, c.hub.ingest); ok {
		gauge(c.ingest, float64(info.State.Msgs))
		gauge(c.ingestAge, c.oldest(info))
	}
	if info, ok := info(ctx, c.hub.dead); ok {
		gauge(c.dead, float64(info.State.Msgs))
		gauge(c.deadAge, c.oldest(info))
	}
}

// oldest is the age in seconds of a stream's first message; 0 without one.
func (c *collector) oldest(info *jetstream.StreamInfo) float64 {
	if info.State.Msgs == 0 {
		return 0
	}
	return max(0, c.hub.cfg.Now().Sub(info.State.FirstTime).Seconds())
}

func info(ctx context.Context, s jetstream.Stream) (*jetstream.StreamInfo, bool) {
	i, err := s.Info(ctx)
	return i, err == nil
}

// LastVersion is the last sequence of the hub's log, as its leader knows it.
func (h *Hub) LastVersion(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	i, err := h.log.Info(ctx)
	if err != nil {
		return 0, err
	}
	return i.State.LastSeq, nil
}
