package gate_test

import (
	"slices"
	"testing"

	"revocation-adapter/enforcer/gate"
)

// A server behind CGI or WSGI takes X_Api_Key for X-Api-Key.
func TestHeadersByAnyName(t *testing.T) {
	header := gate.Headers(map[string][]string{"X-Api-Key": {"a", "b"}, "x_api_KEY": {"c"}, "X-ApiKey": {"d"}, "X-Api-Keys": {"e"}})
	for _, name := range []string{"x-api-key", "X_API_KEY"} {
		got := header(name)
		slices.Sort(got)
		if !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := header("api-key"); got != nil {
		t.Errorf("another one: %q", got)
	}
}

func TestKeysUnderAnUnderscore(t *testing.T) {
	g := newGate(t, &book{}, func(c *gate.Config) { c.Places = gate.Places{APIKeyHeader: "X-API-Key"} })
	r := gate.Request{Header: gate.Headers(map[string][]string{"X_api_key": {"revoked"}})}
	if got := g.Decide(t.Context(), r); got.Verdict != gate.Revoked {
		t.Errorf("got %s", got.Verdict)
	}
}
