package enforcer

import (
	"encoding/binary"
	"iter"
	"math/bits"
	"slices"

	"revocation-adapter/revocation"
)

// A shard that is copied because one digest comes or goes should fit into a
// cache, and a directory of all shards should stay small beside them.
const (
	fullShard   = 512 // entries of an average shard above which there are more shards
	sparseShard = 128 // and below which there are fewer
	maxBits     = 20  // of a digest that choose its shard
)

// joinable is what is kept of a digest. Joined with what was known before, it
// never refuses less than either.
type joinable[P any] interface {
	comparable
	join(P) P
}

// entry is flat memory without pointers: the garbage collector does not look
// into a shard.
type entry[P joinable[P]] struct {
	digest revocation.Digest
	value  P
}

// shards is an immutable map by digest: sorted shards, chosen by the first bits.
// Digests are uniform, so that shards are of about one size, and where a digest
// is in one can be guessed from its value.
type shards[P joinable[P]] struct {
	bits  int
	dir   []*shard[P] // 1 << bits; nil: nothing yet
	count int
}

// shard is entries in the order of their digests. Most digests that are looked
// for are not there: a filter tells so of nearly all of them, out of little memory,
// for which the processor waits less than for the entries.
type shard[P joinable[P]] struct {
	entries []entry[P]
	_       [32]byte // with the eight that Go puts before what is large and has pointers, the filter begins a line
	filter  bloom
}

func (s *shards[P]) find(d revocation.Digest) (value P, found bool) {
	if s.count == 0 {
		return value, false
	}
	in := s.dir[shardOf(&d, s.bits)]
	k := keyOf(&d)
	if in == nil || !in.filter.mayHold(k) {
		return value, false
	}
	if i := search(in.entries, k, s.bits); i < len(in.entries) && in.entries[i].digest == d {
		return in.entries[i].value, true
	}
	return value, false
}

// at are the entries of a shard.
func (s *shards[P]) at(i int) []entry[P] {
	if s.dir[i] == nil {
		return nil
	}
	return s.dir[i].entries
}

// all yields the entries of all shards, one shard after the other.
func (s *shards[P]) all() iter.Seq[[]entry[P]] {
	return func(yield func([]entry[P]) bool) {
		for i := range s.dir {
			if !yield(s.at(i)) {
				return
			}
		}
	}
}

// key is a digest as two numbers, in whose order digests are sorted.
type key struct{ high, low uint64 }

func keyOf(d *revocation.Digest) key {
	return key{binary.BigEndian.Uint64(d[:8]), binary.BigEndian.Uint64(d[8:])}
}

// after says whether d comes before k.
func (k key) after(d *revocation.Digest) bool {
	if high := binary.BigEndian.Uint64(d[:8]); high != k.high {
		return high < k.high
	}
	return binary.BigEndian.Uint64(d[8:]) < k.low
}

// shardOf is the first bits of d as a number. Shifted by 64, it is 0.
func shardOf(d *revocation.Digest, bits int) int {
	return int(binary.BigEndian.Uint64(d[:8]) >> (64 - bits))
}

func compareDigests(a, b *revocation.Digest) int {
	switch k := keyOf(b); {
	case k.after(a):
		return -1
	case *a == *b:
		return 0
	}
	return 1
}

// search returns where k is, or would be. It begins where a uniform digest would
// be, and doubles its steps from there: digests that somebody chose cost it twice
// the logarithm of their number, never more.
func search[P joinable[P]](shard []entry[P], k key, bits int) int {
	guess := int((k.high << bits >> 32) * uint64(len(shard)) >> 32)
	low, high := 0, len(shard) // the place is in low..high
	if guess < high && k.after(&shard[guess].digest) {
		low = guess + 1
		for step := 2; low+step < high; step *= 2 {
			if !k.after(&shard[low+step].digest) {
				high = low + step
				break
			}
			low += step + 1
		}
	} else {
		high = min(guess, high)
		for step := 2; high-step >= 0; step *= 2 {
			if k.after(&shard[high-step].digest) {
				low = high - step + 1
				break
			}
			high -= step
		}
	}
	return halve(shard, k, low, high)
}

