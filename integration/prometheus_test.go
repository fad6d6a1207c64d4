package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"revocation-adapter/integration/stack"
)

// prometheus is the real one, with our example's configuration.
type prometheus struct {
	stack.Process
	address string
}

// Ready waits until Prometheus answers queries.
func (p *prometheus) Ready(ctx context.Context) error {
	return p.Until(ctx, "ready", func() bool {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+"/-/ready", nil)
		if err != nil {
			return false
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	})
}

// monitored is what the example's Prometheus looks at, with the path of a call.
type monitored struct {
	*prometheus
	adapter  *adapter
	enforcer *stack.Enforcer
	gateway  *gateway
	control  *controlPlane
	signer   *signer
}

// monitor starts an adapter, an enforcer and a gateway, and a Prometheus that has
// looked at them often enough to tell a rate. Its alerts are those of the text.
func monitor(t *testing.T, alerts string) *monitored {
	t.Helper()
	m := &monitored{signer: newSigner(t), control: startControlPlane(t, revokedList("listed"))}
	m.adapter = startWith(t, m.control.section(`interval = "1s"`))
	m.enforcer = startEnforcer(t, m.signer.section()+fmt.Sprintf(
		"[set]\nmax_staleness = \"6s\"\nsnapshot_file = %q\n", filepath.Join(t.TempDir(), "snapshot")), m.adapter)
	m.gateway = connectGateway(t, m.adapter, rtds, "")
	m.adapter.publish(t, event("monitored", inAnHour()))
	m.gateway.awaits(t, "listed", "monitored")
	m.prometheus = startPrometheus(t, alerts, m.adapter.control, m.enforcer.Control)
	eventually(t, "Prometheus has looked at both a few times", func() bool {
		found := m.ask(t, `count_over_time(up[1m]) >= 4 and up == 1`)
		return len(found) == 2
	})
	return m
}

// startPrometheus starts one with the example's configuration, whose targets are
// replaced, and with a scrape every second.
func startPrometheus(t *testing.T, alerts, adapter, enforcer string) *prometheus {
	t.Helper()
	if _, err := exec.LookPath("prometheus"); err != nil {
		missing(t, "prometheus")
	}
	dir := t.TempDir()
	config := strings.NewReplacer("127.0.0.1:9843", adapter, "127.0.0.1:9001", enforcer, "15s", "1s").Replace(resource(t, "prometheus", "prometheus.yml"))
	for name, text := range map[string]string{"prometheus.yml": config, "alerts.yml": alerts} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := &prometheus{address: freePort(t)}
	p.Process = stack.Process{Name: "prometheus", Dir: dir, Args: []string{
		"prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn", "--web.listen-address=" + p.address,
	}}
	run(t, &p.Process, p)
	ready(t, p)
	return p
}

// resource reads a file of resources/.
func resource(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{"..", "resources"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// sample is one series of an answer.
type sample struct{ Metric map[string]string }

// ask asks a query.
func (p *prometheus) ask(t *testing.T, query string) []sample {
	t.Helper()
	var found struct{ Result []sample }
	if err := p.get(t, "query", url.Values{"query": {query}}, &found); err != nil {
		t.Errorf("%s: %v", query, err)
	}
	return found.Result
}

// get asks the HTTP API.
func (p *prometheus) get(t *testing.T, path string, params url.Values, into any) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.address+"/api/v1/"+path+"?"+params.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", answer.Status, answer.Error)
	}
	return json.Unmarshal(answer.Data, into)
}

// selector is a metric with its matchers, as a query names it.
type selector struct{ metric, matchers string }

// selectorsOf finds the metrics in a query. What is none of these names is a
// function, a keyword or a label.
func selectorsOf(query string) []selector {
	all := regexp.MustCompile(`\b((?:revocation_|process_|go_)\w+|up)\b(?:\{([^}]*)\})?`)
	var found []selector
	for _, cells := range all.FindAllStringSubmatch(query, -1) {
		found = append(found, selector{cells[1], cells[2]})
	}
	return found
}

// checkSelectors: a query that names what nobody tells is always silent.
func (p *prometheus) checkSelectors(t *testing.T, query string) {
	t.Helper()
	named := selectorsOf(query)
	if len(named) == 0 {
		t.Errorf("%s: it names no metric", query)
	}
	matcher := regexp.MustCompile(`(\w+)(?:=~|!~|!=|=)"([^"]*)"`)
	for _, s := range named {
		p.checkExists(t, s.metric, "")
		for _, cells := range matcher.FindAllStringSubmatch(s.matchers, -1) {
			for value := range strings.SplitSeq(cells[2], "|") {
				p.checkExists(t, s.metric, fmt.Sprintf("%s=%q", cells[1], value))
			}
		}
	}
}

func (p *prometheus) checkExists(t *testing.T, metric, matcher string) {
	t.Helper()
	var series []map[string]string
	match := metric + "{" + matcher + "}"
	if err := p.get(t, "series", url.Values{"match[]": {match}}, &series); err != nil || len(series) == 0 {
		t.Errorf("nobody tells %s: %v", match, err)
	}
}

// firing is the names of the alerts that fire.
func (p *prometheus) firing(t *testing.T) []string {
	t.Helper()
	var found struct {
		Alerts []struct {
			State  string
			Labels map[string]string
		}
	}
	if err := p.get(t, "alerts", nil, &found); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, a := range found.Alerts {
		if a.State == "firing" {
			names = append(names, a.Labels["alertname"])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (p *prometheus) awaitFiring(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		eventually(t, name+" fires", func() bool { return slices.Contains(p.firing(t), name) })
	}
}
