// Package memory decides how much garbage may wait to be collected in the process
// that serves revocations.
package memory

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How much garbage may collect, in percent of what lives. While the log is read
// next to nothing lives, and there is much of it; more lives where the hub reads
// its store in the same process. Afterwards a million records live, without a
// pointer for the collector to follow, so that it may come often.
const (
	Reading         = 400
	ReadingEmbedded = 200
	serving         = 30
	step            = 10
)

// Where little lives, some garbage may collect all the same: it would be collected
// ten times a second otherwise.
const (
	heapGoal  = 80 << 20 // bytes, garbage included, that are nothing to save
	lookEvery = 250 * time.Millisecond
)

// Tune lets garbage collect as reading says until complete is closed, and then as
// suits what lives, until ctx ends.
func Tune(ctx context.Context, reading int, complete <-chan struct{}) error {
	defer debug.SetGCPercent(debug.SetGCPercent(reading))
	select {
	case <-complete:
		debug.FreeOSMemory()
	case <-ctx.Done():
		return ctx.Err()
	}
	again := time.NewTicker(lookEvery)
	defer again.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for set := 0; ; {
		metrics.Read(live)
		if p := Percent(live[0].Value.Uint64()); p != set { // to set it stops all that runs
			set = p
			debug.SetGCPercent(p)
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Percent is how much garbage may collect, in percent of so many bytes that live.
func Percent(live uint64) int {
	live = max(1, live)
	room := (max(live, heapGoal) - live) * 100 / live / step * step
	return int(min(Reading, max(serving, room)))
}
