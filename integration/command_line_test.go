package integration_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"revocation-adapter/revocation"
)

// The tokens of a real API-M, long expired: of the access token and of the API
// key, whose segments are padded.
const (
	accessToken = "eyJ4NXQiOiJNell4TW1Ga09HWXdNV0kwWldObU5EY3hOR1l3WW1NNFpUQTNNV0kyTkRBelpHUXpOR00wWkdSbE5qSmtPREZrWkRSaU9URmtNV0ZoTXpVMlpHVmxOZyIsImtpZCI6Ik16WXhNbUZrT0dZd01XSTBaV05tTkRjeE5HWXdZbU00WlRBM01XSTJOREF6WkdRek5HTTBaR1JsTmpKa09ERmtaRFJpT1RGa01XRmhNelUyWkdWbE5nX1JTMjU2IiwiYWxnIjoiUlMyNTYifQ.eyJzdWIiOiJ2YWppcmEtZGV2IiwiYXV0IjoiQVBQTElDQVRJT05fVVNFUiIsImF1ZCI6IkhEZVBINFluRHdjOWtsUHRROTY3MnpGVWZYa2EiLCJuYmYiOjE2MTk4NTIyOTYsImF6cCI6IkhEZVBINFluRHdjOWtsUHRROTY3MnpGVWZYa2EiLCJzY29wZSI6InJlYWQ6cGV0cyIsImlzcyI6Imh0dHBzOlwvXC9sb2NhbGhvc3Q6OTQ0M1wvb2F1dGgyXC90b2tlbiIsImV4cCI6MTYxOTg1NTg5NiwiaWF0IjoxNjE5ODUyMjk2LCJqdGkiOiI0ZTMzMGRiZC03NWM2LTRhYjUtYTc0OS1iOTQ5N2FhMzUyMWEifQ.jUzkrljwJu77FRGswRQ1uKBRDsHswwp1oRyjh-ULOf4pZ0faxCTKO2djpBBkxVtgaiv1YKtzhaqRUV_UgCLDAgVO76G-sntSXmN5ATEohwcJfSNRHzOsfiCem-kkgO6P2TE15x7G4hlTfufIiirVlXVjcv-4s3fTVCCd-rsm7JEgb9HM-W2GV6l8-CDJ1cfzEQxSnQ7hgueO9CzhTbSnfRNZrwxZtNxXQC8LZcKfNQAzBbOlScT0qB4iJj_FgOHdIlpLANC-IFeCO6UnChztGRqccyTWUSjNuQBtN3_jCb1MQig3m7b2ZSirDygnZ09oecxxxUC2Sj1mHM5i6LCsEA"
	accessID    = "4e330dbd-75c6-4ab5-a749-b9497aa3521a"
	apiKey      = "eyJ4NXQiOiJOMkpqTWpOaU0yRXhZalJrTnpaalptWTFZVEF4Tm1GbE5qZzRPV1UxWVdRMll6YzFObVk1TlE9PSIsImtpZCI6ImdhdGV3YXlfY2VydGlmaWNhdGVfYWxpYXMiLCJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZG1pbkBjYXJib24uc3VwZXIiLCJhcHBsaWNhdGlvbiI6eyJvd25lciI6ImFkbWluIiwidGllclF1b3RhVHlwZSI6bnVsbCwidGllciI6IjEwUGVyTWluIiwibmFtZSI6Im15IiwiaWQiOjIsInV1aWQiOiI5MzkyMTM2OC1lYmRkLTQxYzEtOWI2Ny1lMzhlZmNkZmMzMjAifSwiaXNzIjoiaHR0cHM6XC9cL2FwaW06OTQ0NFwvb2F1dGgyXC90b2tlbiIsInRpZXJJbmZvIjp7IlVubGltaXRlZCI6eyJ0aWVyUXVvdGFUeXBlIjoicmVxdWVzdENvdW50IiwiZ3JhcGhRTE1heENvbXBsZXhpdHkiOjAsImdyYXBoUUxNYXhEZXB0aCI6MCwic3RvcE9uUXVvdGFSZWFjaCI6dHJ1ZSwic3Bpa2VBcnJlc3RMaW1pdCI6MCwic3Bpa2VBcnJlc3RVbml0IjpudWxsfX0sImtleXR5cGUiOiJQUk9EVUNUSU9OIiwic3Vic2NyaWJlZEFQSXMiOlt7InN1YnNjcmliZXJUZW5hbnREb21haW4iOiJjYXJib24uc3VwZXIiLCJuYW1lIjoicXFxcSIsImNvbnRleHQiOiJcL3FxcVwvMSIsInB1Ymxpc2hlciI6ImFkbWluIiwidmVyc2lvbiI6IjEiLCJzdWJzY3JpcHRpb25UaWVyIjoiVW5saW1pdGVkIn1dLCJ0b2tlbl90eXBlIjoiYXBpS2V5IiwiaWF0IjoxNjUwMzY0MjYyLCJqdGkiOiJlYzYxZDI0Zi04Nzg2LTRlYjktYmZiNy1lN2EyMGQwMjk1ZjYifQ==.M6ZiC1asUawlx73JYU83knl6vm1AG1q95DKnk-mU_59UG1yTRMJDtQn0CpHNDlTb-w9P4JGY8H5Z6l-aLUsmlyDAgIDG58_Q264jYqXleinRlOQyeAkQrPUM4DlVqM9yKOM-xLB8ZrE8feMj6-jHk6boJNtGBV1XUioJ-IQwq2MnBOII3dRbePYA7hNICmlOWaVXDOZitpihTiIl1JUHT7a_nGDiXg3b-MC14PqrdrAnqNWxih_K6oiVrlulsAaVWhRr3dmTQcsA4Eqr2N9FMHDRPeUT8MKlCpy7_SZeWX207LkwdnvWSVrV6dNPJuAWU1g8my_MYQlDDltZqKaisw=="
	apiKeyID    = "ec61d24f-8786-4eb9-bfb7-e7a20d0295f6"
)