func halve[P joinable[P]](shard []entry[P], k key, low, high int) int {
	for low < high {
		middle := int(uint(low+high) / 2)
		if k.after(&shard[middle].digest) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// normalize sorts entries and joins those of one digest.
func normalize[P joinable[P]](entries []entry[P]) []entry[P] {
	entries = sorted(entries)
	n := 0
	for i := range entries {
		if n > 0 && entries[n-1].digest == entries[i].digest {
			entries[n-1].value = entries[n-1].value.join(entries[i].value)
			continue
		}
		entries[n] = entries[i]
		n++
	}
	return entries[:n]
}

// sorted returns entries in the order of their digests. As these are uniform, it
// deals them out to buckets of a few, and sorts each.
func sorted[P joinable[P]](entries []entry[P]) []entry[P] {
	first := max(0, bits.Len(uint(len(entries)))-3)
	ends := make([]int, 1<<first)
	for i := range entries {
		ends[shardOf(&entries[i].digest, first)]++
	}
	for i := 1; i < len(ends); i++ {
		ends[i] += ends[i-1]
	}
	dealt := make([]entry[P], len(entries))
	for i := len(entries) - 1; i >= 0; i-- {
		at := shardOf(&entries[i].digest, first)
		ends[at]--
		dealt[ends[at]] = entries[i]
	}
	begins := append(ends, len(entries)) // what ended ends has come to begin
	for i := range begins[1:] {
		slices.SortFunc(dealt[begins[i]:begins[i+1]], compareEntries[P])
	}
	return dealt
}

func compareEntries[P joinable[P]](a, b entry[P]) int { return compareDigests(&a.digest, &b.digest) }

// with returns s with adds, which are normalized, joined to it. Shards that no
// add is of are shared with s.
func (s shards[P]) with(adds []entry[P]) shards[P] {
	if len(adds) == 0 {
		return s
	}
	s = s.sized(s.count + len(adds))
	s.dir = slices.Clone(s.dir)
	var scratch []entry[P]
	for len(adds) > 0 {
		at := shardOf(&adds[0].digest, s.bits)
		n := 1
		for n < len(adds) && shardOf(&adds[n].digest, s.bits) == at {
			n++
		}
		scratch = merge(scratch[:0], s.at(at), adds[:n])
		s.count += len(scratch) - len(s.at(at))
		s.dir[at] = exact(scratch)
		adds = adds[n:]
	}
	return s
}

// merge appends what is in old, in adds or in both to dst.
func merge[P joinable[P]](dst, old, adds []entry[P]) []entry[P] {
	for _, add := range adds {
		n, k := 0, keyOf(&add.digest)
		for n < len(old) && k.after(&old[n].digest) {
			n++
		}
		dst = append(dst, old[:n]...)
		old = old[n:]
		if len(old) > 0 && old[0].digest == add.digest {
			add.value = add.value.join(old[0].value)
			old = old[1:]
		}
		dst = append(dst, add)
	}
	return append(dst, old...)
}

// exact copies entries into a shard, in no more memory than they need.
func exact[P joinable[P]](entries []entry[P]) *shard[P] {
	if len(entries) == 0 {
		return nil
	}
	own := &shard[P]{entries: make([]entry[P], len(entries))}
	copy(own.entries, entries)
	for i := range own.entries {
		own.filter.add(keyOf(&own.entries[i].digest))
	}
	return own
}

// without returns s without the digests removed, which are sorted.
func (s shards[P]) without(removed []revocation.Digest) shards[P] {
	if len(removed) == 0 || s.count == 0 {
		return s
	}
	s.dir = slices.Clone(s.dir)
	var scratch []entry[P]
	for len(removed) > 0 {
		at := shardOf(&removed[0], s.bits)
		n := 1
		for n < len(removed) && shardOf(&removed[n], s.bits) == at {
			n++
		}
		scratch = subtract(scratch[:0], s.at(at), removed[:n])
		if gone := len(s.at(at)) - len(scratch); gone > 0 {
			s.count -= gone
			s.dir[at] = exact(scratch)
		}
		removed = removed[n:]
	}
	return s.sized(s.count)
}

// subtract appends to dst what of old is not removed.
func subtract[P joinable[P]](dst, old []entry[P], removed []revocation.Digest) []entry[P] {
	for i := range old {
		for len(removed) > 0 && compareDigests(&removed[0], &old[i].digest) < 0 {
			removed = removed[1:]
		}
		if len(removed) == 0 || removed[0] != old[i].digest {
			dst = append(dst, old[i])
		}
	}
	return dst
}

// purged returns s without what is gone; s itself, if nothing is.
func (s shards[P]) purged(gone func(P) bool) shards[P] {
	copied := false
	var scratch []entry[P]
	for at := range s.dir {
		shard := s.at(at)
		scratch = scratch[:0]
		for i := range shard {
			if !gone(shard[i].value) {
				scratch = append(scratch, shard[i])
			}
		}
		if len(scratch) == len(shard) {
			continue
		}
		if !copied {
			s.dir, copied = slices.Clone(s.dir), true
		}
		s.count -= len(shard) - len(scratch)
		s.dir[at] = exact(scratch)
	}
	return s.sized(s.count)
}

// sized returns s with as many shards as n entries want. Every shard is copied
// then: a part of a shard would keep the whole in memory.
func (s shards[P]) sized(n int) shards[P] {
	bits := s.bits
	for n > fullShard<<bits && bits < maxBits {
		bits++
	}
	for n < sparseShard<<bits && bits > 0 {
		bits--
	}
	switch {
	case s.dir == nil:
		return shards[P]{bits: bits, dir: make([]*shard[P], 1<<bits)}
	case bits == s.bits:
		return s
	}
	dir := make([]*shard[P], 1<<bits)
	scratch := make([]entry[P], 0, fullShard)
	for i := range dir {
		scratch = s.appendShard(scratch[:0], i, bits)
		dir[i] = exact(scratch)
	}
	return shards[P]{bits: bits, dir: dir, count: s.count}
}

// appendShard appends what the shard at would hold if bits chose it.
func (s *shards[P]) appendShard(dst []entry[P], at, bits int) []entry[P] {
	if bits < s.bits { // several of ours
		for i := range 1 << (s.bits - bits) {
			dst = append(dst, s.at(at<<(s.bits-bits)+i)...)
		}
		return dst
	}
	shard := s.at(at >> (bits - s.bits))
	first := key{high: uint64(at) << (64 - bits)}
	for i := search(shard, first, s.bits); i < len(shard) && shardOf(&shard[i].digest, bits) == at; i++ {
		dst = append(dst, shard[i])
	}
	return dst
}
