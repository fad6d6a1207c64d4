package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
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
		Short: "Look at events that could not be understood or stored, replay or purge them",
	}
	c.AddCommand(deadLetterList(s), deadLetterShow(s), deadLetterReplay(s), deadLetterPurge(s))
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
		Args: usage(cobra.ExactArgs(1)), ValidArgsFunction: s.completeDeadLetter,
		RunE: func(c *cobra.Command, args []string) error {
			number, err := deadLetterNumber(args[0])
			if err != nil {
				return exitError{exitUsage, err}
			}
			return s.withHub(func(conn *nats.Conn) error { return showDeadLetter(c, conn, number) })
		},
	}
}

func deadLetterNumber(text string) (uint64, error) {
	number, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number: take one from 'adapter deadletter list'", text)
	}
	return number, nil
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

func deadLetterReplay(s *settings) *cobra.Command {
	var which selection
	c := &cobra.Command{
		Use:   "replay <number>...|--all",
		Short: "Publish the events of dead letters again",
		Long: `Publish the events of dead letters again, as they are kept, each to the subject to
which it first came. A dead letter is removed when the hub has stored its event.

This helps when the cause is gone: the event could not be stored, or the adapter
of that time did not know its type. An event that is still not understood becomes
a new dead letter: see 'adapter deadletter list' afterwards. An opaque token is
revoked by its digest, and no event overturns what came after it.`,
		Args: usage(which.args), ValidArgsFunction: s.completeDeadLetters,
		RunE: func(c *cobra.Command, _ []string) error {
			return s.withHub(func(conn *nats.Conn) error {
				return which.each(c, conn, func(d messaging.DeadLetter) (string, error) {
					sequence, err := messaging.Replay(c.Context(), conn, d)
					if err == nil {
						err = auditLetter(c, conn, d, messaging.AuditEntry{Action: "replay", Outcome: "replayed"})
					}
					return fmt.Sprintf("Replayed %d (stored as %d in %s)", d.Sequence, sequence, messaging.IngestStream), err
				})
			})
		},
	}
	c.Flags().BoolVar(&which.all, "all", false, "all that there are now")
	return c
}

func deadLetterPurge(s *settings) *cobra.Command {
	var which selection
	var age time.Duration
	c := &cobra.Command{
		Use:   "purge <number>...|--all [--older-than 24h]",
		Short: "Remove dead letters for good",
		Long: `Remove dead letters for good. What they asked for is then not done, unless it is
published again.`,
		Args: usage(which.args), ValidArgsFunction: s.completeDeadLetters,
		RunE: func(c *cobra.Command, _ []string) error {
			if age != 0 && !which.all || age < 0 {
				return exitError{exitUsage, errors.New("--older-than must be positive, and needs --all")}
			}
			return s.withHub(func(conn *nats.Conn) error { return purgeDeadLetters(c, conn, which, age) })
		},
	}
	c.Flags().BoolVar(&which.all, "all", false, "all that there are now")
	c.Flags().DurationVar(&age, "older-than", 0, "with --all: only those that are dead letters for longer, such as 24h")
	return c
}

func purgeDeadLetters(c *cobra.Command, conn *nats.Conn, which selection, age time.Duration) error {
	if !which.all {
		return which.each(c, conn, func(d messaging.DeadLetter) (string, error) {
			err := messaging.RemoveDeadLetter(c.Context(), conn, d.Sequence)
			if err == nil {
				err = auditLetter(c, conn, d, messaging.AuditEntry{Action: "remove_deadletter", Outcome: "removed"})
			}
			return fmt.Sprint("Purged ", d.Sequence), err
		})
	}
	var before time.Time
	if age > 0 {
		before = time.Now().Add(-age)
	}
	n, err := messaging.PurgeDeadLetters(c.Context(), conn, before)
	if err != nil {
		return exitError{exitUnreachable, fmt.Errorf("purge the dead letters: %w; run the command again", err)}
	}
	if _, err = fmt.Fprintln(c.OutOrStdout(), "Dead letters purged:", n); err != nil || n == 0 {
		return err
	}
	return auditCommand(c, conn, messaging.AuditEntry{Action: "purge_deadletters", Outcome: "removed", Count: n})
}

func auditLetter(c *cobra.Command, conn *nats.Conn, d messaging.DeadLetter, e messaging.AuditEntry) error {
	e.Target = strconv.FormatUint(d.Sequence, 10)
	return auditCommand(c, conn, e)
}

// selection is the dead letters that the command line names.
type selection struct {
	all     bool
	numbers []uint64
}

// args reads the arguments. The flags are known by then.
func (w *selection) args(_ *cobra.Command, args []string) error {
	if w.all == (len(args) > 0) {
		return errors.New("either numbers, as 'adapter deadletter list' shows them, or --all must be given")
	}
	for _, arg := range args {
		number, err := deadLetterNumber(arg)
		if err != nil {
			return err
		}
		w.numbers = append(w.numbers, number)
	}
	return nil
}

func (w selection) letters(ctx context.Context, conn *nats.Conn) iter.Seq2[messaging.DeadLetter, error] {
	if w.all {
		return messaging.DeadLetters(ctx, conn)
	}
	return func(yield func(messaging.DeadLetter, error) bool) {
		for _, number := range w.numbers {
			if !yield(messaging.FindDeadLetter(ctx, conn, number)) {
				return
			}
		}
	}
}

// each does something to each dead letter and prints what was done. One to which
// it cannot be done keeps no other from its turn.
func (w selection) each(c *cobra.Command, conn *nats.Conn, do func(messaging.DeadLetter) (string, error)) error {
	var failed []error
	n := 0
	for d, err := range w.letters(c.Context(), conn) {
		n++
		var done string
		if err == nil {
			done, err = do(d)
		}
		switch {
		case errors.Is(err, messaging.ErrNoDeadLetter):
			failed = append(failed, exitError{exitNotFound, fmt.Errorf("%w; see 'adapter deadletter list'", err)})
		case errors.Is(err, messaging.ErrIncomplete):
			failed = append(failed, exitError{exitFailed, fmt.Errorf(
				"%w; have it published again, then 'adapter deadletter purge %d'", err, d.Sequence)})
		case errors.As(err, new(exitError)): // it is done, though it is not in the audit
			return err
		case err != nil:
			return exitError{exitUnreachable, fmt.Errorf("%w; run the command again", err)}
		default:
			if _, err := fmt.Fprintln(c.OutOrStdout(), done); err != nil {
				return err
			}
		}
	}
	if n == 0 {
		fmt.Fprintln(c.OutOrStdout(), "No dead letters.") //nolint:errcheck // there was nothing to do
	}
	return errors.Join(failed...)
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
