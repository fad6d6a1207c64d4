package gate_test

import (
	"testing"
	"time"

	"revocation-adapter/enforcer"
	"revocation-adapter/enforcer/gate"
)

// BenchmarkDecide is one call with one JWT, asked of an enforcer with an empty set.
func BenchmarkDecide(b *testing.B) {
	e, err := enforcer.New(enforcer.Config{Adapters: []string{"127.0.0.1:1"}, OnStale: enforcer.Allow})
	if err != nil {
		b.Fatal(err)
	}
	for name, routes := range map[string][]gate.Route{
		"no one-time routes":  nil,
		"ten one-time routes": {{Path: "/a"}, {Path: "/b"}, {Path: "/c"}, {Path: "/d"}, {Path: "/e"}, {Path: "/f"}, {Path: "/g"}, {Path: "/h"}, {Path: "/i"}, {Path: "/j"}},
	} {
		g, err := gate.New(gate.Config{Enforcer: e, Places: everywhere(), OneTime: routes, ClaimTimeout: time.Second})
		if err != nil {
			b.Fatal(err)
		}
		r := call("GET", "/orders/123/items?page=2", append(bearer(jwt("a", `"sub":"alice"`, `"azp":"client"`, `"scope":"read write"`)), "Cookie", "a=b; c=d", "Accept", "*/*")...)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !g.Decide(b.Context(), r).Verdict.Pass() {
					b.Fatal("refused")
				}
			}
		})
	}
}
