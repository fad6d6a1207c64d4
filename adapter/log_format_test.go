package main

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
)

type caller struct{ log logrus.FieldLogger }

func (c *caller) fromMethod()  { c.log.Info("said") }
func (c *caller) fromClosure() { func() { c.log.Info("said") }() }

func TestLogFormat(t *testing.T) {
	var out bytes.Buffer
	log, err := newLogger(&out, "debug")
	if err != nil {
		t.Fatal(err)
	}
	c := &caller{log}
	tests := []struct {
		name string
		say  func()
		want string // after the time
	}{
		{"a method, without its receiver", c.fromMethod, `INFO \[log_format_test\.go:\d+\] - \[adapter\.fromMethod\] \[-\] said \[\]`},
		{"a closure, as its function", c.fromClosure, `INFO \[log_format_test\.go:\d+\] - \[adapter\.fromClosure\] \[-\] said \[\]`},
		{"fields in order", func() { log.WithFields(logrus.Fields{"b": 2, "a": "x y"}).Warn("said") }, `WARN .* said \[a="x y" b=2\]`},
		{"an error", func() { log.WithError(errors.New("no")).Error("said") }, `ERRO .* said \[error=no\]`},
		{"debug", func() { log.Debug("said") }, `DEBG .* said \[\]`},
		{"what could begin a line of its own", func() { log.WithField("id", "a\n2021 INFO").Info("one\r\ntwo") }, `INFO .* one\\r\\ntwo \[id="a\\n2021 INFO"\]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out.Reset()
			tt.say()
			want := regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ` + tt.want + "\n$")
			if !want.MatchString(out.String()) {
				t.Errorf("logged %q, want %s", out.String(), want)
			}
		})
	}
}

func TestFunctionName(t *testing.T) {
	for full, want := range map[string]string{
		"revocation-adapter/messaging.(*Listener).handleTokenRevocation": "messaging.handleTokenRevocation",
		"revocation-adapter/messaging.(*Listener).Run.func1":             "messaging.Run",
		"revocation-adapter/xds.(*Server).UpdateEnforcerRevokedTokens":   "xds.UpdateEnforcerRevokedTokens",
		"main.run":                          "main.run",
		"main.(*replica).followHub.func2.1": "main.followHub",
		"revocation-adapter/messaging.serverLog.Noticef":  "messaging.Noticef",
		"revocation-adapter/messaging.(*Hub).Run.gowrap1": "messaging.Run",
	} {
		if got := functionName(full); got != want {
			t.Errorf("%s is printed as %s, want %s", full, got, want)
		}
	}
}

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

func TestTogetherReportsTheFirstReason(t *testing.T) {
	broke := errors.New("broke")
	waits := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	if err := together(t.Context(), waits, func(context.Context) error { return broke }, waits); !errors.Is(err, broke) {
		t.Errorf("the reason is %v, want %v", err, broke)
	}
	if err := together(t.Context(), waits, func(context.Context) error { return nil }); !errors.Is(err, errLeft) {
		t.Errorf("a part left without an error: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := together(ctx, waits, waits); !errors.Is(err, context.Canceled) {
		t.Errorf("told to stop: %v", err)
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
