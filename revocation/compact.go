package revocation

// compactEvery is how many segments are appended between two looks at what is
// dead; a power of two.
const compactEvery = 64

// compact rewrites the runs of segments in which at least half of the records
// are dead. Snapshots keep the old segments until the next is published. The
// tail is left alone: it is still being written.
func (l *Log) compact(of *series) {
	if len(of.order) < 2 || !of.worthCompacting() {
		return
	}
	full, tail := of.order[:len(of.order)-1], of.order[len(of.order)-1]
	kept := make([]*segment, 0, len(of.order))
	for i := 0; i < len(full); {
		run, live := sparseRun(full[i:])
		if run == 0 {
			kept = append(kept, full[i])
			i++
			continue
		}
		if live > 0 {
			packed, err := l.pack(full[i:i+run], live)
			if err != nil { // no slot is free: what is there still serves
				kept = append(kept, full[i:]...)
				break
			}
			kept = append(kept, packed)
		}
		l.release(full[i : i+run])
		i += run
	}
	of.order = append(kept, tail)
}

func (of *series) worthCompacting() bool {
	for _, s := range of.order[:len(of.order)-1] {
		if 2*s.dead >= s.n {
			return true
		}
	}
	return false
}

// sparseRun returns how many of the first segments fit into one, and their live
// records; 0 where the first is not half dead.
func sparseRun(segs []*segment) (run, live int) {
	for _, s := range segs {
		if 2*s.dead < s.n || live+s.n-s.dead > segmentSize {
			break
		}
		live += s.n - s.dead
		run++
	}
	return run, live
}

// pack copies the live records of run into one segment of exactly their number.
func (l *Log) pack(run []*segment, live int) (*segment, error) {
	packed, err := l.open(live)
	if err != nil {
		return nil, err
	}
	for _, s := range run {
		for i := range s.n {
			r := &s.recs[i]
			if !r.newest() {
				continue
			}
			offset := packed.add(r, s.text(r))
			l.index.swap(identityOf(r), positionOf(packed.slot, offset))
		}
	}
	return packed, nil
}

func (l *Log) release(segs []*segment) {
	for _, s := range segs {
		l.slots[s.slot] = nil
		l.free = append(l.free, s.slot)
	}
}
