package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"revocation-adapter/config/process"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(c.OutOrStdout(), "revocation-adapter %s (%s, %s/%s)\n",
				process.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
