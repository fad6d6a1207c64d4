package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"revocation-adapter/xds"
)

// watchOptions are the flags of adapter watch.
type watchOptions struct {
	address, protocol, from, node string
	tls                           tlsFlags
	tenants                       []string
	asJSON, rules                 bool
	count                         int
}

func watchCommand(s *settings) *cobra.Command {
	var o watchOptions
	c := &cobra.Command{
		Use:   "watch",
		Short: "Connect as a gateway and print each response as it comes",
		Long: `Connect to an adapter as a gateway does, and print every response: version,
tokens added and removed, bytes, and when it came. The connection is made again
when it ends, and goes on from the version that was reached. With --rules it
asks for rules as well, on the same stream.`,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			if o.address == "" {
				o.address = dialable(cfg.XDS.Listen)
			}
			if o.rules && !c.Flags().Changed("protocol") {
				o.protocol = "delta"
			}
			return o.run(c)
		},
	}
	flags := c.Flags()
	flags.StringVar(&o.address, "address", "", "the adapter, host:port (default: xds.listen of the configuration)")
	flags.StringVar(&o.protocol, "protocol", "rtds", "rtds as enforcers speak it, sotw or delta on the aggregated service")
	flags.StringVar(&o.from, "from", "", "version to go on from (default: the whole set)")
	flags.BoolVar(&o.rules, "rules", false, "rules too; --protocol is delta then, or sotw")
	flags.StringSliceVar(&o.tenants, "tenants", nil, "only what is of these tenants, separated by commas, or of none (default: of all)")
	flags.StringVar(&o.node, "node", "adapter-watch", "instance identifier to appear under")
	o.tls.add(flags)
	flags.BoolVar(&o.asJSON, "json", false, "one JSON object per response")
	flags.IntVar(&o.count, "count", 0, "leave after this many responses (default: never)")
	return c
}

// reconnectDelay is how long to wait before connecting again.
const reconnectDelay = time.Second

func (o *watchOptions) run(c *cobra.Command) error {
	if err := o.check(); err != nil {
		return exitError{exitUsage, err}
	}
	creds, err := o.credentials()
	if err != nil {
		return exitError{exitUsage, err}
	}
	conn, err := grpc.NewClient(o.address, grpc.WithTransportCredentials(creds))
	if err != nil {
		return exitError{exitUsage, err}
	}
	defer conn.Close() //nolint:errcheck // leaving
	open, err := o.opener()
	if err != nil {
		return exitError{exitUsage, err}
	}
	p := &printer{out: c.OutOrStdout(), asJSON: o.asJSON}
	w := &watcher{conn: conn, node: o.node, tenants: o.tenants, print: p.print, left: o.count}
	w.topics = []*watched{{url: xds.TypeURL, version: o.from, held: map[string]string{}}}
	if o.rules {
		w.topics = append(w.topics, &watched{url: xds.RuleTypeURL, held: map[string]string{}})
	}
	for first := true; ; first = false {
		err := open(c.Context(), w)
		switch {
		case c.Context().Err() != nil || err == nil:
			return nil
		case status.Code(err) == codes.InvalidArgument:
			return err
		case first && w.responses == 0:
			return exitError{exitUnreachable, fmt.Errorf("watch %s: %w; is the adapter running?", o.address, err)}
		}
		c.PrintErrf("The stream ended (%s: %s), connecting again\n", status.Code(err), status.Convert(err).Message())
		select {
		case <-c.Context().Done():
			return nil
		case <-time.After(reconnectDelay):
		}
	}
}

func (o *watchOptions) check() error {
	version, _, _ := strings.Cut(o.from, "-") // with tenants, more follows
	if _, err := strconv.ParseUint(cmp.Or(version, "0"), 10, 64); err != nil {
		return fmt.Errorf("--from must be a version, a decimal integer, is %q", o.from)
	}
	if o.rules && o.protocol == "rtds" {
		return errors.New("--rules needs --protocol delta or sotw: enforcers know no rules")
	}
	return nil
}

func (o *watchOptions) opener() (func(context.Context, *watcher) error, error) {
	switch o.protocol {
	case "rtds":
		return watchRTDS, nil
	case "sotw":
		return watchSotw, nil
	case "delta":
		return watchDelta, nil
	}
	return nil, fmt.Errorf("--protocol must be rtds, sotw or delta, is %q", o.protocol)
}

func (o *watchOptions) credentials() (credentials.TransportCredentials, error) {
	cfg, err := o.tls.config()
	if err != nil {
		return nil, err
	}
	if cfg == nil {
		return insecure.NewCredentials(), nil
	}
	return credentials.NewTLS(cfg), nil
}
