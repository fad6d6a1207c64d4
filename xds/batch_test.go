package xds_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
	"revocation-adapter/xds"
)

// batchClient is an enforcer: it holds what batches say.
type batchClient struct {
	*sotwClient
	t       *testing.T
	held    map[revocation.Digest]int64 // seconds since the epoch
	rules   map[string]int64
	loading bool // a whole set has begun and not ended
	at      uint64
	last    *revocationv1.Batch
}

// enforce opens a stream of batches that goes on from a version.
func (w *world) enforce(t *testing.T, version string, tenants ...string) *batchClient {
	t.Helper()
	e := &batchClient{sotwClient: w.open(t, aggregated), t: t, held: map[revocation.Digest]int64{}, rules: map[string]int64{}}
	e.resume(version, tenants...)
	return e
}

// resume sends the first request of a stream.
func (e *batchClient) resume(version string, tenants ...string) {
	e.t.Helper()
	e.url, e.version = xds.BatchTypeURL, version
	position, _, _ := strings.Cut(version, "-")
	e.at, _ = strconv.ParseUint(position, 10, 64) // 0 where it is none
	e.send(&discovery.DiscoveryRequest{Node: nodeOf(e.t.Name(), tenants...)})
}

// accept ACKs the next response.
func (e *batchClient) accept() *discovery.DiscoveryResponse {
	e.t.Helper()
	resp := e.next()
	e.version = resp.GetVersionInfo()
	e.send(&discovery.DiscoveryRequest{ResponseNonce: resp.GetNonce()})
	return resp
}

// batch takes and ACKs the next response.
func (e *batchClient) batch() *revocationv1.Batch {
	e.t.Helper()
	return e.apply(e.accept())
}

func (e *batchClient) apply(resp *discovery.DiscoveryResponse) *revocationv1.Batch {
	e.t.Helper()
	b := batchOf(e.t, resp)
	switch {
	case b.GetReset_():
		e.held, e.rules, e.loading = map[revocation.Digest]int64{}, map[string]int64{}, true
	case b.GetFromVersion() > e.at:
		e.t.Errorf("a batch from %d to %d, after %d", b.GetFromVersion(), b.GetToVersion(), e.at)
	}
	e.merge(b)
	e.at, e.last = b.GetToVersion(), b
	e.loading = e.loading && b.GetToVersion() < b.GetHeadVersion()
	return b
}

func (e *batchClient) merge(b *revocationv1.Batch) {
	e.t.Helper()
	expiries := expiriesOf(e.t, b.GetExpiries())
	if len(b.GetDigests()) != 16*len(expiries) {
		e.t.Fatalf("%d bytes of digests, %d expiries", len(b.GetDigests()), len(expiries))
	}
	for i, d := range digestsOf(b.GetDigests()) {
		e.held[d] = expiries[i]
	}
	for _, d := range digestsOf(b.GetRemoved()) {
		delete(e.held, d)
		maps.DeleteFunc(e.rules, func(key string, _ int64) bool { return revocation.DigestOf(revocation.DomainRule, key) == d })
	}
	for _, r := range b.GetRules() {
		e.rules[r.GetClaim()+"="+r.GetValue()] = r.GetIssuedBeforeMillis()
	}
}

// followTo takes batches until it is at the version.
func (e *batchClient) followTo(version uint64) {
	e.t.Helper()
	for e.at < version {
		e.batch()
	}
}

func digestsOf(all []byte) (ds []revocation.Digest) {
	for d := range slices.Chunk(all, 16) {
		ds = append(ds, revocation.Digest(d))
	}
	return ds
}

// expiriesOf reads expiries as the .proto says.
func expiriesOf(t *testing.T, b []byte) (seconds []int64) {
	t.Helper()
	last := int64(0)
	for len(b) > 0 {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		b = b[n:]
		if v == 0 {
			seconds = append(seconds, revocation.Never)
			continue
		}
		last += protowire.DecodeZigZag(v - 1)
		seconds = append(seconds, last)
	}
	return seconds
}

