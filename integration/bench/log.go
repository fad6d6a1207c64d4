package main

import (
	"fmt"
	"runtime"
	"time"

	"revocation-adapter/revocation"
)

// measureLog returns the heap of a log of n UUID tokens per token, and the time
// that Since takes for the newest changes: 100 of them, names included.
func measureLog(n int) (bytesPerToken float64, since time.Duration, err error) {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = jti("log", i)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	o := &ours{log: revocation.NewLog(grace)}
	for i, key := range keys {
		if err := o.append(key, i); err != nil {
			return 0, 0, err
		}
	}
	o.log.Publish(o.version)
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(keys)
	bytesPerToken = float64(after.HeapAlloc-before.HeapAlloc) / float64(n)

	var took []time.Duration
	var name []byte
	for range 1001 {
		begin, changes := time.Now(), 0
		for c := range o.log.Snapshot().Since(o.version-100, begin) {
			name = c.AppendName(name[:0])
			changes++
		}
		took = append(took, time.Since(begin))
		if changes != 100 {
			return 0, 0, fmt.Errorf("%d changes, want 100", changes)
		}
	}
	return bytesPerToken, median(took), nil
}
