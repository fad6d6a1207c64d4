// Command bench measures what the project promises about speed and memory, and
// prints one table: figure, measured, target, verdict.
//
// Servers and load generators are processes of their own, started from this
// binary, so that a server's CPU is its own. What is compared is measured in
// turns in one run, and medians and ratios are what counts: the machine is
// shared. It writes the table as bench.json too.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	role := func(context.Context) error { return orchestrate(ctx, os.Args[1:]) }
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "serve":
			role = func(ctx context.Context) error { return serve(ctx, os.Args[2:]) }
		case "nats":
			role = func(ctx context.Context) error { return natsServer(ctx, os.Args[2:]) }
		case "clients":
			role = clients
		case "enforcers":
			role = enforcers
		case "library":
			role = library
		case "yes":
			role = yes
		case "callers":
			role = callers
		case "claimers":
			role = claimers
		case "revokers":
			role = revokers
		}
	}
	if err := role(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
