//go:build !linux && !darwin

package messaging

import "math"

// freeBytes is not known here.
func freeBytes(string) (uint64, error) { return math.MaxUint64, nil }
