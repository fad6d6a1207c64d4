package enforcer_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"revocation-adapter/enforcer"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
)

// step is a batch of tokens that never expire, and what must hold after it.
type step struct {
	proof           string // "": hub
	reset           bool
	from, to, head  uint64
	revoke, removed string // words
	complete        uint64 // complete_version; 0: to
	at              time.Duration
	refused         string // part of the error
	revoked         string // what must be refused after it, in words
	passes          string // what must pass, or be stale
	version         uint64
	stale           bool
	completeAt      time.Duration // since epoch
	seconds         []int64
}

func (s step) response() *discovery.DiscoveryResponse {
	if s.proof == "" {
		s.proof = "hub"
	}
	return respond(s.batch(), s.proof)
}

func (s step) batch() *revocationv1.Batch {
	b := &revocationv1.Batch{
		Reset_: s.reset, FromVersion: s.from, ToVersion: s.to, HeadVersion: s.head,
		CompleteVersion: s.complete, CompleteAtMicros: epoch.Add(s.at).UnixMicro(),
	}
	if b.CompleteVersion == 0 {
		b.CompleteVersion = s.to
	}
	for _, jti := range strings.Fields(s.revoke) {
		d := tokenDigest(jti)
		b.Digests, b.Expiries = append(b.Digests, d[:]...), append(b.Expiries, 0)
	}
	for _, jti := range strings.Fields(s.removed) {
		d := tokenDigest(jti)
		b.Removed = append(b.Removed, d[:]...)
	}
	return b
}

