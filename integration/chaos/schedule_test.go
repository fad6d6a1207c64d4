package main

import (
	"reflect"
	"testing"
	"time"
)

func TestSchedule(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		steps := schedule(seed, 5*time.Minute)
		if !reflect.DeepEqual(steps, schedule(seed, 5*time.Minute)) {
			t.Fatalf("seed %d gives two schedules", seed)
		}
		total, seen := time.Duration(0), map[kind]int{}
		for _, s := range steps {
			total += s.rest
			if total >= 5*time.Minute {
				t.Errorf("seed %d: a fault begins at %s", seed, total)
			}
			total += s.longest()
			atOnce := map[bool]int{}
			for _, f := range s.faults {
				seen[f.kind]++
				atOnce[f.kind.ofReplica()]++
				if f.kind == nodeFull && f.target != fullNode {
					t.Errorf("seed %d fills the disk of node %d", seed, f.target)
				}
			}
			if len(s.faults) == 0 || atOnce[true] > 1 || atOnce[false] > 1 {
				t.Errorf("seed %d breaks %v at the same time", seed, s.faults)
			}
		}
		if len(seen) != 7 {
			t.Errorf("seed %d: in 5 minutes only %v", seed, seen)
		}
	}
}

// A short run is one that a longer one begins with.
func TestScheduleGrows(t *testing.T) {
	t.Parallel()
	short, long := schedule(7, time.Minute), schedule(7, 3*time.Minute)
	if len(short) == 0 || !reflect.DeepEqual(short, long[:len(short)]) {
		t.Errorf("%v does not begin with %v", long, short)
	}
}
