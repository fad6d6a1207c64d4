// Command adapter tells API gateways which tokens are revoked.
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

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1 // what was asked for could not be done
	exitUsage       = 2 // the command line or the configuration is wrong
	exitUnreachable = 3 // the hub or the adapter does not answer, or refuses the credentials
	exitNotFound    = 4 // what was asked for does not exist
)

// exitError is an error with the code to leave with.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "adapter:", err)
	}
	os.Exit(exitCode(err))
}

// exitCode is the code of an error. What no command has coded is cobra's own
// complaint about the command line.
func exitCode(err error) int {
	var coded exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &coded):
		return coded.code
	}
	return exitUsage
}

// coded gives every error of the commands below c a code, exitFailed where they
// gave none.
func coded(c *cobra.Command) {
	for _, sub := range c.Commands() {
		coded(sub)
	}
	run := c.RunE
	if run == nil {
		return
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		err := run(c, args)
		var has exitError
		if err == nil || errors.As(err, &has) {
			return err
		}
		return exitError{exitFailed, err}
	}
}

// command is the whole command line.
func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "adapter",
		Short: "Tells API gateways which tokens are revoked",
		Long: `The adapter takes revocations of tokens and API keys from a NATS hub, from the
broker of a WSO2 API Manager or by HTTP, orders them into one log, and serves it
over xDS to every gateway.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration,
3 hub or adapter out of reach or refusing, 4 not found.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return exitError{exitUsage, fmt.Errorf("%w\nSee '%s --help'", err, c.CommandPath())}
	})
	var path string
	root.PersistentFlags().StringVarP(&path, "config", "c", "", "configuration file (default: every setting at its default)")
	settings := &settings{path: &path}
	root.AddCommand(
		runCommand(settings),
		revokeCommand(settings), approveCommand(settings), watchCommand(settings), gatewaysCommand(settings),
		explainCommand(settings), auditsCommand(settings), clientCommand(settings),
		deadLetterCommand(settings), sourcesCommand(settings), hubCommand(settings), configCommand(settings), versionCommand(),
	)
	_ = root.MarkPersistentFlagFilename("config", "toml") // the flag exists
	settings.completeFlags(root)
	for _, c := range root.Commands() {
		if c.HasSubCommands() {
			grouped(c)
		}
	}
	coded(root)
	return root
}

// grouped has a command that only holds others refuse what is none of them: a
// script that misspells one must not be told that it went well.
func grouped(c *cobra.Command) {
	c.Args = usage(func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("unknown command %q for %q", args[0], c.CommandPath())
		}
		return nil
	})
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
}

// usage wraps cobra's complaints about arguments.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return exitError{exitUsage, fmt.Errorf("%w\nSee '%s --help'", err, c.CommandPath())}
		}
		return nil
	}
}
