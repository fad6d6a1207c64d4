//go:build clockfault

package main

import (
	"os"
	"time"
)

// now is a clock that is off by CLOCK_FAULT, such as -5s: a test breaks the
// clocks of some replicas, and nobody else's.
func now() time.Time {
	off, _ := time.ParseDuration(os.Getenv("CLOCK_FAULT")) // none is 0
	return time.Now().Add(off)
}
