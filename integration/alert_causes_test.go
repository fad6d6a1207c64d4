package integration_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// samples are a time series, one sample every 15 s, in the notation of promtool:
// 0x4 is five zeros, 1+2x3 is 1 3 5 7, _ is none.
type samples struct {
	Series string `json:"series"`
	Values string `json:"values"`
}

// cause is what makes an alert fire, and what is close to it and does not. An
// hour passes with both; the fault begins after 30 minutes.
type cause struct {
	alert  string
	after  time.Duration // from the fault to the alert: it fires a minute later, and not a minute before
	faulty []samples
	sound  []samples
}

const (
	soundOnly  = "0x240"
	thenOne    = "0x119 1x120"     // 30 minutes of nothing
	forAWhile  = "0x119 1x1 0x118" // half a minute
	thenZero   = "1x119 0x120"
	briefZero  = "1x119 0x1 1x118"
	counted    = "0x119 1x120" // a counter that counts once
	old        = "7x240"       // … that counted long ago
	steady     = "100+10x240"  // versions, 40 in a minute
	atRest     = "100+10x119 1300x120"
	atAdapter  = `{job="revocation-adapter",instance="a:9843"}`
	atEnforcer = `{job="revocation-enforcer",instance="e:9001"}`
)

// whileOne is an alert on a gauge that is 1 while something is wrong.
func whileOne(alert, series string, after time.Duration) cause {
	return cause{alert, after, []samples{{series, thenOne}}, []samples{{series, forAWhile}}}
}

// whileZero is one on a gauge that is 0 while something is wrong.
func whileZero(alert, series string, after time.Duration) cause {
	return cause{alert, after, []samples{{series, thenZero}}, []samples{{series, briefZero}}}
}

// counting is one on a counter of faults.
func counting(alert, series string, after time.Duration) cause {
	return cause{alert, after, []samples{{series, counted}}, []samples{{series, old}}}
}

func ofAdapter(metric string) string  { return "revocation_adapter_" + metric + atAdapter }
func ofEnforcer(metric string) string { return "revocation_enforcer_" + metric + atEnforcer }

func labelled(metric, labels string) string {
	return fmt.Sprintf(`revocation_adapter_%s{job="revocation-adapter",instance="a:9843",%s}`, metric, labels)
}

func causes() []cause {
	return slices.Concat(causesAtAdapters(), causesOfEvents(), causesAtGateways(), causesAtEnforcers())
}

func causesAtAdapters() []cause {
	return []cause{
		whileZero("RevocationAdapterDown", "up"+atAdapter, 2*time.Minute),
		whileZero("RevocationAdapterNotReady", ofAdapter("ready"), time.Minute),
		whileOne("RevocationLogWentBack", ofAdapter("log_went_back"), 30*time.Second),
		whileZero("RevocationHubUnreachable", ofAdapter("hub_connected"), time.Minute),
		whileOne("RevocationLogStale", ofAdapter("log_stale"), time.Minute),
		whileOne("RevocationLogFull", ofAdapter("log_full"), 30*time.Second),
		whileOne("RevocationHubDiskFull", ofAdapter("hub_disk_full"), 30*time.Second),
		counting("RevocationRecordsUndecodable", ofAdapter("records_undecodable_total"), time.Minute),
		{
			"RevocationReplicaBehind", 5 * time.Minute,
			[]samples{
				{ofAdapter("log_version"), steady},
				{`revocation_adapter_log_version{job="revocation-adapter",instance="b:9843"}`, atRest},
			},
			[]samples{
				{ofAdapter("log_version"), steady},
				{`revocation_adapter_log_version{job="revocation-adapter",instance="b:9843"}`, "80+10x240"},
				{`revocation_adapter_log_version{job="revocation-adapter-of-another-hub",instance="c:9843"}`, "3x240"},
			},
		},
		{
			"RevocationLogNearlyFull", 10 * time.Minute,
			[]samples{
				{labelled("live_revocations", `lifetime="bounded"`), "500x119 600x120"},
				{labelled("live_revocations", `lifetime="unbounded"`), "300x240"},
				{ofAdapter("approved_keys"), "50x240"},
				{ofAdapter("log_max_live"), "1000x240"},
			},
			[]samples{
				{labelled("live_revocations", `lifetime="bounded"`), "500x119 550x120"},
				{labelled("live_revocations", `lifetime="unbounded"`), "300x240"},
				{ofAdapter("approved_keys"), "50x240"},
				{ofAdapter("log_max_live"), "1000x240"},
			},
		},
	}
}

