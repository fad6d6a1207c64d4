package memory_test

import (
	"context"
	"errors"
	"runtime/metrics"
	"testing"
	"time"

	"revocation-adapter/adapter/memory"
)

func TestPercent(t *testing.T) {
	t.Parallel()
	const mb = 1 << 20
	for live, want := range map[uint64]int{0: 400, 10 * mb: 400, 20 * mb: 300, 40 * mb: 100, 42 * mb: 90, 56 * mb: 40, 80 * mb: 30, 1000 * mb: 30} {
		if got := memory.Percent(live); got != want {
			t.Errorf("%d MB live: %d %%, want %d", live/mb, got, want)
		}
	}
}

// While the log is read the percentage is that of reading; then it is another one, and
// in the end that of before.
func TestTune(t *testing.T) {
	before := percent()
	ctx, cancel := context.WithCancel(t.Context())
	complete, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- memory.Tune(ctx, 321, complete) }()
	await(t, func(p int) bool { return p == 321 })
	close(complete)
	await(t, func(p int) bool { return p != 321 && p >= 30 && p <= 400 })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if now := percent(); now != before {
		t.Errorf("%d %% in the end, want %d", now, before)
	}
}

func percent() int {
	p := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(p)
	return int(p[0].Value.Uint64())
}

func await(t *testing.T, is func(int) bool) {
	t.Helper()
	for over := time.After(10 * time.Second); !is(percent()); {
		select {
		case <-over:
			t.Fatalf("it stays at %d %%", percent())
		case <-time.After(time.Millisecond):
		}
	}
}
