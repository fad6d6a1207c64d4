package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

const tokenHelp = `The token is a jti, or a whole JWT (an API key is one): its jti and exp are
read, and nothing else of it leaves this machine. With --type Default it is an
opaque token, of which only the digest is sent. A token of - is read from
standard input: what stands on the command line is seen by other users of the
machine.`

// maxToken is how much is read of standard input, in bytes.
const maxToken = 1 << 20

// publishTimeout bounds how long the hub may take to store an event.
const publishTimeout = 10 * time.Second

func revokeCommand(s *settings) *cobra.Command {
	var typ, at string
	var in time.Duration
	c := &cobra.Command{
		Use:   "revoke <jti|JWT>",
		Short: "Revoke a token or an API key",
		Long:  "Revoke a token. Returns when the hub has stored the event.\n\n" + tokenHelp,
		Example: `  adapter revoke fc8ee897-b3d9-3bb6-a9ca-f4aeb036e5c0 --expires-in 1h
  adapter revoke - < token.jwt
  adapter revoke "$OPAQUE_TOKEN" --type Default --expires-at 2027-01-01T00:00:00Z`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			a, err := announce(c.InOrStdin(), args[0], typ)
			if err != nil {
				return exitError{exitUsage, err}
			}
			if err := a.setExpiry(at, in); err != nil {
				return exitError{exitUsage, err}
			}
			return s.publish(c, messaging.SubjectRevocation, a, "Revoked")
		},
	}
	flags := c.Flags()
	flags.StringVar(&typ, "type", messaging.TypeJWT, "JWT, API_KEY, or Default for an opaque token")
	flags.StringVar(&at, "expires-at", "", "when the token itself expires: RFC 3339, seconds or milliseconds since the epoch, or never")
	flags.DurationVar(&in, "expires-in", 0, "in how long the token itself expires, such as 1h (default: the JWT's exp, else unknown)")
	c.MarkFlagsMutuallyExclusive("expires-at", "expires-in")
	return c
}

func approveCommand(s *settings) *cobra.Command {
	var typ string
	c := &cobra.Command{
		Use:   "approve <jti|JWT>",
		Short: "Re-approve a revoked token that has not expired",
		Long: "Re-approve a token. Returns when the hub has stored the event. Gateways that can\n" +
			"only add tokens keep refusing it until they are restarted.\n\n" + tokenHelp,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			a, err := announce(c.InOrStdin(), args[0], typ)
			if err != nil {
				return exitError{exitUsage, err}
			}
			return s.publish(c, messaging.SubjectApproval, a, "Re-approved")
		},
	}
	c.Flags().StringVar(&typ, "type", messaging.TypeJWT, "JWT, API_KEY, or Default for an opaque token")
	return c
}

// announcement is the event to publish.
type announcement struct {
	messaging.Announcement
	dated bool // the token itself said when it expires
}

// announce reads what the command line names. Of a JWT the jti and exp are
// kept, of an opaque token the digest.
func announce(stdin io.Reader, token, typ string) (*announcement, error) {
	if token == "-" {
		text, err := io.ReadAll(io.LimitReader(stdin, maxToken))
		if err != nil {
			return nil, fmt.Errorf("read the token from standard input: %w", err)
		}
		if token = strings.TrimSpace(string(text)); token == "" {
			return nil, errors.New("no token on standard input")
		}
	}
	a := &announcement{Announcement: messaging.Announcement{EventID: nuid.Next(), Type: typ, RevokedToken: token}}
	switch typ {
	case messaging.TypeDefault:
		a.RevokedToken = revocation.NamePrefix + messaging.OpaqueDigest(token).String()
		return a, nil
	case messaging.TypeJWT, messaging.TypeAPIKey:
	default:
		return nil, fmt.Errorf("--type must be JWT, API_KEY or Default, is %q", typ)
	}
	claims, err := revocation.ReadJWT(token)
	switch {
	case err == nil:
		a.RevokedToken, a.ExpiryTime, a.dated = claims.ID, claims.Expiry, true
	case !errors.Is(err, revocation.ErrNotJWT) || strings.Count(token, ".") >= 2:
		return nil, fmt.Errorf("the token: %w", err)
	}
	if err := revocation.CheckKey(a.RevokedToken); err != nil {
		return nil, fmt.Errorf("the token: %w", err)
	}
	return a, nil
}

// setExpiry lets the flags override what the token says.
func (a *announcement) setExpiry(at string, in time.Duration) error {
	switch {
	case in < 0:
		return errors.New("--expires-in must be positive")
	case in > 0:
		a.ExpiryTime = time.Now().Add(in).UnixMilli()
	case at == "never":
		a.ExpiryTime = revocation.Never
	case at != "":
		ms, err := parseTime(at)
		if err != nil {
			return err
		}
		a.ExpiryTime = ms
	}
	return nil
}

// expired says whether the event would be dropped, grace included.
func (a *announcement) expired(grace time.Duration) bool {
	return a.ExpiryTime > 0 && a.ExpiryTime < time.Now().Add(-grace).UnixMilli()
}

func (s *settings) publish(c *cobra.Command, subject string, a *announcement, done string) error {
	cfg, err := s.load()
	if err != nil {
		return err
	}
	if a.expired(time.Duration(cfg.Revocation.Grace)) {
		return exitError{exitUsage, fmt.Errorf("the token expired at %s: no gateway accepts it any more, and nothing was sent",
			expiry(a.ExpiryTime))}
	}
	conn, err := dialHub(cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(c.Context(), publishTimeout)
	defer cancel()
	sequence, err := messaging.Publish(ctx, conn, subject, a.Announcement)
	if err != nil {
		return exitError{exitUnreachable, fmt.Errorf("%w; nothing was stored for certain: run the command again", err)}
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s %s (event %s, stored as %d in %s)\n",
		done, a.RevokedToken, a.EventID, sequence, messaging.IngestStream)
	return err
}
