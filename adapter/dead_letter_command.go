package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"revocation-adapter/messaging"
)

func deadLetterCommand(s *settings) *cobra.Command {
	c := &cobra.Command{
		Use:   "deadletter",
		Short: "Look at events that could not be understood",
	}
	c.AddCommand(deadLetterList(s), deadLetterShow(s))
	return c
}

func deadLetterList(s *settings) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the dead letters, the oldest first",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return s.withHub(func(conn *nats.Conn) error { return listDeadLetters(c, conn, asJSON) })
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "one JSON object per line")
	return c
}

func listDeadLetters(c *cobra.Command, conn *nats.Conn, asJSON bool) error {
	out := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
	n := 0
	for d, err := range messaging.DeadLetters(c.Context(), conn) {
		if err != nil {
			return exitError{exitUnreachable, fmt.Errorf("read the dead letters: %w", err)}
		}
		n++
		if asJSON {
			d.Event = nil
			if err := json.NewEncoder(c.OutOrStdout()).Encode(d); err != nil {
				return err
			}
			continue
		}
		if n == 1 {
			fmt.Fprintln(out, "NUMBER\tTIME\tSUBJECT\tREASON") //nolint:errcheck // Flush reports it
		}
		fmt.Fprintf(out, "%d\t%s\t%s\t%s\n", d.Sequence, d.Time.Format(time.RFC3339), d.Subject, d.Reason) //nolint:errcheck // Flush reports it
	}
	if n == 0 && !asJSON {
		fmt.Fprintln(out, "No dead letters.") //nolint:errcheck // Flush reports it
	}
	return out.Flush()
}

func deadLetterShow(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "show <number>",
		Short: "Show a dead letter whole",
		Long: `Show a dead letter whole. An event that could not even be parsed is shown as it
came, and may hold a token: take care where you paste it.`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			number, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil {
				return exitError{exitUsage, fmt.Errorf("%q is not a number: take one from 'adapter deadletter list'", args[0])}
			}
			return s.withHub(func(conn *nats.Conn) error { return showDeadLetter(c, conn, number) })
		},
	}
}

func showDeadLetter(c *cobra.Command, conn *nats.Conn, number uint64) error {
	d, err := messaging.FindDeadLetter(c.Context(), conn, number)
	if errors.Is(err, messaging.ErrNoDeadLetter) {
		return exitError{exitNotFound, fmt.Errorf("%w; see 'adapter deadletter list'", err)}
	}
	if err != nil {
		return exitError{exitUnreachable, err}
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "Number:  %d\nTime:    %s\nSubject: %s\nReason:  %s\nEvent:   %s\n",
		d.Sequence, d.Time.Format(time.RFC3339), d.Subject, d.Reason, printable(d.Event))
	return err
}

// printable keeps an event from steering the terminal.
func printable(event []byte) string {
	quoted := strconv.Quote(string(event))
	if len(quoted) == len(event)+2 {
		return string(event)
	}
	var compact any
	if json.Unmarshal(event, &compact) == nil {
		if text, err := json.Marshal(compact); err == nil {
			return string(text)
		}
	}
	return quoted
}

func (s *settings) withHub(do func(*nats.Conn) error) error {
	cfg, err := s.load()
	if err != nil {
		return err
	}
	conn, err := dialHub(cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	return do(conn)
}