func batchOf(t *testing.T, resp *discovery.DiscoveryResponse) *revocationv1.Batch {
	t.Helper()
	b := new(revocationv1.Batch)
	if len(resp.GetResources()) != 1 || resp.GetTypeUrl() != xds.BatchTypeURL {
		t.Fatalf("%d resources of %s", len(resp.GetResources()), resp.GetTypeUrl())
	}
	if err := resp.GetResources()[0].UnmarshalTo(b); err != nil {
		t.Fatal(err)
	}
	if want := text(b.GetToVersion()) + "-hub"; !strings.HasPrefix(resp.GetVersionInfo(), want) {
		t.Errorf("version %s of a batch to %s", resp.GetVersionInfo(), want)
	}
	return b
}

// packed is what an enforcer must hold of the truth.
func packed(truth map[string]int64) map[revocation.Digest]int64 {
	held := make(map[revocation.Digest]int64, len(truth))
	for name, expiry := range truth {
		d := revocation.DigestOf(revocation.DomainToken, name)
		if text, ok := strings.CutPrefix(name, revocation.NamePrefix); ok {
			d, _ = revocation.ParseDigest(text) // it was written by Name
		}
		if expiry != revocation.Never {
			expiry = (expiry + 999) / 1000
		}
		held[d] = expiry
	}
	return held
}

func (e *batchClient) holds(w *world) {
	e.t.Helper()
	if got, want := e.held, packed(w.truth()); !maps.Equal(got, want) {
		e.t.Errorf("%d tokens are held, %d revoked", len(got), len(want))
	}
	if got, want := e.rules, w.ruleTruth(); !maps.Equal(got, want) {
		e.t.Errorf("rules %v are held, in force are %v", got, want)
	}
	if e.loading {
		e.t.Error("the whole set has not ended")
	}
}

func everyForm() []revocation.Revocation {
	forever := revoked("for ever", later)
	forever.Expiry, forever.Lifetime = revocation.Never, revocation.Forever
	return []revocation.Revocation{
		revoked("fc8ee897-b3d9-3bb6-a9ca-f4aeb036e5c0", later), revoked("k", origin.Add(time.Second+time.Millisecond)),
		rule("azp=first", 7), forever, ofDomain(revocation.DomainOpaque, "opaque"),
		ofDomain(revocation.DomainRefresh, "refresh"), rule("sub=second", 8), revoked("last", origin.Add(time.Hour)),
	}
}

func TestBatchIsWhatProtobufMakes(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.complete.Store(&completeness{1000, origin})
	w.put(everyForm()...)
	raw := rawResponse(t, w, discovery.AggregatedDiscoveryService_StreamAggregatedResources_FullMethodName,
		&discovery.DiscoveryRequest{TypeUrl: xds.BatchTypeURL})
	resp := new(discovery.DiscoveryResponse)
	if n := entries(t, raw, resp, func(i int) proto.Message { return resp.GetResources()[i] }); n != 1 {
		t.Errorf("%d resources, want 1", n)
	}
	b := batchOf(t, resp)
	known(t, b)
	sameBytes(t, resp.GetResources()[0].GetValue(), b)
	if len(b.GetDigests()) != 5*16 || len(b.GetRules()) != 2 || !b.GetReset_() {
		t.Errorf("got %v", b)
	}
}

func TestBatchesSayAllThatChanges(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.put(everyForm()...)
	e := w.enforce(t, "")
	b := e.batch()
	e.holds(w)
	if !b.GetReset_() || b.GetToVersion() != b.GetHeadVersion() {
		t.Errorf("the first batch is %v", b)
	}
	w.put(revoked("new", later), approved("last"), withdrawn("azp=first"), rule("azp=third", 9))
	if b := e.batch(); b.GetReset_() || b.GetFromVersion() != b.GetToVersion()-4 {
		t.Errorf("the second is %v", b)
	}
	e.holds(w)

	again := w.enforce(t, e.version)
	again.held, again.rules, again.at = e.held, e.rules, e.at
	if b := again.batch(); b.GetReset_() || b.GetFromVersion() != b.GetToVersion() || len(b.GetDigests()) > 0 {
		t.Errorf("resumed with %v", b)
	}
	w.approve("new")
	again.batch()
	again.holds(w)
}

