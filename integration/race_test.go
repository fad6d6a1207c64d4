//go:build race

package integration_test

// raceEnabled builds the adapter with the race detector too.
const raceEnabled = true
