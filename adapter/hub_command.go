package main

import (
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"revocation-adapter/messaging"
)

func hubCommand(s *settings) *cobra.Command {
	c := &cobra.Command{
		Use:   "hub",
		Short: "Mend the hub",
	}
	c.AddCommand(hubRebase(s))
	return c
}

func hubRebase(s *settings) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "rebase",
		Short: "Give a log that went back versions beyond all that were shown",
		Long: `Write the revocations that the hub holds into a new log, whose versions are all
beyond those that gateways have seen. It is for a hub whose log went back, for a
backup was restored: adapters refuse new gateways then and say so. What was
revoked since the backup is lost, unless it is published again: do that after.

Running adapters begin again with the new log by themselves, and every gateway
gets the whole set. Events that come meanwhile wait in the hub. The command may
be interrupted, and run again until it ends well.`,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if !yes {
				return exitError{exitUsage, errors.New("every gateway will load the whole set anew: say --yes to do it")}
			}
			return s.withHub(func(conn *nats.Conn) error { return rebase(c, s, conn) })
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do it")
	return c
}

func rebase(c *cobra.Command, s *settings, conn *nats.Conn) error {
	cfg, err := s.load()
	if err != nil {
		return err
	}
	log := logrus.New()
	log.SetOutput(c.ErrOrStderr())
	records, err := messaging.Rebase(c.Context(), conn, hubConfig(cfg, log))
	if err != nil {
		return exitError{exitUnreachable, fmt.Errorf("%w; what is done is kept: run the command again", err)}
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "The log was written anew: %d records. Publish again what was revoked since the backup.\n", records)
	return err
}