func causesOfEvents() []cause {
	return []cause{
		{
			"RevocationEventsWait", time.Minute,
			[]samples{{ofAdapter("ingest_oldest_age_seconds"), "0x119 31+15x120"}},
			[]samples{{ofAdapter("ingest_oldest_age_seconds"), "0x119 29x120"}},
		},
		{
			"RevocationIngestBacksUp", 10 * time.Minute,
			[]samples{{ofAdapter("ingest_pending_events"), "0x119 1001x120"}},
			[]samples{{ofAdapter("ingest_pending_events"), "0x119 300000x3 0x10 300000x3 0x100"}},
		},
		{
			"RevocationDeadLetters", time.Minute,
			[]samples{{ofAdapter("dead_letters"), "0x119 3x120"}},
			[]samples{{ofAdapter("dead_letters"), soundOnly}},
		},
		whileZero("RevocationSourceDisconnected", labelled("source_connected", `source="amqp"`), 5*time.Minute),
		whileZero("RevocationFullSyncFailing", labelled("source_connected", `source="full-sync"`), 5*time.Minute),
		{
			"RevocationFullSyncFailing", 5*time.Minute + 30*time.Second,
			[]samples{
				{labelled("source_connected", `source="full-sync"`), "1x240"},
				{labelled("full_syncs_total", `outcome="broken"`), "0x119 1 2 3 4x117"},
			},
			[]samples{
				{labelled("source_connected", `source="full-sync"`), "1x240"},
				{labelled("full_syncs_total", `outcome="complete"`), "0+1x240"},
				{labelled("full_syncs_total", `outcome="broken"`), "0x119 1x120"},
			},
		},
		{
			"RevocationPublicationSlow", 10*time.Minute + 30*time.Second,
			[]samples{
				{labelled("event_to_publication_seconds_bucket", `le="0.1"`), "0+100x119 12000+90x120"},
				{labelled("event_to_publication_seconds_bucket", `le="1"`), "0+100x119 12000+90x120"},
				{labelled("event_to_publication_seconds_bucket", `le="10"`), "0+100x240"},
				{labelled("event_to_publication_seconds_bucket", `le="+Inf"`), "0+100x240"},
			},
			[]samples{
				{labelled("event_to_publication_seconds_bucket", `le="0.1"`), "0+100x119 12000+90x120"},
				{labelled("event_to_publication_seconds_bucket", `le="1"`), "0+100x240"},
				{labelled("event_to_publication_seconds_bucket", `le="+Inf"`), "0+100x240"},
			},
		},
	}
}

func causesAtGateways() []cause {
	return []cause{
		{
			"RevocationGatewayBehind", 6 * time.Minute, // what was published since it stands still is five minutes old
			[]samples{
				{ofAdapter("log_version"), steady},
				{labelled("gateway_lag_versions", `gateway="gw-1",protocol="sotw"`), "0x119 10+10x120"},
			},
			[]samples{
				{ofAdapter("log_version"), steady},
				{labelled("gateway_lag_versions", `gateway="gw-1",protocol="sotw"`), "150x240"},
			},
		},
		counting("RevocationNACKs", ofAdapter("xds_nacks_total"), 30*time.Second),
		{
			"RevocationGatewaysLeft", 10 * time.Minute,
			[]samples{
				{labelled("gateways_connected", `protocol="sotw"`), "40x119 10x120"},
				{labelled("gateways_connected", `protocol="enforcer"`), "10x240"},
			},
			[]samples{ // they moved to another replica, and use another protocol there
				{labelled("gateways_connected", `protocol="sotw"`), "40x119 0x120"},
				{`revocation_adapter_gateways_connected{job="revocation-adapter",instance="b:9843",protocol="delta"}`, "1x119 39x120"},
			},
		},
		counting("RevocationClaimsFailing", labelled("claims_total", `outcome="failed"`), time.Minute),
		{
			"RevocationControlFailing", time.Minute,
			[]samples{
				{labelled("control_calls_total", `action="revoke",status="5xx"`), "0x119 4x120"},
				{labelled("control_calls_total", `action="approve",status="5xx"`), "0x119 4x120"},
			},
			[]samples{
				{labelled("control_calls_total", `action="revoke",status="5xx"`), "0x119 4x120"},
				{labelled("control_calls_total", `action="revoke",status="4xx"`), "0+10x240"},
			},
		},
	}
}