// A version proves which hub and which tenants it was reached with. With any
// other the whole set comes, and says so.
func TestBatchVersionsOfAnotherHubOrTenants(t *testing.T) {
	t.Parallel()
	w := tenantWorld(t)
	all := w.enforce(t, "")
	all.batch()
	some := w.enforce(t, "", "a")
	some.batch()
	number, _, _ := strings.Cut(all.version, "-")
	for name, tc := range map[string]struct {
		version string
		tenants []string
		reset   bool
	}{
		"the same":         {all.version, nil, false},
		"the same tenants": {some.version, []string{"a"}, false},
		"tenants less":     {some.version, nil, true},
		"tenants more":     {all.version, []string{"a"}, true},
		"other tenants":    {some.version, []string{"b"}, true},
		"another hub":      {number + "-other", nil, true},
		"no hub":           {number, nil, true},
		"the future":       {"99999999-hub", nil, true},
		"nonsense":         {"x-hub", nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			if b := w.enforce(t, tc.version, tc.tenants...).batch(); b.GetReset_() != tc.reset || b.GetReset_() != (b.GetFromVersion() == 0) {
				t.Errorf("reset %t from %d", b.GetReset_(), b.GetFromVersion())
			}
		})
	}
}

// What concerns other tenants wakes nobody, and is passed with the next batch:
// no gap ever.
func TestBatchesOfSomeTenants(t *testing.T) {
	t.Parallel()
	w := tenantWorld(t)
	e := w.enforce(t, "", "a")
	e.batch()
	w.put(of("b", revoked("more of b", later)))
	e.quiet(50 * time.Millisecond)
	w.put(of("a", revoked("more of a", later)))
	if b := e.batch(); len(b.GetDigests()) != 16 {
		t.Errorf("got %d bytes of digests", len(b.GetDigests()))
	}
	w.put(of("b", revoked("still more of b", later)))
	w.complete.Store(&completeness{e.at + 1, origin})
	if b := e.batch(); b.GetToVersion() != b.GetHeadVersion() || len(b.GetDigests()) > 0 {
		t.Errorf("the heartbeat is %v", b)
	}
	if len(e.held) != 3 || len(e.rules) != 2 {
		t.Errorf("held are %d tokens, %d rules", len(e.held), len(e.rules))
	}
}

// A heartbeat comes when the adapter knows more, and to streams of batches only.
func TestHeartbeats(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.revoke("one")
	other := w.subscribe(t, streamTokens, w.head())
	other.accept()
	e := w.enforce(t, "")
	if b := e.batch(); b.GetCompleteAtMicros() != 0 {
		t.Errorf("complete at %d, of which nothing is known", b.GetCompleteAtMicros())
	}
	for i := range 3 {
		at := origin.Add(time.Duration(i) * time.Second)
		w.complete.Store(&completeness{e.at, at})
		b := e.batch()
		if b.GetCompleteAtMicros() != at.UnixMicro() || b.GetCompleteVersion() != e.at || b.GetToVersion() != e.at || b.GetFromVersion() != e.at {
			t.Errorf("heartbeat %d is %v", i, b)
		}
	}
	e.quiet(3 * 100 * time.Millisecond) // nothing new, nothing said
	w.complete.Store(&completeness{e.at + 1, origin.Add(time.Hour)})
	e.quiet(3 * 100 * time.Millisecond) // of a version that this replica does not serve yet
	w.revoke("two")
	if b := e.batch(); b.GetCompleteAtMicros() != origin.Add(time.Hour).UnixMicro() {
		t.Errorf("with a change comes %v", b)
	}
	if resp := other.accept(); len(resp.GetResources()) != 1 {
		t.Errorf("a stream of tokens got %v", resp)
	}
	if b := w.enforce(t, e.version).batch(); b.GetCompleteVersion() != e.at {
		t.Errorf("a new stream is told %v", b)
	}
}

func TestWholeSetInBatches(t *testing.T) {
	t.Parallel()
	w := start(t)
	const n = 150_000
	changes := make([]revocation.Revocation, 0, n)
	rng := rand.New(rand.NewPCG(3, 4))
	for i, name := range uuids(9, n) {
		changes = append(changes, revoked(name, origin.Add(time.Duration(rng.Int64N(90*24*3600))*time.Second)))
		if i%50_000 == 7 {
			changes = append(changes, rule(fmt.Sprintf("sub=%d", i), int64(i+1)))
		}
	}
	head := w.put(changes...)
	w.complete.Store(&completeness{head, origin})
	first, bytes := w.enforce(t, ""), 0
	for more := true; more; {
		resp := first.accept()
		b := first.apply(resp)
		bytes += proto.Size(resp)
		if more = first.loading; more && b.GetCompleteAtMicros() != 0 {
			t.Error("a part of the set says that it is complete")
		}
		if more {
			w.revoke(fmt.Sprint("while it loads ", b.GetToVersion()))
		}
	}
	first.followTo(number(t, w.head()))
	first.holds(w)
	if per := float64(bytes) / n; per > 20 {
		t.Errorf("%.1f bytes per token", per)
	}
	// Whoever comes later gets the same full batches, and ends with the same set.
	second := w.enforce(t, "")
	b := second.batch()
	if !b.GetReset_() || b.GetToVersion() >= b.GetHeadVersion() {
		t.Errorf("the first batch goes to %d of %d", b.GetToVersion(), b.GetHeadVersion())
	}
	w.approve(uuids(9, 3)...) // they are in the batch that is remembered
	third := w.enforce(t, second.version)
	third.held, third.rules, third.at, third.loading = maps.Clone(second.held), maps.Clone(second.rules), second.at, true
	for _, e := range []*batchClient{second, third, w.enforce(t, "")} {
		e.followTo(number(t, w.head()))
		e.holds(w)
	}
}

