// Command chaos breaks what the adapter runs on, for a while, and tells whether
// a revocation was lost.
//
// It starts a NATS cluster of three, three replicas of the adapter, publishers
// that want every event acknowledged, and 50 gateways that fail over, all on
// loopback. A seed decides what is broken when, and what is published. In the
// end all is healed, and package history compares what was acknowledged with
// what every gateway received. It exits with 1 when that differs.
//
// As root on Linux it runs in namespaces of its own, so that no process and no
// mount outlives it. What the machine does not let it break is left out, and
// said so.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// settings are what the caller chose.
type settings struct {
	seed     uint64
	duration time.Duration
	keep     string // where logs are left; "" is nowhere
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, dir, err := parse(os.Args[1:])
	if err == nil {
		if dir == "" {
			err = outside(ctx, s)
		} else {
			err = inside(ctx, s, dir)
		}
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(1) // it has said why
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// parse reads the flags, which the environment may give too. Dir is set where
// this is the process that outside has started.
func parse(args []string) (s settings, dir string, err error) {
	flags := flag.NewFlagSet("chaos", flag.ExitOnError)
	flags.DurationVar(&s.duration, "duration", 3*time.Minute, "how long to break things; also DURATION")
	flags.Uint64Var(&s.seed, "seed", uint64(rand.Uint32()), "decides what is broken when; also SEED")
	flags.StringVar(&s.keep, "keep", "", "directory for the logs of all processes; also KEEP")
	flags.StringVar(&dir, "inside", "", "for itself")
	for name, variable := range map[string]string{"duration": "DURATION", "seed": "SEED", "keep": "KEEP"} {
		if value := os.Getenv(variable); value != "" {
			if err := flags.Set(name, value); err != nil {
				return s, "", fmt.Errorf("%s: %w", variable, err)
			}
		}
	}
	return s, dir, flags.Parse(args)
}

// outside makes a place, runs this program there, and clears up after it.
func outside(ctx context.Context, s settings) (err error) {
	dir, err := os.MkdirTemp("", "chaos")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir), removeGroups(dir)) }()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "-inside", dir, "-duration", s.duration.String(),
		"-seed", strconv.FormatUint(s.seed, 10), "-keep", s.keep)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	isolate(ctx, cmd)
	return cmd.Run()
}

// inside runs, prints what came of it, and fails when that is not good.
func inside(ctx context.Context, s settings, dir string) (err error) {
	if s.keep != "" {
		defer func() { err = errors.Join(err, keepLogs(dir, s.keep)) }()
	}
	fmt.Printf("seed %d, %s\n", s.seed, s.duration)
	r, err := run(ctx, s, dir)
	if err != nil {
		return err
	}
	return r.print(os.Stdout)
}
