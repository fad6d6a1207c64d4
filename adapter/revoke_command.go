package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"

	"revocation-adapter/adapter/bulk"
	"revocation-adapter/config"
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

const claimHelp = `With --claim everything is meant that carries the claim with this value and was
issued before a time: all that a user has, or a client. The claim is one of
rules.claims.`

func revokeCommand(s *settings) *cobra.Command {
	var w what
	c := &cobra.Command{
		Use:   "revoke <jti|JWT> | --claim <name>=<value> | --file <file>",
		Short: "Revoke a token or an API key, all that carry a claim, or all of a file",
		Long:  "Revoke a token. Returns when the hub has stored the event.\n\n" + waitHelp + "\n\n" + tokenHelp + "\n\n" + claimHelp + "\n\n" + fileHelp,
		Example: `  adapter revoke fc8ee897-b3d9-3bb6-a9ca-f4aeb036e5c0 --expires-in 1h
  adapter revoke - < token.jwt
  adapter revoke "$OPAQUE_TOKEN" --type Default --expires-at 2027-01-01T00:00:00Z
  adapter revoke --claim sub=alice --wait 5s
  adapter revoke --claim azp=my-client --issued-before 2026-11-21T08:00:00Z
  adapter revoke --file tokens.txt --expires-at 2027-01-01T00:00:00Z`,
		Args: usage(w.args),
		RunE: func(c *cobra.Command, args []string) error {
			return s.announceAs(c, args, announcing{&w, messaging.SubjectRevocation, "Revoked"})
		},
	}
	w.flags(c)
	flags := c.Flags()
	flags.StringVar(&w.before, "issued-before", "now", "with --claim: issued before when: now, RFC 3339, seconds or milliseconds since the epoch")
	flags.StringVar(&w.at, "expires-at", "", "when the token itself expires: RFC 3339, seconds or milliseconds since the epoch, or never")
	flags.DurationVar(&w.in, "expires-in", 0, "in how long the token itself expires, such as 1h (default: the JWT's exp, else unknown; with --claim rules.max_token_lifetime)")
	c.MarkFlagsMutuallyExclusive("expires-at", "expires-in")
	c.MarkFlagsMutuallyExclusive("type", "issued-before")
	c.MarkFlagsMutuallyExclusive("file", "expires-in")
	return c
}

func approveCommand(s *settings) *cobra.Command {
	var w what
	c := &cobra.Command{
		Use:   "approve <jti|JWT> | --claim <name>=<value> | --file <file>",
		Short: "Re-approve a revoked token that has not expired, all that carry a claim, or all of a file",
		Long: "Re-approve a token. Returns when the hub has stored the event. Gateways that can\n" +
			"only add tokens keep refusing it until they are restarted.\n\n" + waitHelp + "\n\n" + tokenHelp + "\n\n" + claimHelp +
			"\nA token that was also revoked by itself stays so.\n\n" + fileHelp,
		Example: `  adapter approve fc8ee897-b3d9-3bb6-a9ca-f4aeb036e5c0
  adapter approve --claim sub=alice
  adapter approve --file tokens.txt`,
		Args: usage(w.args),
		RunE: func(c *cobra.Command, args []string) error {
			return s.announceAs(c, args, announcing{&w, messaging.SubjectApproval, "Re-approved"})
		},
	}
	w.flags(c)
	return c
}

// what the command line names.
type what struct {
	typ, claim, before string
	at, tenant         string
	in, wait           time.Duration
	asJSON             bool
	file               fileFlags
}

func (w *what) flags(c *cobra.Command) {
	c.Flags().StringVar(&w.typ, "type", messaging.TypeJWT, "JWT, API_KEY, or Default for an opaque token")
	c.Flags().StringVar(&w.claim, "claim", "", "name=value: all that carry this claim, instead of one token")
	c.MarkFlagsMutuallyExclusive("type", "claim")
	c.Flags().StringVar(&w.tenant, "tenant", "", "whose it is: gateways that ask for other tenants are not told (default: nobody's, and all are told)")
	w.file.add(c)
	addWait(c, &w.wait)
	c.Flags().BoolVar(&w.asJSON, "json", false, "as JSON: the event, and with --wait how the gateways stand")
	c.MarkFlagsMutuallyExclusive("file", "json")
}

// checkTenant refuses a tenant that no event may name.
func (w *what) checkTenant() error {
	if len(w.tenant) > messaging.MaxTenant {
		return fmt.Errorf("--tenant is longer than %d bytes", messaging.MaxTenant)
	}
	return nil
}