func TestBatchesAreRefused(t *testing.T) {
	t.Parallel()
	w := start(t)
	for name, end := range map[string]func() codes.Code{
		"by name": func() codes.Code {
			c := w.open(t, aggregated)
			c.url, c.names = xds.BatchTypeURL, []string{"a"}
			c.send(&discovery.DiscoveryRequest{Node: node("g")})
			return c.end().Code()
		},
		"on StreamTokens": func() codes.Code {
			c := w.open(t, streamTokens)
			c.url = xds.BatchTypeURL
			c.send(&discovery.DiscoveryRequest{Node: node("g")})
			return c.end().Code()
		},
		"on delta": func() codes.Code {
			return w.deltaWith(t, &discovery.DeltaDiscoveryRequest{TypeUrl: xds.BatchTypeURL, Node: node("g")}).end().Code()
		},
	} {
		if code := end(); code != codes.InvalidArgument {
			t.Errorf("%s: %s", name, code)
		}
	}
}

// A refused batch comes again, whole.
func TestBatchIsRefusedAndComesAgain(t *testing.T) {
	t.Parallel()
	w := start(t)
	e := w.enforce(t, "")
	e.batch()
	w.revoke("one")
	resp := e.next()
	e.nack(resp)
	until(t, "it is refused", func() bool { return w.metric("revocation_adapter_xds_nacks_total", "sotw") == 1 })
	w.revoke("two")
	w.clock.move(time.Minute)
	e.followTo(number(t, w.head()))
	e.holds(w)
}

// Random changes, streams that break, refusals: whatever happens, an enforcer
// that takes every batch ends with the truth.
func TestRandomEnforcersEndWithTheTruth(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 11))
			w := start(t)
			e := w.enforce(t, "")
			e.batch()
			for range 150 {
				step(t, w, rng)
				switch rng.IntN(6) {
				case 0:
					next := w.enforce(t, e.version)
					next.held, next.rules, next.at, next.loading = e.held, e.rules, e.at, e.loading
					e = next
					e.batch()
				case 1, 2:
					if e.at < w.log.Snapshot().Version() {
						e.batch()
					}
				}
			}
			e.followTo(number(t, w.head()))
			e.holds(w)
		})
	}
}

// step changes the log by chance.
func step(t *testing.T, w *world, rng *rand.Rand) {
	t.Helper()
	name := fmt.Sprint("t", rng.IntN(20))
	switch rng.IntN(6) {
	case 0:
		w.approve(name)
	case 1:
		w.put(rule("sub="+name, rng.Int64N(1000)+1))
	case 2:
		w.put(withdrawn("sub=" + name))
	case 3:
		w.complete.Store(&completeness{w.log.Snapshot().Version(), origin.Add(time.Duration(rng.Int64()>>20) * time.Microsecond)})
	default:
		w.revoke(name, fmt.Sprint("u", rng.IntN(20)))
	}
}

// While nobody knows how fresh the log is, a stream that was never told waits: an
// answer that tells nothing must not ask for the next.
func TestNoHeartbeatsWhileNothingIsKnown(t *testing.T) {
	t.Parallel()
	w := start(t)
	e := w.enforce(t, "")
	e.batch()
	w.complete.Store(&completeness{e.at, origin})
	e.batch()
	w.complete.Store(nil) // the clock that told was set back
	other := w.enforce(t, "")
	other.batch()
	other.quiet(3 * 100 * time.Millisecond)
}
