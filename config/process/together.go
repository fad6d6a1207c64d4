// Package process is the life of a process: parts that run and stop together,
// servers that drain, and what this build is called.
package process

import (
	"cmp"
	"context"
	"errors"

	"golang.org/x/sync/errgroup"
)

// Together runs the parts until one leaves, then ends the others, waits for
// them all and reports the reason of the first. When ctx ended, that is the
// reason.
func Together(ctx context.Context, parts ...func(context.Context) error) error {
	group, inner := errgroup.WithContext(ctx)
	for _, run := range parts {
		group.Go(func() error {
			if err := run(inner); err != nil {
				return err
			}
			return ErrLeft
		})
	}
	err := group.Wait()
	return cmp.Or(ctx.Err(), err)
}

// ErrLeft means that a part left by itself, and named no reason.
var ErrLeft = errors.New("a part of the process left without a reason")
