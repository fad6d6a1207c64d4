package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"

	"revocation-adapter/messaging"
)

// auditing is what adapter audit is asked.
type auditing struct {
	messaging.AuditQuery
	since  string
	limit  int
	asJSON bool
}

func auditsCommand(s *settings) *cobra.Command {
	var a auditing
	c := &cobra.Command{
		Use:   "audit",
		Short: "Show who did what, when and from where",
		Long: `Show who revoked, approved or was refused, at the control API and on the command
line: the newest first, or with --since the oldest since then. No token is in it:
JWTs and API keys are named by their jti, all others by a digest. What publishers
send to the hub is not in it: 'adapter explain' says what came of it.`,
		Example: `  adapter audit --actor devportal --limit 20
  adapter audit --since 2026-11-21T00:00:00Z --json`,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if a.since != "" {
				ms, err := parseTime(a.since)
				if err != nil {
					return exitError{exitUsage, fmt.Errorf("--since must be %w; is %q", err, a.since)}
				}
				a.Since = time.UnixMilli(ms)
			}
			if a.limit < 1 {
				return exitError{exitUsage, fmt.Errorf("--limit must be at least 1, is %d", a.limit)}
			}
			return s.withHub(func(conn *nats.Conn) error { return a.show(c, conn) })
		},
	}
	flags := c.Flags()
	flags.StringVar(&a.since, "since", "", "from when on: RFC 3339, seconds or milliseconds since the epoch")
	flags.StringVar(&a.Actor, "actor", "", "of this client only, what it did for others included")
	flags.StringVar(&a.Action, "action", "", "of this action only, such as revoke or approve")
	flags.StringVar(&a.Target, "target", "", "of this jti, digest or rule only")
	flags.IntVar(&a.limit, "limit", 100, "how many entries at most")
	flags.BoolVar(&a.asJSON, "json", false, "one JSON object per line")
	return c
}

func (a auditing) show(c *cobra.Command, conn *nats.Conn) error {
	out := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
	n := 0
	for e, err := range messaging.AuditEntries(c.Context(), conn, a.AuditQuery) {
		if err != nil {
			return exitError{exitUnreachable, fmt.Errorf("read the audit: %w", err)}
		}
		if a.asJSON {
			if err := json.NewEncoder(c.OutOrStdout()).Encode(e); err != nil {
				return err
			}
		} else {
			printEntry(out, e, n)
		}
		if n++; n == a.limit {
			break
		}
	}
	if n == 0 && !a.asJSON {
		fmt.Fprintln(out, "No entries.") //nolint:errcheck // Flush reports it
	}
	return out.Flush()
}

func printEntry(out io.Writer, e messaging.AuditEntry, before int) {
	if before == 0 {
		fmt.Fprintln(out, "TIME\tACTOR\tACTION\tTARGET\tOUTCOME\tFROM\tREASON") //nolint:errcheck // Flush reports it
	}
	fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Time.Format(time.RFC3339), //nolint:errcheck // Flush reports it
		e.Actor, e.Action, cmp.Or(printable([]byte(e.Target)), "-"), e.Outcome, cmp.Or(e.From, "-"), cmp.Or(printable([]byte(e.Reason)), "-"))
}

// auditCommand keeps what a command has changed: who ran it is whom the machine
// says, since whoever has the operator's key may say anything.
func auditCommand(c *cobra.Command, conn *nats.Conn, e messaging.AuditEntry) error {
	name, host := "?", "?"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	e.ID, e.Time, e.Actor, e.From = nuid.Next(), time.Now().UTC(), "cli:"+name, host
	ctx := context.WithoutCancel(c.Context()) // who interrupts the command has begun it
	err := messaging.AddAudit(ctx, conn, e)
	if err != nil && !errors.Is(err, messaging.ErrAuditDenied) { // a publisher's key is for events alone
		return exitError{exitFailed, fmt.Errorf("it is done, but its audit entry is not stored: %w", err)}
	}
	return nil
}
