// Command enforcer answers gateways whether the tokens of a call may pass.
//
// It is package enforcer as a process: for Envoy over gRPC, for nginx, Traefik,
// Caddy and others over HTTP.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes, as the adapter's.
const (
	exitOK     = 0
	exitFailed = 1 // what was asked for could not be done
	exitUsage  = 2 // the command line or the configuration is wrong
)

// failure is an error of a command that was understood.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "enforcer:", err)
	}
	os.Exit(exitCode(err))
}

// exitCode is the code of an error: what is no failure is the fault of whoever
// wrote the command line or the configuration.
func exitCode(err error) int {
	switch failed := (failure{}); {
	case err == nil:
		return exitOK
	case errors.As(err, &failed):
		return exitFailed
	}
	return exitUsage
}

// command is the whole command line.
func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "enforcer",
		Short: "Answers gateways whether the tokens of a call may pass",
		Long: `The enforcer follows the adapter, and answers gateways whether the tokens of a
call may pass: Envoy over gRPC (ext_authz), nginx, Traefik, Caddy and others over
HTTP. Until it knows what is revoked, it is not ready and lets no token pass,
unless set.on_stale says otherwise.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w\nSee '%s --help'", err, c.CommandPath())
	})
	var path string
	root.PersistentFlags().StringVarP(&path, "config", "c", "", "configuration file (default: every setting at its default)")
	root.AddCommand(runCommand(&path), configCommand(&path), versionCommand())
	return root
}

// noArguments is cobra's complaint with a hint.
func noArguments(c *cobra.Command, args []string) error {
	if err := cobra.NoArgs(c, args); err != nil {
		return fmt.Errorf("%w\nSee '%s --help'", err, c.CommandPath())
	}
	return nil
}
