package main

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"
)

// together runs the parts until one leaves, then ends the others, waits for
// them all and reports the reason of the first. A part that left because ctx
// ended is no reason.
func together(ctx context.Context, parts ...func(context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range parts {
		group.Go(func() error {
			if err := run(ctx); err != nil {
				return err
			}
			return errLeft
		})
	}
	if err := group.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

var errLeft = errors.New("a part of the adapter left without a reason")
