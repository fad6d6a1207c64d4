//go:build !clockfault

package main

import "time"

// now is the adapter's clock.
func now() time.Time { return time.Now() }