func (s step) check(t *testing.T, e *enforcer.Enforcer) {
	t.Helper()
	err := e.Take(s.response())
	if (err == nil) != (s.refused == "") || err != nil && !strings.Contains(err.Error(), s.refused) {
		t.Errorf("error %v, want %q", err, s.refused)
	}
	for _, jti := range strings.Fields(s.revoked) {
		wantVerdict(t, e, jwtOf(jti), enforcer.Revoked)
	}
	passes := enforcer.Pass
	if s.stale {
		passes = enforcer.Stale
	}
	for _, jti := range strings.Fields(s.passes) {
		wantVerdict(t, e, jwtOf(jti), passes)
	}
	want := enforcer.Freshness{Version: s.version, Complete: epoch.Add(s.completeAt), Stale: s.stale}
	if s.completeAt == 0 && s.stale {
		want.Complete = time.Time{}
	}
	if got := e.Freshness(); got.Version != want.Version || got.Stale != want.Stale || !got.Complete.Equal(want.Complete) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestBatchesInForce(t *testing.T) {
	whole := step{reset: true, to: 10, head: 10, revoke: "a b", revoked: "a b", passes: "x", version: 10}
	tests := []struct {
		name  string
		steps []step
	}{
		{"a whole set at once", []step{whole}},
		{"a part of the first set refuses, and passes nothing", []step{
			{reset: true, to: 4, head: 10, revoke: "a", revoked: "a", passes: "x", version: 4, stale: true},
			{from: 4, to: 10, head: 10, revoke: "b", revoked: "a b", passes: "x", version: 10},
		}},
		{"changes", []step{
			whole,
			{from: 10, to: 12, head: 12, revoke: "c", removed: "a", revoked: "b c", passes: "a", version: 12},
			{from: 12, to: 13, head: 13, revoke: "a", removed: "a", revoked: "a b c", version: 13},
		}},
		{"what a part of the changes removes is refused until all of them have come", []step{
			whole,
			{from: 10, to: 12, head: 20, revoke: "c", removed: "a b", revoked: "a b c", passes: "x", version: 10},
			{from: 12, to: 15, head: 20, revoke: "d", revoked: "a b c d", passes: "x", version: 10},
			{from: 15, to: 20, head: 20, revoke: "a", removed: "d", revoked: "a c", passes: "b d x", version: 20},
			{from: 20, to: 22, head: 22, removed: "a", revoked: "c", passes: "a", version: 22},
		}},
		{"a change that holds more than is new", []step{
			whole,
			{from: 3, to: 12, head: 12, revoke: "b c", removed: "a", revoked: "b c", passes: "a", version: 12},
		}},
		{"a new set replaces the old one when it is whole, and adds at once", []step{
			whole,
			{reset: true, to: 15, head: 20, revoke: "b c", revoked: "a b c", passes: "x", version: 10},
			{from: 15, to: 18, head: 20, revoke: "d", removed: "b", revoked: "a b c d", passes: "x", version: 10},
			{from: 18, to: 20, head: 20, revoke: "e", revoked: "c d e", passes: "a b x", version: 20},
		}},
		{"a new set of another hub may have lower versions", []step{
			whole,
			{proof: "new", reset: true, to: 1, head: 2, revoke: "c", revoked: "a b c", passes: "x", version: 10},
			{proof: "new", from: 1, to: 2, head: 2, revoke: "d", revoked: "c d", passes: "a b x", version: 2},
		}},
		{"a new set of an adapter that is behind waits until it has caught up", []step{
			whole,
			{reset: true, to: 8, head: 8, revoke: "a", revoked: "a b", passes: "x", version: 10},
			{from: 8, to: 9, head: 9, revoke: "c", revoked: "a b c", passes: "x", version: 10},
			{from: 9, to: 11, head: 11, removed: "b", revoked: "a c", passes: "b x", version: 11},
		}},
		{"a new set begins again", []step{
			whole,
			{reset: true, to: 15, head: 20, revoke: "c", revoked: "a b c", passes: "x", version: 10},
			{reset: true, to: 20, head: 20, revoke: "d", revoked: "d", passes: "a b c x", version: 20},
		}},
		{"the first set begins again", []step{
			{reset: true, to: 4, head: 10, revoke: "a", revoked: "a", passes: "x", version: 4, stale: true},
			{proof: "new", reset: true, to: 2, head: 3, revoke: "b", revoked: "a b", passes: "x", version: 4, stale: true},
			{proof: "new", from: 2, to: 3, head: 3, revoked: "b", passes: "a x", version: 3},
		}},
		{"the first set of another hub, where nothing has come yet", []step{
			{reset: true, to: 5, head: 10, passes: "x", version: 5, stale: true},
			{proof: "new", reset: true, to: 2, head: 2, revoke: "b", revoked: "b", passes: "x", version: 2},
		}},
		{"what was missed is asked for, and what came of it refuses", []step{
			whole,
			{from: 11, to: 12, head: 12, revoke: "c", removed: "a", refused: "never reached", revoked: "a b c", passes: "x", version: 10},
			{from: 10, to: 13, head: 13, revoke: "d", removed: "a", refused: "never reached", revoked: "a b c d", passes: "x", version: 10},
			{reset: true, to: 9, head: 9, revoke: "a", revoked: "a b c d", passes: "x", version: 10},
			{reset: true, to: 12, head: 12, revoke: "b c", revoked: "a b c d", passes: "x", version: 10},
			{reset: true, to: 14, head: 14, revoke: "b c", revoked: "b c", passes: "a d x", version: 14},
		}},
		{"nothing goes on from nothing", []step{
			{from: 0, to: 12, head: 12, revoke: "c", refused: "never reached", revoked: "c", passes: "x", stale: true},
		}},
		{"another hub's changes are not ours", []step{
			whole,
			{proof: "new", from: 10, to: 11, head: 11, revoke: "c", removed: "a", refused: "never reached", revoked: "a b c", version: 10},
		}},
		{"what goes back is refused", []step{
			whole,
			{from: 7, to: 9, head: 9, revoke: "c", removed: "a", refused: "goes back", revoked: "a b", passes: "c", version: 10},
			{from: 9, to: 9, head: 9, at: time.Second, refused: "behind", revoked: "a b", version: 10},
		}},
		{"it is complete as of the adapter's time, and never was before", []step{
			whole,
			{from: 10, to: 10, head: 10, at: 3 * time.Second, version: 10, completeAt: 3 * time.Second},
			{from: 10, to: 10, head: 10, at: 2 * time.Second, version: 10, completeAt: 3 * time.Second},
			{from: 10, to: 10, head: 10, at: time.Hour, version: 10, completeAt: 10 * time.Second},
		}},
		{"it is complete for who has reached a version", []step{
			whole,
			{from: 10, to: 12, head: 15, complete: 13, at: 3 * time.Second, version: 12},
			{from: 12, to: 13, head: 15, complete: 13, at: 3 * time.Second, version: 13, completeAt: 3 * time.Second},
		}},
		{"while a new set is loaded, the old one grows no fresher", []step{
			whole,
			{reset: true, to: 15, head: 20, at: 3 * time.Second, revoke: "c", revoked: "a b c", version: 10},
			{from: 15, to: 20, head: 20, at: 4 * time.Second, revoked: "c", version: 20, completeAt: 4 * time.Second},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := clockAt(epoch)
			e := build(t, configOf(c, &adapter{address: "127.0.0.1:1"}))
			for i, s := range tt.steps {
				c.micros.Store(epoch.Add(10 * time.Second).UnixMicro())
				t.Run(fmt.Sprint(i), func(t *testing.T) { s.check(t, e) })
			}
		})
	}
}

func TestBadBatches(t *testing.T) {
	d := string(make([]byte, 16))
	change := func(b *revocationv1.Batch) *revocationv1.Batch {
		b.FromVersion, b.ToVersion, b.HeadVersion = 10, 11, 11
		return b
	}
	rule := func(r *revocationv1.Rule) *revocationv1.Batch {
		return change(&revocationv1.Batch{Rules: []*revocationv1.Rule{r}})
	}
	tests := []struct {
		name string
		b    *revocationv1.Batch
	}{
		{"versions fall", &revocationv1.Batch{FromVersion: 10, ToVersion: 9, HeadVersion: 11}},
		{"the head is behind", &revocationv1.Batch{FromVersion: 10, ToVersion: 11, HeadVersion: 10}},
		{"a whole set from somewhere", &revocationv1.Batch{Reset_: true, FromVersion: 10, ToVersion: 11, HeadVersion: 11}},
		{"half a digest", change(&revocationv1.Batch{Digests: []byte(d + "12345678"), Expiries: []byte{0, 0}})},
		{"half a digest removed", change(&revocationv1.Batch{Removed: []byte(d + "1")})},
		{"no expiry", change(&revocationv1.Batch{Digests: []byte(d)})},
		{"one expiry too few", change(&revocationv1.Batch{Digests: []byte(d + d), Expiries: []byte{0}})},
		{"one expiry too many", change(&revocationv1.Batch{Digests: []byte(d), Expiries: []byte{0, 0}})},
		{"an expiry that is cut", change(&revocationv1.Batch{Digests: []byte(d), Expiries: []byte{0x80}})},
		{"an expiry longer than a number", change(&revocationv1.Batch{Digests: []byte(d), Expiries: []byte(strings.Repeat("\xff", 10) + "\x01")})},
		{"an expiry at the epoch", change(&revocationv1.Batch{Digests: []byte(d), Expiries: []byte{1}})},
		{"an expiry before the epoch", change(&revocationv1.Batch{Digests: []byte(d), Expiries: []byte{2}})},
		{"an expiry after all time", change(&revocationv1.Batch{Digests: []byte(d), Expiries: []byte(strings.Repeat("\xfe", 9) + "\x01")})},
		{"a rule without a claim", rule(&revocationv1.Rule{Value: "v", Expirytime: 1})},
		{"a rule without a value", rule(&revocationv1.Rule{Claim: "c", Expirytime: 1})},
		{"a rule whose claim has a =", rule(&revocationv1.Rule{Claim: "c=", Value: "v", Expirytime: 1})},
		{"a rule that never was", rule(&revocationv1.Rule{Claim: "c", Value: "v"})},
		{"a rule before the epoch", rule(&revocationv1.Rule{Claim: "c", Value: "v", Expirytime: 1, IssuedBeforeMillis: -1})},
		{"complete before the epoch", change(&revocationv1.Batch{CompleteAtMicros: -1})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := respond(tt.b, "hub")
			refuses(t, r)
		})
	}
}

