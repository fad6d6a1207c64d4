package enforcer_test

import (
	"encoding/binary"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// hub is the log that test adapters serve: a map in the order of versions.
type hub struct {
	mu       sync.Mutex
	proof    string
	version  uint64
	items    map[revocation.Digest]item
	oldest   uint64 // who comes with less gets a whole set
	complete time.Time
	now      func() time.Time // what has expired is left out; nil: nothing
	changed  chan struct{}    // closed by a change
}

type item struct {
	version uint64
	revoked bool
	seconds int64 // 0: never
	rule    *revocationv1.Rule
}

func newHub() *hub {
	return &hub{proof: "hub", version: 1000, oldest: 1, items: map[revocation.Digest]item{}, changed: make(chan struct{})}
}

// put records what became of a digest, and returns the version.
func (h *hub) put(d revocation.Digest, it item) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.version++
	it.version = h.version
	h.items[d] = it
	if h.now != nil {
		h.complete = h.now()
	}
	h.wake()
	return h.version
}

func (h *hub) revoke(jti string) uint64 {
	return h.put(tokenDigest(jti), item{revoked: true})
}

func (h *hub) approve(jti string) uint64 { return h.put(tokenDigest(jti), item{}) }

func (h *hub) rule(claim, value string, before time.Time) {
	r := &revocationv1.Rule{Claim: claim, Value: value, IssuedBeforeMillis: before.UnixMilli(), Expirytime: revocation.Never}
	h.put(revocation.Rule{Claim: claim, Value: value}.Digest(), item{revoked: true, rule: r})
}

// completeAt makes adapters say that the log was complete then.
func (h *hub) completeAt(at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.complete = at
	h.wake()
}

func (h *hub) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func tokenDigest(jti string) revocation.Digest {
	return revocation.DigestOf(revocation.DomainToken, jti)
}

// resume is where a version_info goes on, or a whole set.
func (h *hub) resume(info string) (from uint64, reset bool, proof string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	number, proof, _ := strings.Cut(info, "-")
	from, err := strconv.ParseUint(number, 10, 64)
	if err != nil || proof != h.proof || from < h.oldest {
		return 0, true, h.proof
	}
	return from, false, h.proof
}

// is says whether the hub is still the one that a proof is of.
func (h *hub) is(proof string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.proof == proof
}

// batch is what changed after position, at most page items, as an adapter that
// has come as far as reach says it. It returns a channel that the next change
// closes.
func (h *hub) batch(position, reach uint64, reset bool, page int) (*revocationv1.Batch, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if position < h.oldest { // what was approved since is forgotten
		position, reset = 0, true
	}
	head := min(h.version, reach)
	var changed []revocation.Digest
	for d, it := range h.items {
		if it.version > position && it.version <= head && (it.revoked || position > 0) && !h.expired(it) {
			changed = append(changed, d)
		}
	}
	slices.SortFunc(changed, func(a, b revocation.Digest) int {
		return int(h.items[a].version) - int(h.items[b].version)
	})
	b := &revocationv1.Batch{Reset_: reset, FromVersion: position, ToVersion: head, HeadVersion: head}
	if len(changed) > page {
		changed = changed[:page]
		b.ToVersion = h.items[changed[page-1]].version
	}
	b.CompleteVersion, b.CompleteAtMicros = h.version, max(0, h.complete.UnixMicro())
	h.fill(b, changed)
	return b, h.changed
}

func (h *hub) expired(it item) bool {
	return h.now != nil && it.seconds > 0 && time.Unix(it.seconds, 0).Add(grace).Before(h.now())
}

// rebase makes another hub with the same content, whose versions are others.
func (h *hub) rebase(proof string, version uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.proof, h.version, h.oldest = proof, version, version
	for d, it := range h.items {
		h.version++
		it.version = h.version
		h.items[d] = it
	}
	h.forgetApproved()
	h.wake()
}

// compact forgets what was approved: who has not heard of it gets a whole set.
func (h *hub) compact() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.oldest = h.version
	h.forgetApproved()
}

func (h *hub) forgetApproved() {
	maps.DeleteFunc(h.items, func(_ revocation.Digest, it item) bool { return !it.revoked })
}

func (h *hub) fill(b *revocationv1.Batch, changed []revocation.Digest) {
	last := int64(0)
	for _, d := range changed {
		switch it := h.items[d]; {
		case !it.revoked:
			b.Removed = append(b.Removed, d[:]...)
		case it.rule != nil:
			b.Rules = append(b.Rules, it.rule)
		default:
			b.Digests = append(b.Digests, d[:]...)
			b.Expiries, last = appendExpiry(b.Expiries, it.seconds, last)
		}
	}
}

func appendExpiry(dst []byte, seconds, last int64) (_ []byte, next int64) {
	if seconds == 0 {
		return append(dst, 0), last
	}
	difference := seconds - last
	return binary.AppendUvarint(dst, 1+uint64(difference<<1^difference>>63)), seconds
}

func (h *hub) head() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.version
}

func (h *hub) completed() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.complete
}

func (h *hub) proofNow() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.proof
}
