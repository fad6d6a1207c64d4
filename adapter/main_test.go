package main

import (
	"errors"
	"strings"
	"testing"
)

func TestParseTime(t *testing.T) {
	for text, want := range map[string]int64{
		"1928175421": 1928175421000, "1928175421481": 1928175421481, "2031-02-06T20:17:01Z": 1928175421000,
	} {
		if got, err := parseTime(text); err != nil || got != want {
			t.Errorf("%s is %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "-1", "tomorrow", "2031-02-06", "1e9"} {
		if got, err := parseTime(text); err == nil || !strings.Contains(err.Error(), "RFC 3339") {
			t.Errorf("%q is %d, %v, want an error that says what is understood", text, got, err)
		}
	}
}

func TestExitCode(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want int
	}{
		"done":                 {nil, exitOK},
		"coded":                {exitError{exitNotFound, errors.New("x")}, exitNotFound},
		"cobra's own complain": {errors.New("unknown command"), exitUsage},
	} {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%s: exit code %d, want %d", name, got, tt.want)
		}
	}
}
