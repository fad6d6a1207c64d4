package process_test

import (
	"context"
	"errors"
	"testing"

	"revocation-adapter/config/process"
)

func TestTogetherReportsTheFirstReason(t *testing.T) {
	broke := errors.New("broke")
	waits := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	if err := process.Together(t.Context(), waits, func(context.Context) error { return broke }, waits); !errors.Is(err, broke) {
		t.Errorf("the reason is %v, want %v", err, broke)
	}
	if err := process.Together(t.Context(), waits, func(context.Context) error { return nil }); !errors.Is(err, process.ErrLeft) {
		t.Errorf("a part left without an error: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := process.Together(ctx, waits, waits); !errors.Is(err, context.Canceled) {
		t.Errorf("told to stop: %v", err)
	}
}
