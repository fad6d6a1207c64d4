package enforcer

// bloom is a Bloom filter in blocks: a digest sets bits of one block only, so that
// the processor waits for one line of its caches. Digests are uniform, so that their
// own bits take the place of hashes; whoever chooses digests makes it useless, and
// nothing worse (F. Putze, P. Sanders, J. Singler: Cache-, Hash- and Space-Efficient
// Bloom Filters, 2007). Beside a full shard one in forty that is not there seems to be.
type bloom [bloomBlocks][blockWords]uint64

const (
	bloomBlocks = 8
	blockWords  = 8 // 64 bytes, a line of a cache
)

func (b *bloom) add(k key) {
	block := k.block()
	for _, at := range k.bits() {
		b[block][at/64] |= 1 << (at % 64)
	}
}

// mayHold says false only of digests that were not added.
func (b *bloom) mayHold(k key) bool {
	block := &b[k.block()]
	for _, at := range k.bits() {
		if block[at/64]&(1<<(at%64)) == 0 {
			return false
		}
	}
	return true
}

func (k key) block() uint64 { return k.low >> 61 }

// bits are four bits of a block, by bits of the digest that choose neither its block
// nor its shard.
func (k key) bits() [4]uint64 {
	return [4]uint64{k.low & 511, k.low >> 9 & 511, k.low >> 18 & 511, k.low >> 27 & 511}
}
