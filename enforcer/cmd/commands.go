package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"revocation-adapter/config/logformat"
	"revocation-adapter/config/process"
	"revocation-adapter/enforcer/cmd/config"
)

func runCommand(path *string) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the enforcer until it is told to stop",
		Long: `Run the enforcer. It logs to standard error, and stops on SIGINT or SIGTERM: it
is not ready from then on, takes no more connections, and answers the calls that
it has, for four seconds at most.`,
		Example: "  enforcer run --config resources/conf/enforcer.toml",
		Args:    noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := load(*path)
			if err != nil {
				return err
			}
			log, err := logformat.New(os.Stderr, cfg.Log.Level)
			if err != nil {
				return err
			}
			return run(c.Context(), cfg, log)
		},
	}
}

func configCommand(path *string) *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Look at the configuration"}
	c.AddCommand(&cobra.Command{
		Use:     "check",
		Aliases: []string{"show"},
		Short:   "Check the configuration file and print what is in effect, secrets masked",
		Example: "  enforcer config check --config resources/conf/enforcer.toml",
		Args:    noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := load(*path)
			if err != nil {
				return err
			}
			text, err := cfg.Effective()
			if err != nil {
				return failure{err}
			}
			if _, err := c.OutOrStdout().Write(text); err != nil {
				return failure{err}
			}
			return nil
		},
	})
	return c
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(c.OutOrStdout(), "enforcer %s (%s, %s/%s)\n",
				process.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			if err != nil {
				return failure{err}
			}
			return nil
		},
	}
}

// load reads the file, or takes the defaults where none is named.
func load(path string) (config.Config, error) {
	if path == "" {
		return config.Default(), nil
	}
	return config.Load(path)
}
