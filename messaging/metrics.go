package messaging

import (
	"cmp"
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revocation-adapter/revocation"
)

// Metrics are the hub's and the log's, shared by Listener and Follower.
type Metrics metrics

type metrics struct {
	events      *prometheus.CounterVec
	full        prometheus.Gauge
	undecodable prometheus.Counter
	purged      prometheus.Counter
	unknown     prometheus.Counter
	confirmed   prometheus.Gauge
	stale       prometheus.Gauge
	rebuilt     prometheus.Counter
	diskFull    prometheus.Gauge
	publication prometheus.Histogram
	claims      *prometheus.CounterVec
	claimTime   prometheus.Histogram
}

// NewMetrics registers what the package measures.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "revocation_adapter_events_total",
			Help: "Events by source, kind and what became of them.",
		}, []string{"source", "kind", "outcome"}),
		full: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "revocation_adapter_log_full",
			Help: "1 while the log holds max_live records and events wait in the hub.",
		}),
		undecodable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "revocation_adapter_records_undecodable_total",
			Help: "Records of the hub that could not be understood. A person must look.",
		}),
		purged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "revocation_adapter_records_purged_total",
			Help: "Records that left the log because they expired.",
		}),
		unknown: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "revocation_adapter_unknown_expiry_total",
			Help: "Records applied whose expiry the publisher did not know.",
		}),
		confirmed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "revocation_adapter_log_confirmed_timestamp_seconds",
			Help: "When the hub's leader last said that nothing followed this replica's version; 0: never.",
		}),
		stale: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "revocation_adapter_log_stale",
			Help: "1 while the log is complete, but was not confirmed for some seconds.",
		}),
		rebuilt: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "revocation_adapter_consumer_rebuilds_total",
			Help: "How often the hub had more than arrived, so that it was asked anew.",
		}),
		diskFull: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "revocation_adapter_hub_disk_full",
			Help: "1 while the disk of the embedded hub is full and events are refused.",
		}),
		publication: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "revocation_adapter_event_to_publication_seconds",
			Help:    "Time from an event reaching the hub to its publication by this replica.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
		claims: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "revocation_adapter_claims_total",
			Help: "Claims of one-time tokens, by what became of them.",
		}, []string{"outcome"}),
		claimTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "revocation_adapter_claim_seconds",
			Help:    "Time that a claim of a one-time token took.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
	}
	for _, outcome := range claimOutcomes() {
		m.claims.WithLabelValues(outcome)
	}
	reg.MustRegister(m.events, m.full, m.undecodable, m.purged, m.unknown,
		m.confirmed, m.stale, m.rebuilt, m.diskFull, m.publication, m.claims, m.claimTime)
	return (*Metrics)(m)
}

// isFull says whether the log holds as much as it may.
func (m *metrics) isFull(log *revocation.Log, limits Limits) bool {
	if m.hasRoom(log, limits) {
		return false
	}
	m.full.Set(1)
	return true
}

// hasRoom says whether it holds less, and ends what isFull has said.
func (m *metrics) hasRoom(log *revocation.Log, limits Limits) bool {
	counts := log.Snapshot().Counts()
	room := counts.Revoked()+counts.Approved < limits.MaxLive
	if room {
		m.full.Set(0)
	}
	return room
}

// The outcomes of claims that are none of revocation.ClaimOutcome.
const (
	claimInvalid = "invalid" // could never be granted
	claimFailed  = "failed"  // nobody knows: it is to be made again
)

func claimOutcomes() []string {
	return []string{
		revocation.ClaimGranted.String(), revocation.ClaimRevoked.String(), revocation.ClaimExpired.String(), claimInvalid, claimFailed,
	}
}

// claimed counts a claim that took some time.
func (m *metrics) claimed(outcome revocation.ClaimOutcome, err error, took time.Duration) {
	label := outcome.String()
	switch {
	case errors.Is(err, revocation.ErrClaim):
		label = claimInvalid
	case err != nil:
		label = claimFailed
	}
	m.claims.WithLabelValues(label).Inc()
	m.claimTime.Observe(took.Seconds())
}

func (m *metrics) count(source, subject, kind string, fate Fate) {
	m.events.WithLabelValues(sourceLabel(source, subject), cmp.Or(kind, "unknown"), string(fate)).Inc()
}

// sourceLabel is the way in, and of NATS the subject too.
func sourceLabel(source, subject string) string {
	switch {
	case source != SourceNATS:
		return strings.ReplaceAll(source, "-", "_")
	case subject == SubjectApproval:
		return "nats_approval"
	case subject == SubjectIssued:
		return "nats_issued"
	}
	return "nats_revocation"
}

// kindOf bounds the label to the kinds that exist.
func kindOf(c Call) string {
	switch {
	case strings.EqualFold(c.Type, TypeBatch):
		return "batch"
	case len(c.Events) == 0:
		return ""
	}
	return kindOfKey(c.Events[0].Domain, c.Events[0].Kind)
}

func kindOfKey(d revocation.Domain, k revocation.Kind) string {
	switch {
	case d == revocation.DomainRule:
		return "rule"
	case d == revocation.DomainOpaque:
		return "default"
	case d == revocation.DomainRefresh:
		return "refresh"
	case k == revocation.KindJWT:
		return "jwt"
	case k == revocation.KindAPIKey:
		return "api_key"
	}
	return "token"
}
