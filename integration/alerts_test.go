package integration_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"sigs.k8s.io/yaml"

	keymgtservice "revocation-adapter/resources/proto/wso2/discovery/service/keymgt"
)

// alert is a rule of resources/prometheus/alerts.yml.
type alert struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func readAlerts(t *testing.T) []alert {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alert } }
	if err := yaml.Unmarshal([]byte(resource(t, "prometheus", "alerts.yml")), &file); err != nil {
		t.Fatal(err)
	}
	var all []alert
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// TestAlertRules loads the alerts into a Prometheus that looks at a real adapter
// and a real enforcer: what they name exists, none fires while all is well, and
// those of which the cause is made here fire.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	checkWithPromtool(t)
	rules := readAlerts(t)
	for _, r := range rules {
		checkAlert(t, r)
	}
	checkAlertsDocumented(t, rules)
	m := monitor(t, impatient(resource(t, "prometheus", "alerts.yml")))
	for _, r := range rules {
		m.ask(t, r.Expr)
		m.checkSelectors(t, r.Expr)
	}
	m.checkQuiet(t, len(rules))
	t.Run("a gateway", func(t *testing.T) { alertsOfGateways(t, m) })
	t.Run("an event", func(t *testing.T) { alertsOfEvents(t, m) })
	t.Run("the adapter", func(t *testing.T) { alertsOfAdapters(t, m) })
}

func checkWithPromtool(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("promtool"); err != nil {
		missing(t, "prometheus")
	}
	path := filepath.Join("..", "resources", "prometheus", "alerts.yml")
	if out, err := exec.CommandContext(t.Context(), "promtool", "check", "rules", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// checkAlert: whoever is woken is told what is wrong, where, and what to do.
func checkAlert(t *testing.T, a alert) {
	t.Helper()
	severity := a.Labels["severity"]
	if a.For == "" || severity != "critical" && severity != "warning" {
		t.Errorf("%s: for %q, severity %q", a.Alert, a.For, severity)
	}
	if a.Annotations["summary"] == "" || len(a.Annotations["description"]) < 60 || len(a.Annotations) != 2 {
		t.Errorf("%s: annotations %v", a.Alert, a.Annotations)
	}
}

// checkAlertsDocumented compares them with the table of docs/metrics.md.
func checkAlertsDocumented(t *testing.T, rules []alert) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented, loaded := map[string]string{}, map[string]string{}
	for _, cells := range regexp.MustCompile("(?m)^\\| `(Revocation\\w+)` \\| (\\w+) \\|").FindAllStringSubmatch(string(text), -1) {
		documented[cells[1]] = cells[2]
	}
	for _, r := range rules {
		loaded[r.Alert] = r.Labels["severity"]
	}
	if !maps.Equal(documented, loaded) {
		t.Errorf("docs/metrics.md has %v, the alerts are %v", documented, loaded)
	}
}

// impatient makes seconds of minutes and hours.
func impatient(rules string) string {
	rules = regexp.MustCompile(`for: \d+[smh]`).ReplaceAllString(rules, "for: 2s")
	return regexp.MustCompile(`\[\d+[mh]\]|offset \d+[mh]`).ReplaceAllStringFunc(rules, func(span string) string {
		return regexp.MustCompile(`\d+[mh]`).ReplaceAllString(span, "10s")
	})
}

// checkQuiet: all rules are evaluated a few times, and none fires.
func (m *monitored) checkQuiet(t *testing.T, rules int) {
	t.Helper()
	m.gateway.awaits(t)
	eventually(t, "Prometheus knows the last 15 seconds", func() bool {
		return len(m.ask(t, `count_over_time(up[1m]) >= 16`)) == 2
	})
	var loaded struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	if err := m.get(t, "rules", nil, &loaded); err != nil {
		t.Fatal(err)
	}
	for _, g := range loaded.Groups {
		for _, r := range g.Rules {
			rules--
			if r.Health != "ok" {
				t.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if rules != 0 {
		t.Fatalf("%d rules are not loaded", rules)
	}
	eventually(t, "none fires while all is well", func() bool { return len(m.firing(t)) == 0 }) // a busy machine may have been late
}

// One gateway refuses what it gets, another says nothing.
func alertsOfGateways(t *testing.T, m *monitored) {
	open := func(name string) keymgtservice.RevokedTokenDiscoveryService_StreamTokensClient {
		str, err := keymgtservice.NewRevokedTokenDiscoveryServiceClient(m.adapter.dial(t, nil)).StreamTokens(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := str.Send(&discovery.DiscoveryRequest{Node: &core.Node{Id: name}, TypeUrl: typeURL}); err != nil {
			t.Fatal(err)
		}
		return str
	}
	open("silent")
	refusing := open("refusing")
	resp, err := refusing.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if err := refusing.Send(&discovery.DiscoveryRequest{
		TypeUrl: typeURL, ResponseNonce: resp.GetNonce(), ErrorDetail: &status.Status{Code: 3, Message: "no"},
	}); err != nil {
		t.Fatal(err)
	}
	m.awaitFiring(t, "RevocationNACKs", "RevocationGatewayBehind")
}

func alertsOfEvents(t *testing.T, m *monitored) {
	m.adapter.publish(t, `{"type":"JWT"}`)
	m.control.answer.Store("")
	m.awaitFiring(t, "RevocationDeadLetters", "RevocationFullSyncFailing")
}

// The adapter stops, and comes back with an older log.
func alertsOfAdapters(t *testing.T, m *monitored) {
	a := m.adapter
	a.stop(t)
	m.awaitFiring(t, "RevocationAdapterDown", "RevocationEnforcerStale", "RevocationEnforcerDisconnected")
	store, backup := filepath.Join(a.dir, "hub"), filepath.Join(a.dir, "backup")
	if err := os.CopyFS(backup, os.DirFS(store)); err != nil {
		t.Fatal(err)
	}
	a.start(t)
	a.awaitReady(t)
	a.publish(t, event("since", inAnHour()))
	m.gateway.awaits(t, "since")
	a.stop(t)
	if err := os.RemoveAll(store); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(backup, store); err != nil {
		t.Fatal(err)
	}
	a.start(t)
	m.awaitFiring(t, "RevocationLogWentBack", "RevocationAdapterNotReady")
	eventually(t, "it runs, and none says that it is down", func() bool {
		return !slices.ContainsFunc(m.firing(t), func(name string) bool { return strings.Contains(name, "Down") })
	})
}
