package main

import (
	"errors"
	"strconv"
	"time"
)

// errNoTime says what a time may be.
var errNoTime = errors.New("RFC 3339 (2027-01-01T00:00:00Z), seconds, milliseconds")

// parseTime reads RFC 3339, or seconds or milliseconds since the epoch, and
// returns milliseconds. What is below 1e11 is seconds.
func parseTime(text string) (int64, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
		if n < 100_000_000_000 {
			n *= 1000
		}
		return n, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || t.UnixMilli() <= 0 {
		return 0, errNoTime
	}
	return t.UnixMilli(), nil
}
