package main

import (
	"cmp"
	"context"
	"errors"

	"golang.org/x/sync/errgroup"
)

// together runs the parts until one leaves, then ends the others, waits for
// them all and reports the reason of the first. When ctx ended, that is the
// reason.
func together(ctx context.Context, parts ...func(context.Context) error) error {
	group, inner := errgroup.WithContext(ctx)
	for _, run := range parts {
		group.Go(func() error {
			if err := run(inner); err != nil {
				return err
			}
			return errLeft
		})
	}
	err := group.Wait()
	return cmp.Or(ctx.Err(), err)
}

var errLeft = errors.New("a part of the adapter left without a reason")
