package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"revocation-adapter/messaging"
)

// sourcesOptions are the flags of adapter sources.
type sourcesOptions struct {
	address string
	tls     tlsFlags
	asJSON  bool
}

func sourcesCommand(s *settings) *cobra.Command {
	var o sourcesOptions
	c := &cobra.Command{
		Use:   "sources",
		Short: "Show the ways in: connected, last event, lag, errors",
		Long: `Ask a running adapter for its sources: whether each is connected, when its
last event came, how long events wait until they are stored, and its errors.`,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			if o.address == "" {
				o.address = dialable(cfg.Control.Listen)
			}
			return o.run(c)
		},
	}
	flags := c.Flags()
	flags.StringVar(&o.address, "address", "", "the adapter's control port, host:port (default: control.listen of the configuration)")
	o.tls.add(flags)
	flags.BoolVar(&o.asJSON, "json", false, "as JSON")
	return c
}

// askTimeout is how long a running adapter may take to answer.
const askTimeout = 5 * time.Second

func (o *sourcesOptions) run(c *cobra.Command) error {
	body, err := o.ask(c.Context(), "/sources")
	if err != nil {
		return err
	}
	if o.asJSON {
		_, err := c.OutOrStdout().Write(body)
		return err
	}
	var sources []messaging.SourceStatus
	if err := json.Unmarshal(body, &sources); err != nil {
		return exitError{exitUnreachable, fmt.Errorf("%s does not answer like an adapter: %w", o.address, err)}
	}
	out := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
	fmt.Fprintln(out, "SOURCE\tCONNECTED\tSERVER\tEVENTS\tLAST EVENT\tLAG\tERRORS\tLAST ERROR") //nolint:errcheck // Flush reports it
	for _, s := range sources {
		printSource(out, s)
	}
	return out.Flush()
}

func printSource(out io.Writer, s messaging.SourceStatus) {
	connected, last := "no", "-"
	if s.Connected {
		connected = "yes"
	}
	if s.LastEvent != nil {
		last = s.LastEvent.Format(time.RFC3339)
	}
	lag := time.Duration(s.Lag * float64(time.Second)).Round(time.Millisecond)
	fmt.Fprintf(out, "%s\t%s\t%s\t%d\t%s\t%s\t%d\t%s\n", //nolint:errcheck // Flush reports it
		s.Name, connected, cmp.Or(s.Server, "-"), s.Events, last, lag, s.Errors, cmp.Or(s.LastError, "-"))
}

// ask reads a page of the control port.
func (o *sourcesOptions) ask(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	page, transport := url.URL{Scheme: "http", Host: o.address, Path: path}, &http.Transport{}
	cfg, err := o.tls.config()
	if err != nil {
		return nil, exitError{exitUsage, err}
	}
	if cfg != nil {
		page.Scheme, transport.TLSClientConfig = "https", cfg
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page.String(), nil)
	if err != nil {
		return nil, exitError{exitUsage, err}
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, exitError{exitUnreachable, fmt.Errorf("%w; is the adapter running?", err)}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, exitError{exitUnreachable, cmp.Or(err, fmt.Errorf("%s answers %s", page.Redacted(), resp.Status))}
	}
	return body, nil
}
