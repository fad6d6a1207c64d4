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
	var opts messaging.RebaseOptions
	c := &cobra.Command{
		Use:   "rebase",
		Short: "Give a log that went back versions beyond all that were shown",
		Long: `Write the revocations that the hub holds into a new log, whose versions are all
beyond those that gateways have seen. It is for a hub whose log went back, for a
backup was restored: adapters refuse new gateways then and say so. What was
revoked since the backup is lost, unless it is published again: do that after.

Running adapters begin again with the new log by themselves, and every gateway
gets the whole set. Events that come meanwhile wait in the hub. The command may
be interrupted, and run again until it ends well.

Where the hub has records that it cannot read, for its disk is damaged, or that
no adapter understands, nothing is done. Restore a backup, or give those records
up with --drop-unreadable: their tokens are valid again until they are revoked
again.`,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if !yes {
				return exitError{exitUsage, errors.New("every gateway will load the whole set anew: say --yes to do it")}
			}
			return s.withHub(func(conn *nats.Conn) error { return rebase(c, s, conn, opts) })
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do it")
	c.Flags().BoolVar(&opts.DropUnreadable, "drop-unreadable", false, "give up records that cannot be read")
	return c
}

func rebase(c *cobra.Command, s *settings, conn *nats.Conn, opts messaging.RebaseOptions) error {
	cfg, err := s.load()
	if err != nil {
		return err
	}
	log := logrus.New()
	log.SetOutput(c.ErrOrStderr())
	hub, err := hubConfig(cfg, log)
	if err != nil {
		return err
	}
	done, err := messaging.Rebase(c.Context(), conn, hub, opts)
	if errors.Is(err, messaging.ErrRecord) || errors.Is(err, messaging.ErrRecordsLost) {
		return exitError{exitUnreachable, fmt.Errorf("%w; restore a backup, or give them up with --drop-unreadable", err)}
	}
	if err != nil {
		return exitError{exitUnreachable, fmt.Errorf("%w; what is done is kept: run the command again", err)}
	}
	if done.Dropped > 0 {
		if _, err = fmt.Fprintf(c.OutOrStdout(), "%d records could not be read and are given up.\n", done.Dropped); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "The log was written anew: %d records. Publish again what was revoked since the backup.\n", done.Records)
	return err
}
