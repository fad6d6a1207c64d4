package main

import (
	"regexp"
	"strings"
	"testing"

	"revocation-adapter/adapter/receipts"
)

// A gateway that has confirmed nothing is behind by all, not by a number of sixteen
// digits.
func TestGatewaysThatHaveConfirmedNothing(t *testing.T) {
	var out strings.Builder
	err := printGateways(&out, receipts.Overview{Gateways: []receipts.Gateway{
		{Name: "new", Connected: true, Lag: 1795302893738405},
		{Name: "late", Connected: true, Version: 1795302893738404, Lag: 1},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`! +new +behind +- +all `, `! +late +behind +1795302893738404 +1 `} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("%s, want %s", out.String(), want)
		}
	}
}
