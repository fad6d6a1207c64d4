package integration_test

import (
	"encoding/json"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// dashboard is what is looked at of Grafana's format.
type dashboard struct {
	SchemaVersion int
	UID, Title    string
	Templating    struct {
		List []struct{ Name, Type, Definition string }
	}
	Panels []struct {
		ID          int
		Title, Type string
		Datasource  struct{ Type, UID string }
		GridPos     struct{ X, Y, W, H int }
		Targets     []struct {
			Expr, LegendFormat string
			Datasource         struct{ UID string }
		}
	}
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal([]byte(resource(t, "grafana", "dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDashboardQueries asks a Prometheus, which looks at a real adapter and a real
// enforcer, everything that the dashboard asks.
func TestDashboardQueries(t *testing.T) {
	t.Parallel()
	d := readDashboard(t)
	checkPanels(t, d)
	m := monitor(t, resource(t, "prometheus", "alerts.yml"))
	call := get(t, m.enforcer.ForwardAuth, "/", "Authorization", "Bearer "+m.signer.token("passes", nil))
	call.passed(t, "for a verdict that is counted")
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			m.checkVariable(t, v.Definition)
		}
	}
	for _, panel := range d.Panels {
		for _, target := range panel.Targets {
			m.checkTarget(t, panel.Title, target.Expr, target.LegendFormat)
		}
	}
}

// checkPanels: panels of one datasource, which may be chosen, none over another.
func checkPanels(t *testing.T, d dashboard) {
	t.Helper()
	if d.SchemaVersion < 39 || d.UID == "" || len(d.Panels) == 0 {
		t.Fatalf("schema version %d, uid %q, %d panels", d.SchemaVersion, d.UID, len(d.Panels))
	}
	seen, taken := map[int]string{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if other, ok := seen[p.ID]; ok {
			t.Errorf("%q has the id of %q", p.Title, other)
		}
		seen[p.ID] = p.Title
		if p.Type != "row" && (p.Datasource.UID != "${datasource}" || len(p.Targets) == 0) {
			t.Errorf("%q asks %q, with %d queries", p.Title, p.Datasource.UID, len(p.Targets))
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok || x >= 24 {
					t.Fatalf("%q lies over %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}

// grafana puts values in place of the variables, as Grafana does.
func (m *monitored) grafana(t *testing.T, expr string) string {
	t.Helper()
	text := strings.NewReplacer(
		"$__rate_interval", "30s", "$enforcer_job", "revocation-enforcer", "$job", "revocation-adapter",
		"$instance", m.adapter.control, "$enforcer", m.enforcer.Control, "offset 1m", "offset 2s",
	).Replace(expr)
	if strings.Contains(text, "$") {
		t.Errorf("%s: it has a variable that is not known", text)
	}
	return text
}

// checkVariable: what is to be chosen from is told.
func (m *monitored) checkVariable(t *testing.T, definition string) {
	t.Helper()
	cells := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`).FindStringSubmatch(definition)
	if cells == nil {
		t.Fatalf("%q is no label_values", definition)
	}
	var values []string
	match := url.Values{"match[]": {m.grafana(t, cells[1])}}
	if err := m.get(t, "label/"+cells[2]+"/values", match, &values); err != nil || len(values) != 1 {
		t.Errorf("%s: %v, %v", definition, values, err)
	}
}

// checkTarget: a query answers something, all that it names exists, and so do the
// labels that its legend shows.
func (m *monitored) checkTarget(t *testing.T, panel, expr, legend string) {
	t.Helper()
	query := m.grafana(t, expr)
	found := m.ask(t, query)
	if len(found) == 0 {
		t.Errorf("%q shows nothing: %s", panel, query)
	}
	m.checkSelectors(t, query)
	for _, cells := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(legend, -1) {
		for _, s := range found {
			if s.Metric[cells[1]] == "" {
				t.Errorf("%q: %s has no %s, which the legend shows", panel, query, cells[1])
			}
		}
	}
}