func TestCommandLine(t *testing.T) {
	a := startAdapter(t)
	stopped := newAdapter(t, nil)
	wrong := filepath.Join(t.TempDir(), "wrong.toml")
	if err := os.WriteFile(wrong, []byte("[hub]\nlissten = 1\n[xds]\nlisten = \"nonsense\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	away := filepath.Join(t.TempDir(), "away.toml")
	if err := os.WriteFile(away, []byte("[hub]\nmode = \"external\"\nurls = [\"nats://bob:hunter2@127.0.0.1:1\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{"revoke a jti", []string{"revoke", "cli-1"}, 0, "Revoked cli-1 ", ""},
		{"revoke a JWT by its jti and exp", []string{"revoke", accessToken, "--expires-in", "1h"}, 0, "Revoked " + accessID, ""},
		{"revoke a padded API key", []string{"revoke", apiKey, "--type", "API_KEY"}, 0, "Revoked " + apiKeyID, ""},
		{
			"revoke an opaque token",
			[]string{"revoke", "secret", "--type", "Default"},
			0,
			"Revoked " + revocation.NamePrefix + revocation.DigestOf(revocation.DomainOpaque, "secret").String(), "",
		},
		{"revoke what standard input says", []string{"revoke", "-"}, 2, "", "no token on standard input"},
		{"revoke a claim", []string{"revoke", "--claim", "sub=alice"}, 0, "Revoked all with sub=alice issued before 20", ""},
		{"revoke a claim at a time", []string{"revoke", "--claim", "azp=a=b", "--issued-before", "1790000000"}, 0, "Revoked all with azp=a=b issued before 2026-09-21T14:13:20Z ", ""},
		{"approve a claim", []string{"approve", "--claim", "sub=alice"}, 0, "Re-approved all with sub=alice (", ""},
		{"a digest that was cut", []string{"revoke", "sha256:QSdnLLFO", "--type", "Default"}, 2, "", "not a digest"},
		{"no such command of a group", []string{"client", "delete", "x"}, 2, "", `unknown command "delete"`},
		{"a group alone", []string{"client"}, 0, "Available Commands:", ""},
		{"a claim and a token", []string{"revoke", "x", "--claim", "sub=alice"}, 2, "", "in place of a token"},
		{"a claim and a type", []string{"revoke", "--type", "JWT", "--claim", "sub=alice"}, 2, "", "[type claim]"},
		{"a claim without a value", []string{"revoke", "--claim", "sub"}, 2, "", "--claim must be name=value"},
		{"a claim of another name", []string{"approve", "--claim", "scope=x"}, 2, "", "rules.claims (sub, azp, client_id, sid, origin_jti)"},
		{"a claim of long ago", []string{"revoke", "--claim", "sub=x", "--issued-before", "2021-01-01T00:00:00Z"}, 2, "", "nothing was sent"},
		{"a claim of the future", []string{"revoke", "--claim", "sub=x", "--issued-before", "2101-01-01T00:00:00Z"}, 2, "", "at most 24h ahead"},
		{"an unreadable time of a claim", []string{"revoke", "--claim", "sub=x", "--issued-before", "yesterday"}, 2, "", "--issued-before must be"},
		{"a time without a claim", []string{"revoke", "x", "--issued-before", "now"}, 2, "", "needs --claim"},
		{"approve", []string{"approve", "cli-1"}, 0, "Re-approved cli-1 ", ""},
		{"an unknown type", []string{"revoke", "x", "--type", "SAML"}, 2, "", "--type must be JWT, API_KEY or Default"},
		{"an unreadable time", []string{"revoke", "x", "--expires-at", "tomorrow"}, 2, "", "--expires-at must be"},
		{"a time that is past", []string{"revoke", "x", "--expires-at", "2021-01-01T00:00:00Z"}, 2, "", "the token expired at 2021-01-01T00:00:00Z"},
		{"a JWT that has expired", []string{"revoke", accessToken}, 2, "", "nothing was sent"},
		{"two times", []string{"revoke", "x", "--expires-at", "never", "--expires-in", "1h"}, 2, "", "expires-at"},
		{"what looks like a JWT and is none", []string{"revoke", "a.b.c"}, 2, "", "not a JWT"},
		{"no token", []string{"revoke"}, 2, "", "--help"},
		{"an unknown flag", []string{"revoke", "x", "--wat"}, 2, "", "--help"},
		{"an unknown command", []string{"revoque"}, 2, "", "revoque"},
		{"no dead letters", []string{"deadletter", "list"}, 0, "No dead letters.", ""},
		{"no such dead letter", []string{"deadletter", "show", "77"}, 4, "", "no such dead letter"},
		{"not a number", []string{"deadletter", "show", "x"}, 2, "", "not a number"},
		{"replay nothing", []string{"deadletter", "replay"}, 2, "", "or --all"},
		{"replay twice named", []string{"deadletter", "replay", "1", "--all"}, 2, "", "or --all"},
		{"replay no number", []string{"deadletter", "replay", "x"}, 2, "", "not a number"},
		{"replay no such dead letter", []string{"deadletter", "replay", "77"}, 4, "", "adapter deadletter list"},
		{"replay none", []string{"deadletter", "replay", "--all"}, 0, "No dead letters.", ""},
		{"replay nowhere", []string{"--config", stopped.config, "deadletter", "replay", "--all"}, 3, "", "start the adapter"},
		{"purge nothing", []string{"deadletter", "purge"}, 2, "", "or --all"},
		{"purge no such dead letter", []string{"deadletter", "purge", "77"}, 4, "", "adapter deadletter list"},
		{"purge by age and number", []string{"deadletter", "purge", "1", "--older-than", "1h"}, 2, "", "needs --all"},
		{"purge none", []string{"deadletter", "purge", "--all", "--older-than", "1h"}, 0, "purged: 0", ""},
		{"the configuration", []string{"config", "check"}, 0, "commonEnforcerLabel", ""},
		{"a wrong configuration", []string{"--config", wrong, "config", "check"}, 2, "", "lissten"},
		{"the version", []string{"version"}, 0, "revocation-adapter ", ""},
		{"an adapter that does not run", []string{"--config", stopped.config, "revoke", "x"}, 3, "", "start the adapter"},
		{"a hub out of reach", []string{"--config", away, "revoke", "x"}, 3, "", "nats://bob:********@127.0.0.1:1"},
		{"watch nobody", []string{"--config", stopped.config, "watch", "--count", "1"}, 3, "", "is the adapter running?"},
		{"watch from where", []string{"watch", "--from", "abc"}, 2, "", "--from must be a version"},
		{"watch with half of TLS", []string{"watch", "--cert", "gw.pem", "--key", "gw.key"}, 2, "", "need --ca"},
		{"watch what", []string{"watch", "--protocol", "smtp"}, 2, "", "--protocol must be"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := a.run(t, tt.args...)
			if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("exit %d (want %d), stdout %q (want %q), stderr %q (want %q)", code, tt.code, stdout, tt.stdout, stderr, tt.stderr)
			}
			if strings.Contains(stdout+stderr, "hunter2") {
				t.Errorf("it shows a password: %s%s", stdout, stderr)
			}
		})
	}
	g := connectGateway(t, a, delta, "")
	g.awaits(t, accessID, apiKeyID)
	for _, protocol := range []string{rtds, sotw, delta} {
		code, out, errOut := a.run(t, "watch", "--protocol", protocol, "--count", "1", "--json")
		var update struct {
			Version string
			Added   []struct{ JTI string }
			Removed []string
			Bytes   int
		}
		if err := json.Unmarshal([]byte(out), &update); err != nil || code != 0 || len(update.Added) != 3 || update.Removed == nil || update.Bytes == 0 || update.Version != g.acked() {
			t.Errorf("watch %s: exit %d, %v, %s%s", protocol, code, err, out, errOut)
		}
	}
	if log := a.log.String(); strings.Contains(log, accessToken) || strings.Contains(log, apiKey) {
		t.Error("the log holds a whole JWT")
	}
}

func TestObservable(t *testing.T) {
	a := startAdapter(t)
	g := connectGateway(t, a, rtds, "")
	a.publish(t, event("seen", inAnHour()))
	g.awaits(t, "seen")
	if code, body := a.get(t, "/healthz"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("/healthz: %d %q", code, body)
	}
	code, body := a.get(t, "/readyz")
	var ready struct {
		Ready   bool
		Version uint64
		Revoked int
		Hub     string
	}
	if err := json.Unmarshal([]byte(body), &ready); err != nil || code != http.StatusOK || !ready.Ready ||
		ready.Version != g.number(t) || ready.Revoked != 1 || ready.Hub != "connected" {
		t.Errorf("/readyz: %d %s", code, body)
	}
	for _, metric := range []string{
		`revocation_adapter_events_total{kind="jwt",outcome="stored",source="nats_revocation"} 1`,
		`revocation_adapter_live_revocations{lifetime="dated"} 1`,
		`revocation_adapter_gateways_connected{protocol="sotw"} 1`,
		`revocation_adapter_gateway_lag_versions{gateway="gw-rtds"} 0`,
		`revocation_adapter_ingest_pending_events 0`,
		`revocation_adapter_dead_letters 0`,
		`revocation_adapter_hub_connected 1`,
		`revocation_adapter_event_to_publication_seconds_count 1`,
	} {
		eventually(t, metric, func() bool { _, all := a.get(t, "/metrics"); return strings.Contains(all, metric) })
	}
}
