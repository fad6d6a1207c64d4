// Command demo shows the whole path of a call: nginx asks the enforcer, the
// enforcer follows the adapter, the adapter's hub is told what is revoked. It
// prints each step with what it took, and leaves with 1 when one is not as it
// must be. It needs Go and nginx, and takes half a minute.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	err := run(ctx)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "revocation-demo")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	fmt.Println("Building and starting a hub with its adapter, an enforcer, nginx and an API …")
	p, err := open(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	for _, step := range []struct {
		title string
		run   func(context.Context, *path) error
	}{
		{"An access token", accessToken},
		{"An API key", apiKey},
		{"A one-time token", oneTime},
		{"The adapter is stopped, and started again", stopped},
		{"The adapter is killed, and started again", killed},
		{"The enforcer is restarted while no adapter is there", alone},
	} {
		fmt.Printf("\n%s\n", step.title)
		if err := step.run(ctx, p); err != nil {
			return fmt.Errorf("%s: %w\n%s", step.title, err, p.logs())
		}
	}
	fmt.Println("\nEvery step was as it must be.")
	return nil
}
