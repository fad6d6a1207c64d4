package messaging

import (
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
)

// How a read of the control plane ended.
const (
	syncDone        = "done"
	syncEmpty       = "empty"       // read to its end, and there was nothing
	syncShorter     = "shorter"     // read to its end, and there was less than before
	syncBroken      = "broken"      // it ended early, or is not understood
	syncRefused     = "refused"     // a status other than 200
	syncUnreachable = "unreachable" // no answer
	syncNotStored   = "not_stored"  // the hub did not take it, or the log is full
)

// SyncMetrics are those of a FullSync.
type SyncMetrics syncMetrics

type syncMetrics struct {
	reads   *prometheus.CounterVec
	entries prometheus.Gauge
	refused prometheus.Counter
	last    prometheus.Gauge
}

// NewSyncMetrics registers what a FullSync measures.
func NewSyncMetrics(reg prometheus.Registerer) *SyncMetrics {
	m := &syncMetrics{
		reads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "revocation_adapter_full_syncs_total",
			Help: "Reads of everything that the control plane has revoked, by how they ended.",
		}, []string{"outcome"}),
		entries: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "revocation_adapter_full_sync_entries",
			Help: "Entries of the last read that came to its end.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "revocation_adapter_full_sync_entries_refused_total",
			Help: "Entries that were not understood.",
		}),
		last: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "revocation_adapter_full_sync_last_success_timestamp_seconds",
			Help: "When the last read came to its end; 0: never.",
		}),
	}
	reg.MustRegister(m.reads, m.entries, m.refused, m.last)
	for _, outcome := range []string{
		syncDone, syncEmpty, syncShorter, syncBroken, syncRefused, syncUnreachable, syncNotStored,
	} {
		m.reads.WithLabelValues(outcome)
	}
	return (*SyncMetrics)(m)
}

// tell reports, logs and counts how a read ended: one line for all of it, and
// the count last, so that who waits for it sees the others.
func (s *FullSync) tell(r *reading, took time.Duration, err error) {
	defer s.metrics.reads.WithLabelValues(r.outcome).Inc()
	s.metrics.refused.Add(float64(r.refused.Load()))
	log := s.log.WithFields(logrus.Fields{
		"reason": r.reason, "outcome": r.outcome, "entries": r.entries, "stored": r.stored.Load(), "known": r.known.Load(),
		"expired": r.old.Load(), "refused": r.refused.Load(), "took": took.Round(time.Millisecond),
	})
	if err != nil {
		s.report.Disconnected(err)
		log = log.WithError(err)
		if r.outcome == syncBroken || r.outcome == syncRefused {
			log.Error("The full sync failed: nothing is un-revoked, trying again")
		} else {
			log.Warn("The full sync failed: nothing is un-revoked, trying again")
		}
		return
	}
	s.metrics.entries.Set(float64(r.entries))
	s.metrics.last.SetToCurrentTime()
	if u, err := url.Parse(s.list); err == nil {
		s.report.Connected(u.Host)
	}
	s.complete.Store(true) // after the report: ready and not connected would be a contradiction
	if r.refused.Load() > 0 {
		log.Error("The full sync is done, without the entries that are not understood")
		return
	}
	log.Info("The full sync is done")
}