func TestBadResponses(t *testing.T) {
	good := func() *discovery.DiscoveryResponse {
		return respond(&revocationv1.Batch{FromVersion: 10, ToVersion: 11, HeadVersion: 11}, "hub")
	}
	tests := []struct {
		name   string
		change func(r *discovery.DiscoveryResponse)
	}{
		{"another type", func(r *discovery.DiscoveryResponse) { r.TypeUrl = "type.googleapis.com/revocation.v1.Rule" }},
		{"two resources", func(r *discovery.DiscoveryResponse) { r.Resources = append(r.Resources, r.Resources[0]) }},
		{"a resource of another type", func(r *discovery.DiscoveryResponse) {
			r.Resources[0].TypeUrl = "type.googleapis.com/revocation.v1.Rule"
		}},
		{"a resource that is cut", func(r *discovery.DiscoveryResponse) { r.Resources[0].Value = []byte{0x2a, 5, 1} }},
		{"no resource and no version", func(r *discovery.DiscoveryResponse) { r.Resources, r.VersionInfo = nil, "-hub" }},
		{"an endless version", func(r *discovery.DiscoveryResponse) { r.VersionInfo += strings.Repeat("x", 1<<10) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := good()
			tt.change(r)
			refuses(t, r)
		})
	}
}

