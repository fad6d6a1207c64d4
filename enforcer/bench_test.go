package enforcer_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"revocation-adapter/enforcer"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// wholeSet is n tokens as an adapter sends them, whose jti is their number.
func wholeSet(n, page int) (responses []*discovery.DiscoveryResponse) {
	rng, last := rand.New(rand.NewPCG(1, 2)), int64(0)
	for from := 0; from < n; from += page {
		to := min(n, from+page)
		b := &revocationv1.Batch{
			Reset_: from == 0, FromVersion: uint64(from), ToVersion: uint64(to), HeadVersion: uint64(n),
			CompleteVersion: uint64(n), CompleteAtMicros: epoch.UnixMicro(),
		}
		last = 0
		for i := from; i < to; i++ {
			d := tokenDigest(jti(i))
			b.Digests = append(b.Digests, d[:]...)
			b.Expiries, last = appendExpiry(b.Expiries, epoch.Unix()+rng.Int64N(3600), last)
		}
		responses = append(responses, respond(b, "hub"))
	}
	return responses
}

// jti is a UUID made of a number.
func jti(i int) string {
	var id [16]byte
	binary.BigEndian.PutUint64(id[8:], uint64(i))
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

func load(tb testing.TB, e *enforcer.Enforcer, responses []*discovery.DiscoveryResponse) {
	tb.Helper()
	for _, r := range responses {
		if err := e.Take(r); err != nil {
			tb.Fatal(err)
		}
	}
}

func offline() enforcer.Config {
	return enforcer.Config{Adapters: []string{"127.0.0.1:1"}, Grace: grace, MaxStaleness: time.Minute}
}

// million is an Enforcer with a million tokens and the system's clock.
func million(b *testing.B) *enforcer.Enforcer {
	b.Helper()
	e, err := enforcer.New(offline())
	if err != nil {
		b.Fatal(err)
	}
	load(b, e, wholeSet(1_000_000, 64_000))
	return e
}

// benchmarkCheck checks as many tokens as it takes to find most of the set in
// memory, not in the processor's caches. Their texts lie one after the other.
func benchmarkCheck(b *testing.B, token enforcer.Token) {
	b.Helper()
	e := million(b)
	const tokens = 1 << 17
	var all strings.Builder
	for i := range tokens {
		all.WriteString(jti(2_000_000 + i))
	}
	ids := all.String()
	length := len(ids) / tokens
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		at := i % tokens * length
		token.ID = ids[at : at+length]
		if d := e.Check(token); d.Verdict != enforcer.Pass {
			b.Fatalf("%+v", d)
		}
		i++
	}
}

func BenchmarkCheckMillionByID(b *testing.B) {
	benchmarkCheck(b, enforcer.Token{Expiry: revocation.Never})
}

func BenchmarkCheckMillionByIDAndES256(b *testing.B) {
	benchmarkCheck(b, enforcer.Token{Expiry: revocation.Never, Signature: strings.Repeat("a", 86)})
}

func BenchmarkCheckMillionByIDAndRS256(b *testing.B) {
	benchmarkCheck(b, enforcer.Token{Expiry: revocation.Never, Signature: strings.Repeat("a", 342)})
}

// BenchmarkCheckMillionByRules looks up two claims of three that rules name, beside
// the jti.
func BenchmarkCheckMillionByRules(b *testing.B) {
	e := million(b)
	batch := &revocationv1.Batch{FromVersion: 1_000_000, ToVersion: 1_000_001, HeadVersion: 1_000_001}
	for i := range 3000 {
		batch.Rules = append(batch.Rules, &revocationv1.Rule{
			Claim: []string{"azp", "sub", "sid"}[i%3], Value: jti(i), IssuedBeforeMillis: 1, Expirytime: revocation.Never,
		})
	}
	load(b, e, []*discovery.DiscoveryResponse{respond(batch, "hub")})
	token := enforcer.Token{ID: jti(2_000_000), IssuedAt: 5, Expiry: revocation.Never, Claims: map[string][]string{"azp": {jti(0)}, "sub": {jti(5000)}}}
	b.ReportAllocs()
	for b.Loop() {
		if d := e.Check(token); d.Verdict != enforcer.Pass {
			b.Fatalf("%+v", d)
		}
	}
}

func BenchmarkCheckMillionRevoked(b *testing.B) {
	e := million(b)
	tokens := make([]enforcer.Token, 4096)
	for i := range tokens {
		tokens[i] = enforcer.Token{ID: jti(i * 200), Expiry: revocation.Never}
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if d := e.Check(tokens[i&4095]); d.Verdict != enforcer.Revoked {
			b.Fatalf("%+v", d)
		}
		i++
	}
}

// BenchmarkLoadMillion puts a million tokens in force, in batches of 64,000 as
// they come from the wire.
func BenchmarkLoadMillion(b *testing.B) {
	responses := wholeSet(1_000_000, 64_000)
	for b.Loop() {
		e, err := enforcer.New(offline())
		if err != nil {
			b.Fatal(err)
		}
		load(b, e, responses)
	}
}

// BenchmarkMemory reports the heap per token of sets on their way to a million.
func BenchmarkMemory(b *testing.B) {
	for _, n := range []int{1_000, 100_000, 270_000, 500_000, 530_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			responses := wholeSet(n, 64_000)
			for b.Loop() {
				b.ReportMetric(heapOf(func() any {
					e, err := enforcer.New(offline())
					if err != nil {
						b.Fatal(err)
					}
					load(b, e, responses)
					return e
				})/float64(n), "B/token")
			}
		})
	}
}

// heapOf is what stays of what build returns, in bytes.
func heapOf(build func() any) float64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	built := build()
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(built)
	return float64(after.HeapAlloc) - float64(before.HeapAlloc)
}
