package enforcer

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"revocation-adapter/revocation"
)

// randomDigest is uniform, or one that somebody chose: many begin alike.
func randomDigest(rng *rand.Rand, space uint64) (d revocation.Digest) {
	high, low := rng.Uint64N(space)*0x9e3779b97f4a7c15, rng.Uint64N(3)
	switch rng.IntN(4) {
	case 0:
		high, low = 0xabcdef<<40, rng.Uint64N(space)
	case 1: // in any block of a filter
		low *= 0x9e3779b97f4a7c15
	}
	binary.BigEndian.PutUint64(d[:8], high)
	binary.BigEndian.PutUint64(d[8:], low)
	return d
}

// Whatever comes and goes, a set says what a map says; and what it was before
// stays as it was.
func TestShardsAreAMap(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			var s, before shards[until]
			model, was := map[revocation.Digest]until{}, map[revocation.Digest]until{}
			space := []uint64{50, 3000, 1 << 40}[seed%3]
			for range 40 {
				if rng.IntN(5) == 0 {
					before, was = s, maps.Clone(model)
				}
				s = mutate(rng, s, model, space)
				compareShards(t, &s, model, space, rng)
			}
			compareShards(t, &before, was, space, rng)
		})
	}
}

func mutate(rng *rand.Rand, s shards[until], model map[revocation.Digest]until, space uint64) shards[until] {
	n := []int{1, 10, 3000}[rng.IntN(3)]
	switch rng.IntN(4) {
	case 0:
		removed := slices.Collect(maps.Keys(model))[:rng.IntN(len(model)+1)]
		removed = append(removed, randomDigest(rng, space), revocation.Digest{})
		for _, d := range removed {
			delete(model, d)
		}
		slices.SortFunc(removed, func(a, b revocation.Digest) int { return compareDigests(&a, &b) })
		return s.without(removed)
	case 1:
		limit := until(rng.IntN(1000))
		if rng.IntN(2) == 0 {
			limit = 0
		}
		maps.DeleteFunc(model, func(_ revocation.Digest, u until) bool { return u < limit })
		return s.purged(func(u until) bool { return u < limit })
	}
	adds := make([]entry[until], n)
	for i := range adds {
		adds[i] = entry[until]{randomDigest(rng, space), until(rng.IntN(1000))}
		model[adds[i].digest] = max(model[adds[i].digest], adds[i].value)
	}
	return s.with(normalize(adds))
}

func compareShards(t *testing.T, s *shards[until], model map[revocation.Digest]until, space uint64, rng *rand.Rand) {
	t.Helper()
	if s.count != len(model) {
		t.Fatalf("%d entries, want %d", s.count, len(model))
	}
	for d, want := range model {
		if u, found := s.find(d); !found || u != want {
			t.Fatalf("%x: %d, %v, want %d", d, u, found, want)
		}
	}
	for range 100 {
		d := randomDigest(rng, space)
		want, known := model[d]
		if u, found := s.find(d); found != known || u != want {
			t.Fatalf("%x: %d, %v, want %d, %v", d, u, found, want, known)
		}
	}
	held := 0
	for at := range s.dir {
		shard := s.at(at)
		held += len(shard)
		for i := range shard {
			if !s.dir[at].filter.mayHold(keyOf(&shard[i].digest)) || shardOf(&shard[i].digest, s.bits) != at || i > 0 && compareEntries(shard[i-1], shard[i]) >= 0 {
				t.Fatalf("%x is at %d of shard %d", shard[i].digest, i, at)
			}
		}
	}
	if held != s.count || len(s.dir) > max(1, s.count/sparseShard) && len(s.dir) > 1 {
		t.Fatalf("%d entries in %d shards, %d counted", held, len(s.dir), s.count)
	}
}

// Chosen digests make a lookup no slower than a search by halves would be, but
// for a factor of two.
func TestChosenDigests(t *testing.T) {
	for _, n := range []int{1, 2, 511, 5000, 100_000} {
		shard := make([]entry[until], n)
		for i := range shard { // all at one end of where they are looked for
			binary.BigEndian.PutUint64(shard[i].digest[8:], uint64(i))
		}
		for _, bits := range []int{0, 7} {
			for i := range shard {
				if got := search(shard, keyOf(&shard[i].digest), bits); got != i {
					t.Fatalf("of %d, %d is found at %d", n, i, got)
				}
			}
		}
	}
}

// A filter never misses what was added, and seldom sees what was not.
func TestBloom(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	for _, c := range []struct {
		added  int
		seldom float64 // of others
	}{{0, 0}, {1, 0.0001}, {128, 0.002}, {fullShard, 0.03}, {5000, 1}} {
		var b bloom
		added := make([]key, c.added)
		for i := range added {
			added[i] = key{rng.Uint64(), rng.Uint64()}
			b.add(added[i])
		}
		for _, k := range added {
			if !b.mayHold(k) {
				t.Fatalf("of %d it misses %x", c.added, k)
			}
		}
		const others = 100_000
		seen := 0
		for range others {
			if b.mayHold(key{rng.Uint64(), rng.Uint64()}) {
				seen++
			}
		}
		if float64(seen) > c.seldom*others {
			t.Errorf("with %d it sees %d of %d others", c.added, seen, others)
		}
	}
}

// A lookup waits for one line of the caches, wherever Go puts a shard.
func TestFilterBeginsALine(t *testing.T) {
	for range 100 {
		tokens, rules := exact(make([]entry[until], 1)), exact(make([]entry[watermark], 1))
		for _, at := range []uintptr{uintptr(unsafe.Pointer(&tokens.filter)), uintptr(unsafe.Pointer(&rules.filter))} {
			if unsafe.Sizeof(at) == 8 && at%64 != 0 {
				t.Fatalf("a filter begins %d bytes into a line", at%64)
			}
		}
	}
}

// BenchmarkFindChosen looks for digests that are all at one end of a shard of a
// million.
func BenchmarkFindChosen(b *testing.B) {
	shard := make([]entry[until], 1_000_000)
	for i := range shard {
		binary.BigEndian.PutUint64(shard[i].digest[8:], uint64(i))
	}
	i := 0
	for b.Loop() {
		i = (i + 7919) % len(shard)
		if search(shard, keyOf(&shard[i].digest), 0) != i {
			b.Fatal(i)
		}
	}
}

// Whatever it has grown from, and shrunk from, a set takes no more than 32 bytes a
// token: 20 of its own, 1 to 4 of a filter, what slices take, and what allocations are rounded up by.
func TestMemory(t *testing.T) {
	const roundedUp = 1.19 // between the two of Go's size classes that are farthest apart here
	rng := rand.New(rand.NewPCG(3, 3))
	var s shards[until]
	check := func() {
		t.Helper()
		held := 8 * len(s.dir)
		for _, in := range s.dir {
			if in != nil {
				held += 20*cap(in.entries) + int(unsafe.Sizeof(*in))
			}
		}
		if perToken := float64(held) * roundedUp / float64(s.count); s.count > 1000 && perToken > 32 {
			t.Fatalf("%.1f bytes a token of %d", perToken, s.count)
		}
	}
	for s.count < 150_000 {
		adds := make([]entry[until], 1+rng.IntN(5000))
		for i := range adds {
			binary.BigEndian.PutUint64(adds[i].digest[:], rng.Uint64())
			adds[i].value = until(rng.IntN(1000))
		}
		s = s.with(normalize(adds))
		check()
	}
	for limit := until(0); s.count > 1000; limit += 20 {
		s = s.purged(func(u until) bool { return u < limit })
		check()
	}
}
