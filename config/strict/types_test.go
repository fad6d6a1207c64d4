package strict_test

import (
	"testing"
	"time"

	"revocation-adapter/config/strict"
)

func TestURLString(t *testing.T) {
	cases := map[strict.URL]string{
		"":                      "",
		"tls://a":               "tls://a",
		"tls://a:4222":          "tls://a:4222",
		"tls://[::1]:4222":      "tls://[::1]:4222",
		"tls://[::1]":           "tls://[::1]",
		"tls://u:p@a:4222":      "tls://u:********@a:4222",
		"tls://u:@a":            "tls://u:********@a",
		"tls://token@a":         "tls://********@a",
		"tls://@a":              "tls://********@a",
		"u:p@a":                 "u:********@a",
		"@tls://a":              "********@tls://a",
		"tls://u:p@x@a":         "tls://u:********@a",
		"tls://u:********@a":    "tls://u:********@a",
		"tls://********@a:4222": "tls://********@a:4222",
		"tls://u:p@a?q#f":       "tls://u:********@a?********",
	}
	for u, want := range cases {
		if got := u.String(); got != want {
			t.Errorf("%q: got %s, want %s", string(u), got, want)
		}
	}
}

func TestDurationText(t *testing.T) {
	cases := map[time.Duration]string{
		0:                               "0s",
		time.Second:                     "1s",
		90 * time.Second:                "1m30s",
		10 * time.Minute:                "10m",
		time.Hour:                       "1h",
		time.Hour + 10*time.Minute:      "1h10m",
		time.Hour + 10*time.Second:      "1h0m10s",
		2160 * time.Hour:                "2160h",
		1500*time.Millisecond + 1:       "1.500000001s",
		-(time.Hour + 30*time.Minute):   "-1h30m",
		100 * time.Hour:                 "100h",
		20*time.Minute + 30*time.Second: "20m30s",
	}
	for d, want := range cases {
		text, err := strict.Duration(d).MarshalText()
		var back strict.Duration
		if err != nil || string(text) != want || back.UnmarshalText(text) != nil || back != strict.Duration(d) {
			t.Errorf("%s: got %s, read back as %s, %v", d, text, back, err)
		}
	}
}
