package messaging

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// SourceStatus is what a way in says of itself.
type SourceStatus struct {
	Name      string     `json:"name"`
	Connected bool       `json:"connected"`            // or, of one that nobody connects, able to take events
	Server    string     `json:"server,omitempty"`     // that it is connected to, or was last
	Since     *time.Time `json:"since,omitempty"`      // when Connected became so
	Events    uint64     `json:"events"`               // taken and stored since the start
	LastEvent *time.Time `json:"last_event,omitempty"` // when the newest of them came
	Lag       float64    `json:"lag_seconds"`          // how long the oldest that is not stored waits, or the last one did
	Errors    uint64     `json:"errors"`
	LastError string     `json:"last_error,omitempty"`
}

// Sources are the ways in of a replica. Any number of goroutines may use it.
type Sources struct {
	now func() time.Time

	mu   sync.Mutex
	list []*Report
}

// NewSources returns none yet.
func NewSources(now func() time.Time) *Sources { return &Sources{now: now} }

// Add makes a source known, under a name that no other one has.
func (s *Sources) Add(name string) *Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &Report{now: s.now}
	r.status.Name = name
	s.list = append(s.list, r)
	return r
}

// List is what every source says, in the order in which they were added.
func (s *Sources) List() []SourceStatus {
	s.mu.Lock()
	reports := slices.Clone(s.list)
	s.mu.Unlock()
	all := make([]SourceStatus, len(reports))
	for i, r := range reports {
		all[i] = r.Status()
	}
	return all
}

// Report is where a source says how it is. Nil takes everything and says nothing.
type Report struct {
	now func() time.Time

	mu      sync.Mutex
	status  SourceStatus
	waiting []time.Time // when what is being stored came
	ask     func() bool // says whether it is connected; nil: status does
}

// Ask lets connected say whether the source is, whenever somebody wants to know.
func (r *Report) Ask(connected func() bool) { r.change(func() { r.ask = connected }) }

// Connected says that the source is connected to a server now.
func (r *Report) Connected(server string) { r.change(func() { r.connected(true, server) }) }

// Disconnected says that it is not, and why. Nobody sees the one without the other.
func (r *Report) Disconnected(err error) {
	r.change(func() {
		r.failed(err)
		r.connected(false, "")
	})
}

// Failed counts an error; nil is none.
func (r *Report) Failed(err error) { r.change(func() { r.failed(err) }) }

// Begin says that events are being stored, of which the oldest came at a time.
// What it returns says how many of them are.
func (r *Report) Begin(came time.Time) (stored func(n int)) {
	r.change(func() { r.waiting = append(r.waiting, came) })
	return func(n int) {
		r.change(func() {
			if i := slices.Index(r.waiting, came); i >= 0 {
				r.waiting = slices.Delete(r.waiting, i, i+1)
			}
			r.status.Lag = r.now().Sub(came).Seconds()
			if n > 0 {
				r.status.Events += uint64(n)
				r.status.LastEvent = later(r.status.LastEvent, came)
			}
		})
	}
}

// Status is what the source says now.
func (r *Report) Status() (s SourceStatus) {
	r.change(func() {
		s = r.status
		for _, came := range r.waiting {
			s.Lag = max(s.Lag, r.now().Sub(came).Seconds())
		}
		s.Lag = max(s.Lag, 0) // clocks differ
		if r.ask != nil {
			s.Connected = r.ask()
		}
	})
	return s
}

// failed is called within change, as connected is.
func (r *Report) failed(err error) {
	if err == nil {
		return
	}
	r.status.Errors++
	r.status.LastError = err.Error()
}

func (r *Report) connected(is bool, server string) {
	now := r.now().UTC()
	if is != r.status.Connected || r.status.Since == nil {
		r.status.Since = &now
	}
	r.status.Connected = is
	if server != "" {
		r.status.Server = server
	}
}

func (r *Report) change(do func()) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	do()
}

func later(a *time.Time, b time.Time) *time.Time {
	if a != nil && a.After(b) {
		return a
	}
	b = b.UTC()
	return &b
}

// sourcesCollector tells Prometheus what List tells.
type sourcesCollector struct {
	sources                           *Sources
	connected, last, lag, events, bad *prometheus.Desc
}

// NewSourcesCollector describes the ways in to Prometheus.
func NewSourcesCollector(s *Sources) prometheus.Collector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("revocation_adapter_source_"+name, help, []string{"source"}, nil)
	}
	return &sourcesCollector{
		sources:   s,
		connected: desc("connected", "1 while the source is connected."),
		last:      desc("last_event_timestamp_seconds", "When the newest event that was stored came; 0: never."),
		lag:       desc("lag_seconds", "How long the oldest event that is not stored waits, or the last one did."),
		events:    desc("events_total", "Events taken from the source and stored."),
		bad:       desc("errors_total", "Errors of the source."),
	}
}

// Describe implements prometheus.Collector.
func (c *sourcesCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.connected, c.last, c.lag, c.events, c.bad} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *sourcesCollector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.sources.List() {
		connected, last := 0.0, 0.0
		if s.Connected {
			connected = 1
		}
		if s.LastEvent != nil {
			last = float64(s.LastEvent.UnixMilli()) / 1000
		}
		ch <- prometheus.MustNewConstMetric(c.connected, prometheus.GaugeValue, connected, s.Name)
		ch <- prometheus.MustNewConstMetric(c.last, prometheus.GaugeValue, last, s.Name)
		ch <- prometheus.MustNewConstMetric(c.lag, prometheus.GaugeValue, s.Lag, s.Name)
		ch <- prometheus.MustNewConstMetric(c.events, prometheus.CounterValue, float64(s.Events), s.Name)
		ch <- prometheus.MustNewConstMetric(c.bad, prometheus.CounterValue, float64(s.Errors), s.Name)
	}
}
