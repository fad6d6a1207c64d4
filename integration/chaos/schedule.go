package main

import (
	"math/rand/v2"
	"time"
)

// kind is what can be broken.
type kind string

const (
	nodeKilled    kind = "NATS node killed"
	nodePaused    kind = "NATS node paused"
	nodeCut       kind = "NATS node cut off"
	nodeFull      kind = "NATS node's disk full"
	replicaKilled kind = "replica killed"
	replicaPaused kind = "replica paused"
	replicaSkewed kind = "replica's clock off"
)

const (
	nodes    = 3
	replicas = 3
)

// planned is one thing to break.
type planned struct {
	kind   kind
	target int // number of the node or replica
	hold   time.Duration
	skew   time.Duration // of replicaSkewed
}

// step is what to break at the same time, after a rest: one node, one replica,
// or one of each.
type step struct {
	rest   time.Duration
	faults []planned
}

// schedule plans for a duration, not counting how long recovery takes. Every
// kind has its turn before one comes again.
func schedule(seed uint64, duration time.Duration) []step {
	random := rand.New(rand.NewPCG(seed, 0))
	onNodes := deck{random: random, all: []kind{nodeKilled, nodePaused, nodeCut, nodeFull}}
	onReplicas := deck{random: random, all: []kind{replicaKilled, replicaPaused, replicaSkewed}}
	var steps []step
	for at := time.Duration(0); ; {
		s := step{rest: between(random, 2*time.Second, 6*time.Second)}
		turn := random.IntN(6)
		if turn < 4 {
			s.faults = append(s.faults, planned{kind: onNodes.draw(), target: random.IntN(nodes), hold: between(random, 3*time.Second, 15*time.Second)})
		}
		if turn > 2 {
			f := planned{kind: onReplicas.draw(), target: random.IntN(replicas), hold: between(random, time.Second, 20*time.Second)}
			if ahead := random.IntN(2) == 0; f.kind == replicaSkewed && ahead {
				f.skew = skew
			} else if f.kind == replicaSkewed {
				f.skew = -skew
			}
			s.faults = append(s.faults, f)
		}
		if s.faults[0].kind == nodeFull {
			s.faults[0].target = fullNode
		}
		if at += s.rest; at >= duration {
			return steps
		}
		steps = append(steps, s)
		at += s.longest()
	}
}

func (s step) longest() (d time.Duration) {
	for _, f := range s.faults {
		d = max(d, f.hold)
	}
	return d
}

func between(random *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(random.Int64N(int64(high-low))).Round(time.Millisecond)
}

// deck gives every kind in random order before it begins anew.
type deck struct {
	random *rand.Rand
	all    []kind
	left   []kind
}

func (d *deck) draw() kind {
	if len(d.left) == 0 {
		d.left = append(d.left, d.all...)
		d.random.Shuffle(len(d.left), func(i, j int) { d.left[i], d.left[j] = d.left[j], d.left[i] })
	}
	k := d.left[0]
	d.left = d.left[1:]
	return k
}
