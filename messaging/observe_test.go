package messaging_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

// clock is the time that a hub is given: the real one, moved ahead.
type clock struct{ ahead atomic.Int64 }

func (c *clock) Now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// logbook remembers what was logged.
type logbook struct {
	mu      sync.Mutex
	entries []*logrus.Entry
}

func newLogbook(t *testing.T) (*logbook, *logrus.Logger) {
	t.Helper()
	b, l := &logbook{}, logrus.New()
	l.SetOutput(b)
	l.SetLevel(logrus.TraceLevel)
	l.SetReportCaller(true)
	l.AddHook(b)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log:\n%s", b.text())
		}
	})
	return b, l
}

// Write implements io.Writer and prints nothing.
func (b *logbook) Write(p []byte) (int, error) { return len(p), nil }

// Levels implements logrus.Hook.
func (b *logbook) Levels() []logrus.Level { return logrus.AllLevels }

// Fire implements logrus.Hook.
func (b *logbook) Fire(e *logrus.Entry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries = append(b.entries, e)
	return nil
}

// text is all of it, fields included.
func (b *logbook) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all strings.Builder
	for _, e := range b.entries {
		fmt.Fprintln(&all, e.Level, e.Message, e.Data)
	}
	return all.String()
}

// find returns the entries of a level whose message begins with prefix.
func (b *logbook) find(level logrus.Level, prefix string) []*logrus.Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []*logrus.Entry
	for _, e := range b.entries {
		if e.Level == level && strings.HasPrefix(e.Message, prefix) {
			found = append(found, e)
		}
	}
	return found
}

// metric sums the samples of a name that have these labels, given as name,
// value, name, value.
func (r *replica) metric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	families, err := r.reg.Gather()
	fatal(t, err)
	sum := 0.0
	for _, f := range families {
		if f.GetName() != "revocation_adapter_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			has := map[string]string{}
			for _, l := range m.GetLabel() {
				has[l.GetName()] = l.GetValue()
			}
			if matches(has, labels) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

func matches(has map[string]string, labels []string) bool {
	for i := 0; i < len(labels); i += 2 {
		if has[labels[i]] != labels[i+1] {
			return false
		}
	}
	return true
}