func causesAtEnforcers() []cause {
	return []cause{
		whileZero("RevocationEnforcerDown", "up"+atEnforcer, 2*time.Minute),
		whileOne("RevocationEnforcerStale", ofEnforcer("stale"), time.Minute),
		whileZero("RevocationEnforcerDisconnected", ofEnforcer("connected"), 5*time.Minute),
		counting("RevocationEnforcerBadBatches", ofEnforcer("bad_batches_total"), 30*time.Second),
		counting("RevocationEnforcerClaimsFailing",
			`revocation_enforcer_calls_total{job="revocation-enforcer",instance="e:9001",verdict="no_claim"}`, time.Minute),
		counting("RevocationEnforcerClaimsFailing",
			`revocation_enforcer_calls_total{job="revocation-enforcer",instance="e:9001",verdict="unclaimed"}`, time.Minute),
		whileOne("RevocationEnforcerKeysFailing", ofEnforcer("key_sources_failed"), 15*time.Minute),
		counting("RevocationEnforcerSnapshotFailing", ofEnforcer("snapshot_failures_total"), 5*time.Minute),
	}
}

// TestAlertCauses has promtool evaluate each alert, with all its minutes, over
// series in which each cause comes up: every alert fires, and when
// it is said to.
func TestAlertCauses(t *testing.T) {
	t.Parallel()
	checkWithPromtool(t)
	dir, all := t.TempDir(), causes()
	run := []string{"test", "rules"}
	for _, r := range readAlerts(t) {
		var tests []any
		for _, c := range all {
			if c.alert == r.Alert {
				tests = append(tests, c.whileFaulty(), c.whileSound())
			}
		}
		if len(tests) == 0 {
			t.Errorf("nothing makes %s fire", r.Alert)
		}
		rules := filepath.Join(dir, r.Alert+".rules.yml")
		writeYAML(t, rules, map[string]any{"groups": []any{map[string]any{"name": "alone", "rules": []alert{r}}}})
		of := filepath.Join(dir, r.Alert+".yml")
		writeYAML(t, of, map[string]any{"rule_files": []string{rules}, "evaluation_interval": "15s", "tests": tests})
		run = append(run, of)
	}
	if out, err := exec.CommandContext(t.Context(), "promtool", run...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func writeYAML(t *testing.T, path string, value any) {
	t.Helper()
	text, err := yaml.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (c cause) whileFaulty() map[string]any {
	at := 30*time.Minute + c.after
	return c.evaluated("fires", c.faulty,
		c.expected("", 0, at-time.Minute), c.expected("", 1, at+time.Minute))
}

func (c cause) whileSound() map[string]any {
	return c.evaluated("is quiet", c.sound, c.expected("[1h]", 0, time.Hour))
}

// expected is how many of the alert fire at a time, or have fired within a span
// before it.
func (c cause) expected(span string, firing int, at time.Duration) any {
	alerts := fmt.Sprintf(`ALERTS{alertname=%q,alertstate="firing"}%s`, c.alert, span)
	if span != "" {
		alerts = "count_over_time(" + alerts + ")"
	}
	return map[string]any{
		"expr":        "count(" + alerts + ") or vector(0)",
		"eval_time":   at.String(),
		"exp_samples": []any{map[string]any{"labels": "{}", "value": firing}},
	}
}

// evaluated is one test of promtool.
func (c cause) evaluated(what string, series []samples, expected ...any) map[string]any {
	return map[string]any{
		"name": c.alert + " " + what, "interval": "15s",
		"input_series": series, "promql_expr_test": expected,
	}
}
