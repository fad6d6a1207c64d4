package control

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// measures counts the calls of the control API.
type measures struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

func newMeasures(metrics prometheus.Registerer) *measures {
	m := &measures{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "revocation_adapter_control_calls_total",
			Help: "Calls of the control API, by what they are for and the class of the status that they were answered with.",
		}, []string{"action", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "revocation_adapter_control_call_seconds",
			Help:    "How long calls of the control API took that did not wait for gateways.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"action"}),
	}
	metrics.MustRegister(m.calls, m.seconds)
	return m
}

// answered remembers the status of an answer.
type answered struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (a *answered) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

// measured counts what next serves.
func (m *measures) measured(action string, next http.HandlerFunc) http.Handler {
	seconds := m.seconds.WithLabelValues(action)
	for _, status := range []string{"2xx", "4xx", "5xx"} { // so that they are there before the first call
		m.calls.WithLabelValues(action, status)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began, a := time.Now(), &answered{w, http.StatusOK}
		next(a, r)
		m.calls.WithLabelValues(action, strconv.Itoa(a.status/100)+"xx").Inc()
		if _, waits := prefersWait(r.Header); !waits {
			seconds.Observe(time.Since(began).Seconds())
		}
	})
}
