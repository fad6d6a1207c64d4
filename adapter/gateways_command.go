package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"revocation-adapter/adapter/receipts"
)

func gatewaysCommand(s *settings) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "gateways",
		Short: "List the gateways of every adapter: who is behind, and who is gone",
		Long: `Ask the adapters of the hub for their gateways: the version that each has
acknowledged, how many versions it is behind, and what it refused last. Those that
are behind or gone are marked and stand first. A gateway that is gone is listed for
receipts.memory.

It needs the hub's operator key, as 'adapter deadletter' does. Exit codes: 0 also
when gateways are behind, 3 when no adapter answers.`,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return s.withHub(func(conn *nats.Conn) error { return listGateways(c, conn, asJSON) })
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return c
}

func listGateways(c *cobra.Command, conn *nats.Conn, asJSON bool) error {
	overview, err := receipts.AskGateways(c.Context(), conn)
	if err != nil {
		return exitError{exitUnreachable, fmt.Errorf("%w; is the adapter running?", err)}
	}
	if asJSON {
		return json.NewEncoder(c.OutOrStdout()).Encode(overview)
	}
	return printGateways(c.OutOrStdout(), overview)
}

// printGateways prints who needs a look first.
func printGateways(w io.Writer, overview receipts.Overview) error {
	if len(overview.Gateways) == 0 {
		_, err := fmt.Fprintf(w, "No gateways. Adapters: %s\n", strings.Join(overview.Replicas, ", "))
		return err
	}
	out := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(out, "  \tGATEWAY\tSTATE\tVERSION\tBEHIND\tADAPTER\tADDRESS\tPROTOCOLS\tCARRY\tTENANTS\tSINCE\tNACKS\tLAST NACK") //nolint:errcheck // Flush reports it
	var calm []receipts.Gateway
	for _, g := range overview.Gateways {
		if !g.Connected || g.Lag > 0 {
			printGateway(out, g)
		} else {
			calm = append(calm, g)
		}
	}
	for _, g := range calm {
		printGateway(out, g)
	}
	return out.Flush()
}

func printGateway(out io.Writer, g receipts.Gateway) {
	mark, state := "  ", "current"
	version, behind := strconv.FormatUint(g.Version, 10), strconv.FormatUint(g.Lag, 10)
	switch {
	case !g.Connected: // what it enforces now nobody here knows
		mark, state, version, behind = "! ", "gone", "-", "-"
	case g.Version == 0 && g.Lag > 0: // it has confirmed nothing yet
		mark, state, version, behind = "! ", "behind", "-", "all"
	case g.Lag > 0:
		mark, state = "! ", "behind"
	}
	tenants := "all"
	if len(g.Tenants) > 0 {
		tenants = quoted(g.Tenants)
	}
	fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", //nolint:errcheck // Flush reports it
		mark, quoted([]string{g.Name}), state, version, behind, g.Replica, g.Address,
		strings.Join(g.Protocols, ","), strings.Join(g.Types, ","), tenants, g.Since.UTC().Format(time.RFC3339), g.NACKs,
		cmp.Or(quoted([]string{g.LastNACK}), "-"))
}
