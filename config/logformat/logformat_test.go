package logformat

import (
	"bytes"
	"errors"
	"regexp"
	"testing"

	"github.com/sirupsen/logrus"
)

type caller struct{ log logrus.FieldLogger }

func (c *caller) fromMethod()  { c.log.Info("said") }
func (c *caller) fromClosure() { func() { c.log.Info("said") }() }

func TestLogFormat(t *testing.T) {
	var out bytes.Buffer
	log, err := New(&out, "debug")
	if err != nil {
		t.Fatal(err)
	}
	c := &caller{log}
	tests := []struct {
		name string
		say  func()
		want string // after the time
	}{
		{"a method, without its receiver", c.fromMethod, `INFO \[logformat_test\.go:\d+\] - \[logformat\.fromMethod\] \[-\] said \[\]`},
		{"a closure, as its function", c.fromClosure, `INFO \[logformat_test\.go:\d+\] - \[logformat\.fromClosure\] \[-\] said \[\]`},
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
