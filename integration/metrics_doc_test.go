package integration_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const metricPrefix = "revocation_adapter_"

// TestMetricsDocumented compares docs/metrics.md with what an adapter tells
// that has handled an event and serves a gateway.
func TestMetricsDocumented(t *testing.T) {
	a := startAdapter(t)
	g := connectGateway(t, a, rtds, "")
	a.publish(t, event("documented", inAnHour()))
	g.awaits(t, "documented")
	var page string
	eventually(t, "the event is counted", func() bool {
		_, page = a.get(t, "/metrics")
		return strings.Contains(page, metricPrefix+"events_total{")
	})
	documented, told := documentedMetrics(t), toldMetrics(page)
	for name, want := range documented {
		if got, ok := told[name]; !ok {
			t.Errorf("docs/metrics.md has %s, which does not exist", name)
		} else if got != want {
			t.Errorf("%s is %s, in docs/metrics.md %s", name, got, want)
		}
	}
	for name := range told {
		if _, ok := documented[name]; !ok {
			t.Errorf("%s is not in docs/metrics.md", name)
		}
	}
}

// documentedMetrics returns type and labels by name.
func documentedMetrics(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `(" + metricPrefix + "\\w+)` \\| (\\w+) \\|([^|]*)\\|")
	metrics := map[string]string{}
	for _, cells := range row.FindAllStringSubmatch(string(text), -1) {
		labels := regexp.MustCompile(`\w+`).FindAllString(cells[3], -1)
		metrics[cells[1]] = describeMetric(cells[2], labels)
	}
	if len(metrics) == 0 {
		t.Fatal("docs/metrics.md has no metrics")
	}
	return metrics
}

// toldMetrics reads the same from the text format.
func toldMetrics(page string) map[string]string {
	types, labels := map[string]string{}, map[string]map[string]bool{}
	kind := regexp.MustCompile(`^# TYPE (` + metricPrefix + `\w+) (\w+)`)
	sample := regexp.MustCompile(`^(` + metricPrefix + `\w+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? `)
	label := regexp.MustCompile(`(\w+)="`)
	for line := range strings.Lines(page) {
		if cells := kind.FindStringSubmatch(line); cells != nil {
			types[cells[1]], labels[cells[1]] = cells[2], map[string]bool{}
		}
		if cells := sample.FindStringSubmatch(line); cells != nil {
			for _, l := range label.FindAllStringSubmatch(cells[2], -1) {
				labels[cells[1]][l[1]] = l[1] != "le"
			}
		}
	}
	metrics := map[string]string{}
	for name, kind := range types {
		maps.DeleteFunc(labels[name], func(_ string, ours bool) bool { return !ours })
		metrics[name] = describeMetric(kind, slices.Collect(maps.Keys(labels[name])))
	}
	return metrics
}

func describeMetric(kind string, labels []string) string {
	slices.Sort(labels)
	return kind + " by " + strings.Join(labels, ", ")
}