// refuses checks that nothing counts of a response, and that it stops nothing.
func refuses(t *testing.T, r *discovery.DiscoveryResponse) {
	t.Helper()
	e := build(t, configOf(clockAt(epoch), &adapter{address: "127.0.0.1:1"}))
	step{reset: true, to: 10, head: 10, revoke: "a", version: 10}.check(t, e)
	if err := e.Take(r); err == nil || !strings.Contains(err.Error(), "bad batch") {
		t.Errorf("error %v", err)
	}
	if got := e.Freshness(); got.Version != 10 || e.Held() != 1 {
		t.Errorf("%+v, %d tokens", got, e.Held())
	}
	step{from: 10, to: 11, head: 11, revoke: "b", removed: "a", revoked: "b", passes: "a", version: 11}.check(t, e)
}

func TestEmptyResponses(t *testing.T) {
	e := build(t, configOf(clockAt(epoch), &adapter{address: "127.0.0.1:1"}))
	empty := func(info, refused string) {
		t.Helper()
		err := e.Take(&discovery.DiscoveryResponse{TypeUrl: enforcer.BatchType, VersionInfo: info})
		if (err == nil) != (refused == "") || err != nil && !strings.Contains(err.Error(), refused) {
			t.Errorf("%s: error %v, want %q", info, err, refused)
		}
	}
	empty("10-hub", "never reached")
	step{reset: true, to: 10, head: 10, revoke: "a", version: 10}.check(t, e)
	empty("12-hub", "")
	empty("11-hub", "behind")
	step{from: 12, to: 13, head: 13, revoke: "b", revoked: "a b", version: 13}.check(t, e)
	empty("14-other", "never reached")
	step{from: 13, to: 14, head: 14, refused: "never reached", revoked: "a b", version: 13}.check(t, e)
}

// FuzzBatch feeds bytes as a batch: what is taken counts as a whole, what is
// refused not at all, and nothing is forgotten but what it says.
func FuzzBatch(f *testing.F) {
	for _, s := range []step{
		{reset: true, to: 20, head: 30, revoke: "b c"},
		{from: 10, to: 20, head: 20, revoke: "b c", removed: "d"},
		{from: 11, to: 20, head: 20, removed: "a"},
		{from: 1, to: 5, head: 5},
	} {
		f.Add(s.response().GetResources()[0].GetValue(), "20-hub")
	}
	f.Fuzz(func(t *testing.T, value []byte, info string) {
		e := build(t, configOf(clockAt(epoch), &adapter{address: "127.0.0.1:1"}))
		step{reset: true, to: 10, head: 10, revoke: "a", version: 10}.check(t, e)
		r := &discovery.DiscoveryResponse{TypeUrl: enforcer.BatchType, VersionInfo: info, Resources: []*anypb.Any{{TypeUrl: enforcer.BatchType, Value: value}}}
		before := e.Freshness()
		if err := e.Take(r); err != nil {
			if strings.Contains(err.Error(), "bad batch") && (e.Freshness() != before || e.Held() != 1) {
				t.Errorf("refused, but %+v with %d tokens", e.Freshness(), e.Held())
			}
			wantVerdict(t, e, jwtOf("a"), enforcer.Revoked)
			return
		}
		d := tokenDigest("a")
		if !strings.Contains(string(value), string(d[:])) && e.Freshness().Version == 10 {
			wantVerdict(t, e, jwtOf("a"), enforcer.Revoked)
		}
	})
}

// A part of a set is never taken for the truth, however patient one is.
func TestNeverComplete(t *testing.T) {
	cfg := configOf(clockAt(epoch), &adapter{address: "127.0.0.1:1"})
	cfg.MaxStaleness = 0
	e := build(t, cfg)
	step{reset: true, to: 4, head: 10, revoke: "a", revoked: "a", passes: "x", version: 4, stale: true}.check(t, e)
	if e.NotReady() == "" {
		t.Error("ready with a part of a set")
	}
	step{from: 4, to: 10, head: 10, at: time.Second, revoked: "a", passes: "x", version: 10}.check(t, e)
	if reason := e.NotReady(); reason != "" {
		t.Error(reason)
	}
}
