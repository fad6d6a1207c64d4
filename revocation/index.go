package revocation

import "hash/maphash"

// position is where a record is: a segment's slot and an offset in it. 0 in the
// table means empty, so that positions are stored plus one.
type position uint32

func positionOf(slot, offset uint32) position { return position(slot<<segmentBits | offset) }

func (p position) slot() uint32   { return uint32(p) >> segmentBits }
func (p position) offset() uint32 { return uint32(p) & (segmentSize - 1) }

// maxSlots bounds the segments so that a position fits, 0 being reserved.
const maxSlots = 1<<(32-segmentBits) - 1

// identity is what makes two records the same key's. UUIDs come from outside:
// the seed keeps their author from choosing collisions.
type identity struct {
	id   [16]byte
	form form
}

// sameForm maps the forms that hold a digest to one.
func identityOf(r *record) identity {
	if r.form == formUUID {
		return identity{r.id, formUUID}
	}
	return identity{r.id, formDigest}
}

// index finds a key's newest record: a table with open addressing, linear
// probing and deletion by shifting back, 4 bytes a place. The keys themselves
// are in the segments.
type index struct {
	seed  maphash.Seed
	table []position // a power of two, at most 3/4 full
	used  int
	at    func(position) *record
}

const minTable = 1024

func newIndex(at func(position) *record) index {
	return index{seed: maphash.MakeSeed(), table: make([]position, minTable), at: at}
}

func (x *index) hash(k identity) uint64 {
	return maphash.Bytes(x.seed, k.id[:]) + uint64(k.form)
}

// place returns where k is in the table, or where it would be put.
func (x *index) place(k identity) int {
	mask := len(x.table) - 1
	i := int(x.hash(k)) & mask
	for x.table[i] != 0 && identityOf(x.at(x.table[i]-1)) != k {
		i = (i + 1) & mask
	}
	return i
}

func (x *index) find(k identity) (position, bool) {
	p := x.table[x.place(k)]
	return p - 1, p != 0
}

// swap makes p the place of k and returns where it was before, if it was known.
// The record at p must be written already.
func (x *index) swap(k identity, p position) (old position, known bool) {
	i := x.place(k)
	old, known = x.table[i]-1, x.table[i] != 0
	x.table[i] = p + 1
	if !known {
		x.used++
		if 4*x.used > 3*len(x.table) {
			x.resize(2 * len(x.table))
		}
	}
	return old, known
}

// remove forgets k and closes the gap, so that later keys are still found.
func (x *index) remove(k identity) {
	mask := len(x.table) - 1
	gap := x.place(k)
	if x.table[gap] == 0 {
		return
	}
	x.used--
	for i := (gap + 1) & mask; x.table[i] != 0; i = (i + 1) & mask {
		home := int(x.hash(identityOf(x.at(x.table[i]-1)))) & mask
		if (i-home)&mask >= (i-gap)&mask {
			x.table[gap] = x.table[i]
			gap = i
		}
	}
	x.table[gap] = 0
	if len(x.table) > minTable && 8*x.used < len(x.table) {
		x.resize(len(x.table) / 2)
	}
}

// reserve makes room for n keys, so that the table need not grow on the way.
func (x *index) reserve(n int) {
	size := len(x.table)
	for 4*n > 3*size {
		size *= 2
	}
	if size > len(x.table) {
		x.resize(size)
	}
}

func (x *index) resize(size int) {
	old := x.table
	x.table = make([]position, size)
	for _, p := range old {
		if p != 0 {
			x.table[x.place(identityOf(x.at(p-1)))] = p
		}
	}
}
