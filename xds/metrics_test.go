package xds_test

import (
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

const lagMetric = "revocation_adapter_gateway_lag_versions"

// metric is the value of the metric whose only label, if it has one, is label;
// -1 if there is none.
func (w *world) metric(name, label string) float64 {
	w.t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.t.Error(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() != name || len(m.GetLabel()) > 0 && m.GetLabel()[0].GetValue() != label {
				continue
			}
			if m.GetGauge() != nil {
				return m.GetGauge().GetValue()
			}
			return m.GetCounter().GetValue()
		}
	}
	return -1
}

func TestMetricsFollowTheConventions(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.subscribe(t, streamTokens, "").accept()
	w.delta(t).accept()
	families, err := w.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	faults, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) < 7 {
		t.Errorf("%d metrics, want at least 7", len(families))
	}
	for _, f := range faults {
		t.Errorf("%s: %s", f.Metric, f.Text)
	}
}

// Three streams of one gateway: it is connected once on each protocol.
func TestMetricsCountGatewaysAndResponses(t *testing.T) {
	t.Parallel()
	w := start(t)
	one, another, inc := w.subscribe(t, streamTokens, ""), w.subscribe(t, aggregated, ""), w.delta(t)
	one.accept()
	another.accept()
	inc.accept()
	head := w.revoke("a")
	one.follow(head)
	inc.follow(head)
	another.follow(head)
	for _, c := range []struct {
		metric, label string
		want          float64
	}{
		{"revocation_adapter_gateways_connected", "sotw", 1},
		{"revocation_adapter_gateways_connected", "delta", 1},
		{"revocation_adapter_xds_responses_total", "sotw", 4},
		{"revocation_adapter_xds_responses_total", "delta", 2},
		{"revocation_adapter_xds_nacks_total", "sotw", 0},
		{"revocation_adapter_xds_nacks_total", "delta", 0},
	} {
		if got := w.metric(c.metric, c.label); got != c.want {
			t.Errorf("%s of %s is %v, want %v", c.metric, c.label, got, c.want)
		}
	}
	for _, protocol := range []string{"sotw", "delta"} {
		if got := w.metric("revocation_adapter_xds_response_bytes_total", protocol); got <= 0 {
			t.Errorf("%v bytes pushed over %s", got, protocol)
		}
	}
}

func TestGatewayIsForgottenWithItsLastStream(t *testing.T) {
	t.Parallel()
	w := start(t)
	for range 2 {
		first, second := w.dial(), w.dial()
		a, b := openOn(t.Context(), t, streamTokens, first), openOn(t.Context(), t, aggregated, second)
		for _, c := range []*sotwClient{a, b} {
			c.send(&discovery.DiscoveryRequest{Node: node("gateway")})
			c.accept()
		}
		until(t, "the gateway is known", func() bool { return w.metric(lagMetric, "gateway") == 0 })
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		b.follow(w.revoke("a"))
		until(t, "the gateway is up to date", func() bool { return w.metric(lagMetric, "gateway") == 0 })
		if err := second.Close(); err != nil {
			t.Error(err)
		}
		until(t, "the gateway is forgotten", func() bool { return w.metric(lagMetric, "gateway") == -1 })
	}
}
