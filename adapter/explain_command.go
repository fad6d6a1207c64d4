package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"revocation-adapter/adapter/explain"
	"revocation-adapter/adapter/receipts"
	"revocation-adapter/config"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

func explainCommand(s *settings) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "explain <jti|JWT|sha256:digest|claim=value>",
		Short: "Say whether a key is revoked, by whom, until when, and which gateways know",
		Long: `Say whether a key is revoked: by which event, from where, by whom and why, when,
until when, and which gateways have it. A key of - is read from standard input:
what stands on the command line is seen by other users of the machine.

Exit codes: 0 it is known, 4 nothing is known of it.`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			name := args[0]
			if name == "-" {
				text, err := io.ReadAll(io.LimitReader(c.InOrStdin(), maxToken))
				if err != nil {
					return fmt.Errorf("read the key from standard input: %w", err)
				}
				name = strings.TrimSpace(string(text))
			}
			return s.withHub(func(conn *nats.Conn) error {
				e, err := explainer(cfg, conn).Explain(c.Context(), name)
				switch {
				case errors.Is(err, explain.ErrName):
					return exitError{exitUsage, err}
				case err != nil:
					return exitError{exitUnreachable, err}
				case asJSON:
					err = printExplanationJSON(c.OutOrStdout(), e)
				default:
					err = printExplanation(c.OutOrStdout(), e)
				}
				if err == nil && e.Version == 0 && len(e.Rules) == 0 {
					err = exitError{exitNotFound, fmt.Errorf("nothing is known of %s", e.Key)}
				}
				return err
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return c
}

// explainer asks over the hub.
func explainer(cfg config.Config, conn *nats.Conn) explain.Explainer {
	return explain.Explainer{
		Record: func(ctx context.Context, d revocation.Domain, digest revocation.Digest) (messaging.Record, error) {
			return messaging.FindRecord(ctx, conn, d, digest)
		},
		Stands: func(ctx context.Context, q receipts.Query) (receipts.Receipt, error) {
			return receipts.Ask(ctx, conn, q, 0)
		},
		Claims: append([]string{cfg.Rules.ClientClaim, cfg.Rules.UserClaim}, cfg.Rules.Claims...),
		Grace:  time.Duration(cfg.Revocation.Grace), Now: now,
	}
}

func printExplanationJSON(w io.Writer, e explain.Explanation) error {
	var gateways *figures
	if e.Receipt != nil {
		gateways = figuresOf(*e.Receipt)
	}
	return json.NewEncoder(w).Encode(struct {
		explain.Explanation
		Gateways *figures `json:"gateways,omitempty"`
	}{e, gateways})
}

func printExplanation(w io.Writer, e explain.Explanation) error {
	out := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	row := func(name string, value any) {
		if text := fmt.Sprint(value); text != "" && text != "0" {
			fmt.Fprintf(out, "%s:\t%s\n", name, printable([]byte(text))) //nolint:errcheck // Flush reports it
		}
	}
	row("Key", e.Key)
	row("Domain", e.Domain)
	row("State", e.State)
	if e.ActiveUntil != nil {
		row("Until", e.ActiveUntil)
	}
	row("Version", e.Version)
	row("When", moment(e.Time))
	row("Source", e.Source)
	row("By", e.Actor)
	row("Why", e.Reason)
	row("Event", e.EventID)
	row("Tenant", e.Tenant)
	row("Issued before", moment(e.Before))
	row("Rules", strings.Join(e.Rules, ", "))
	if r := e.Receipt; r != nil {
		row("Enforced by", fmt.Sprintf("%d gateways", r.Enforced))
		row("Pending", strings.Join(r.Pending, ", "))
		row("Unreachable", strings.Join(r.Unreachable, ", "))
		row("Not concerned", r.NotConcerned)
		row("Cannot", r.Cannot)
	}
	return out.Flush()
}

func moment(at *time.Time) string {
	if at == nil {
		return ""
	}
	return at.Format(time.RFC3339)
}