// args: a token, or a claim or a file in place of it.
func (w *what) args(c *cobra.Command, args []string) error {
	claim, file := c.Flags().Changed("claim"), c.Flags().Changed("file")
	switch {
	case claim && len(args) > 0:
		return errors.New("--claim stands in place of a token: give one of them")
	case file && len(args) > 0:
		return errors.New("--file stands in place of a token: give one of them")
	case claim:
		return nil
	case !file && (c.Flags().Changed("resume") || c.Flags().Changed("skip-bad")):
		return errors.New("--resume and --skip-bad need --file")
	case c.Flags().Changed("issued-before"):
		return errors.New("--issued-before needs --claim")
	case file:
		return nil
	}
	return cobra.ExactArgs(1)(c, args)
}

// announcing is what becomes of what, and how that is told.
type announcing struct {
	*what
	subject, done string
}

func (s *settings) announceAs(c *cobra.Command, args []string, as announcing) error {
	cfg, err := s.load()
	if err != nil {
		return err
	}
	if c.Flags().Changed("file") {
		return announceFile(c, cfg, as)
	}
	var a *announcement
	if c.Flags().Changed("claim") {
		a, err = announceRule(cfg.Rules, as)
	} else {
		a, err = announce(c.InOrStdin(), args[0], as.typ)
	}
	if err == nil {
		a.TenantID = as.tenant
		err = as.checkTenant()
	}
	if err == nil {
		err = a.setExpiry(as.at, as.in)
	}
	if err == nil {
		err = a.checkExpiry(cfg)
	}
	if err == nil && (as.wait < 0 || as.wait > maxWait) {
		err = errWait
	}
	if err != nil {
		return exitError{exitUsage, err}
	}
	return publish(c, cfg, a, as)
}

// announcement is the event to publish.
type announcement struct {
	messaging.Announcement
	name   string // what is revoked, as it is told
	rule   string // its key, where it is one
	before int64  // of a rule, milliseconds since the epoch
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
	t, err := bulk.ReadToken(token, typ)
	if err != nil {
		return nil, err
	}
	return &announcement{
		Announcement: messaging.Announcement{EventID: nuid.Next(), Type: typ, RevokedToken: t.Name, ExpiryTime: t.Expiry},
		name:         t.Name,
	}, nil
}

// setExpiry lets the flags override what the token says.
func (a *announcement) setExpiry(at string, in time.Duration) error {
	switch {
	case in < 0:
		return errors.New("--expires-in must be positive")
	case in > 0:
		a.ExpiryTime = time.Now().Add(in).UnixMilli()
	case at != "":
		ms, err := expiresAt(at)
		a.ExpiryTime = ms
		return err
	}
	return nil
}

// expiresAt reads --expires-at.
func expiresAt(at string) (int64, error) {
	if at == "never" {
		return revocation.Never, nil
	}
	ms, err := parseTime(at)
	if err != nil {
		return 0, fmt.Errorf("--expires-at must be %w, or never; is %q", err, at)
	}
	return ms, nil
}

// checkExpiry refuses what would be dropped, grace included.
func (a *announcement) checkExpiry(cfg config.Config) error {
	expires := a.ExpiryTime
	if life := time.Duration(cfg.Rules.MaxTokenLifetime); a.before > 0 && expires == 0 && life > 0 {
		expires = a.before + life.Milliseconds()
	}
	if expires == 0 || expires >= time.Now().Add(-time.Duration(cfg.Revocation.Grace)).UnixMilli() {
		return nil
	}
	what := "the token"
	if a.before > 0 {
		what = "the last token that was issued before"
	}
	return fmt.Errorf("%s expired at %s: no gateway accepts it any more, and nothing was sent", what, expiry(expires))
}

func publish(c *cobra.Command, cfg config.Config, a *announcement, as announcing) error {
	conn, err := dialHub(cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(c.Context(), publishTimeout)
	defer cancel()
	sequence, err := messaging.Publish(ctx, conn, as.subject, a.Announcement)
	if err != nil {
		return exitError{exitUnreachable, fmt.Errorf("%w; nothing was stored for certain: run the command again", err)}
	}
	told := outcome{Name: cmp.Or(a.rule, a.name), State: as.state().String(), EventID: a.EventID, Sequence: sequence}
	if !as.asJSON {
		_, err = fmt.Fprintf(c.OutOrStdout(), "%s %s (event %s, stored as %d in %s)\n",
			as.done, a.name, a.EventID, sequence, messaging.IngestStream)
	}
	audited := auditCommand(c, conn, messaging.AuditEntry{Action: as.action(), Target: told.Name, Outcome: "stored", EventID: a.EventID})
	err = cmp.Or(err, audited)
	if err == nil && as.wait > 0 {
		err = told.await(c, conn, a, as)
	}
	if !as.asJSON {
		return err
	}
	return errors.Join(json.NewEncoder(c.OutOrStdout()).Encode(told), err)
}

// action is what is announced, as the audit has it.
func (as announcing) action() string {
	if as.state() == revocation.Approved {
		return "approve"
	}
	return "revoke"
}

// state is what is announced.
func (as announcing) state() revocation.State {
	if as.subject == messaging.SubjectApproval {
		return revocation.Approved
	}
	return revocation.Revoked
}
