package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"revocation-adapter/adapter/receipts"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

const waitHelp = `With --wait it returns when every gateway concerned has acknowledged, on every
adapter of the hub, and prints how they stand; at the latest when the time is over.
The exit code is 1 when some gateway is pending or unreachable, or when it cannot
be said: what was asked for is stored all the same. It needs the hub's operator
key, as 'adapter deadletter' does.`

// maxWait is the longest that anybody waits for gateways.
const maxWait = time.Minute

// errWait is a wait that nobody can mean.
var errWait = fmt.Errorf("--wait must be from 0s to %s", maxWait)

func addWait(c *cobra.Command, wait *time.Duration) {
	c.Flags().DurationVar(wait, "wait", 0, "wait so long for gateways to acknowledge, such as 5s (at most 1m)")
}

// outcome is what a command tells as JSON of what it published.
type outcome struct {
	Name     string `json:"name"`
	State    string `json:"state"`
	EventID  string `json:"event_id"`
	Sequence uint64 `json:"sequence"` // in INGEST

	// With --wait, where it can be said.
	Version  uint64   `json:"version,omitempty"`
	Gateways *figures `json:"gateways,omitempty"`
	TookMS   int64    `json:"took_ms,omitempty"`
}

// figures are those of a receipt, as the control API names them.
type figures struct {
	Enforced     int      `json:"enforced"`
	Pending      []string `json:"pending"`
	Unreachable  []string `json:"unreachable"`
	NotConcerned int      `json:"not_concerned"`
	Cannot       int      `json:"cannot"`
}

func figuresOf(r receipts.Receipt) *figures {
	return &figures{r.Enforced, r.Pending, r.Unreachable, r.NotConcerned, r.Cannot}
}

// await waits for the gateways, and tells how they stand.
func (o *outcome) await(c *cobra.Command, conn *nats.Conn, a *announcement, as announcing) error {
	domain, digest, err := a.key()
	if err != nil {
		return err
	}
	began := time.Now()
	r, err := awaitGateways(c, conn, messaging.Published{
		Sequence: o.Sequence, EventID: a.EventID, State: as.state(), Domain: domain, Digest: digest,
	}, as.wait)
	if err != nil {
		return err
	}
	took := time.Since(began)
	o.Version, o.Gateways, o.TookMS = r.Version, figuresOf(r), took.Milliseconds()
	if !as.asJSON {
		if err := printReceipt(c.OutOrStdout(), r, took); err != nil {
			return err
		}
	}
	if open := len(r.Pending) + len(r.Unreachable); open > 0 {
		return exitError{exitFailed, fmt.Errorf("%d gateways are not known to enforce version %d", open, r.Version)}
	}
	if r.Cannot > 0 && as.state() == revocation.Revoked { // one that cannot be told of an approval only refuses on
		return exitError{exitFailed, fmt.Errorf("%d gateways cannot be told of it, and go on accepting what is revoked", r.Cannot)}
	}
	return nil
}

// awaitGateways waits until what was published is in the log, and then for the
// gateways.
func awaitGateways(c *cobra.Command, conn *nats.Conn, p messaging.Published, wait time.Duration) (receipts.Receipt, error) {
	ctx, cancel := context.WithTimeout(c.Context(), wait)
	defer cancel()
	began := time.Now()
	record, version, err := messaging.AwaitStored(ctx, conn, p)
	switch {
	case errors.Is(err, messaging.ErrNotStored):
		return receipts.Receipt{}, exitError{exitFailed, fmt.Errorf("%w: see 'adapter deadletter list'", err)}
	case err != nil:
		return receipts.Receipt{}, exitError{exitFailed, fmt.Errorf("the event is stored, and not known to be in the log: %w", err)}
	}
	part := receipts.Part{Series: record.Domain.Series(), State: record.State, Tenants: []string{record.Tenant}}
	query := receipts.Query{Version: version, Parts: []receipts.Part{part}}
	r, err := receipts.Ask(c.Context(), conn, query, wait-time.Since(began))
	if err != nil {
		err = exitError{exitFailed, fmt.Errorf("the event is in the log as version %d, and it cannot be said which gateways have it: %w", version, err)}
	}
	return r, err
}

func printReceipt(out io.Writer, r receipts.Receipt, took time.Duration) error {
	_, err := fmt.Fprintf(out, "Version %d after %s: enforced %d, pending %d%s, unreachable %d%s, not concerned %d, cannot %d\n",
		r.Version, took.Round(time.Millisecond), r.Enforced, len(r.Pending), named(r.Pending),
		len(r.Unreachable), named(r.Unreachable), r.NotConcerned, r.Cannot)
	return err
}

// shownNames is how many gateways a line names.
const shownNames = 20

func named(names []string) string {
	if len(names) == 0 {
		return ""
	}
	text := quoted(names[:min(len(names), shownNames)])
	if len(names) > shownNames {
		text += " …"
	}
	return " (" + text + ")"
}

// quoted keeps names, which gateways give themselves, from steering the terminal.
func quoted(names []string) string {
	clean := make([]string, len(names))
	for i, name := range names {
		clean[i] = printable([]byte(name))
	}
	return strings.Join(clean, ", ")
}

// key says of which record the announcement is.
func (a *announcement) key() (revocation.Domain, revocation.Digest, error) {
	switch a.Type {
	case messaging.TypeClaimRule:
		return revocation.DomainRule, revocation.DigestOf(revocation.DomainRule, a.rule), nil
	case messaging.TypeDefault:
		digest, err := revocation.ParseDigest(strings.TrimPrefix(a.RevokedToken, revocation.NamePrefix))
		return revocation.DomainOpaque, digest, err
	}
	return revocation.DomainToken, revocation.DigestOf(revocation.DomainToken, a.RevokedToken), nil
}
