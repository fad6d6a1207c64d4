package revocation_test

import (
	"errors"
	"strings"
	"testing"

	"revocation-adapter/revocation"
)

func TestRuleKeyRoundTrip(t *testing.T) {
	for _, rule := range []revocation.Rule{{"sub", "alice"}, {"azp", "a=b=="}, {"client_id", " "}, {"sub", "\u00e9\x00"}} {
		if got, err := revocation.ParseRule(rule.Key()); got != rule || err != nil {
			t.Errorf("%q: got %+v, %v", rule.Key(), got, err)
		}
	}
}

func TestRulesThatAreNone(t *testing.T) {
	for name, key := range map[string]string{
		"empty": "", "without a value": "sub=", "without a sign": "sub", "without a claim": "=alice",
		"too long": "sub=" + strings.Repeat("a", revocation.MaxKey), "reserved": "sha256:=a",
	} {
		t.Run(name, func(t *testing.T) {
			if rule, err := revocation.ParseRule(key); !errors.Is(err, revocation.ErrRule) {
				t.Errorf("got %+v, %v", rule, err)
			}
		})
	}
}
