package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/bcrypt"

	"revocation-adapter/adapter/clients"
	"revocation-adapter/config"
	"revocation-adapter/messaging"
)

func clientCommand(s *settings) *cobra.Command {
	c := &cobra.Command{
		Use:   "client",
		Short: "Add, list and remove clients of the control API",
	}
	c.AddCommand(clientAdd(s), clientList(s), clientRemove(s))
	return c
}

// newClient is what adapter client add is told.
type newClient struct {
	roles   []string
	rate    int // 0: that of everybody
	maxBody int // bytes; 0: that of everybody
	stdin   bool
	hub     bool
	replace bool
	asJSON  bool
}

func clientAdd(s *settings) *cobra.Command {
	var n newClient
	c := &cobra.Command{
		Use:   "add <id> --role <role>",
		Short: "Make a client with a new secret",
		Long: `Make a client with a new secret. The entry for the configuration goes to
standard output, the secret to standard error, once: only its bcrypt is kept.
With --hub the client is stored in the hub, where all replicas find it at once;
then the secret alone goes to standard output. One that is there is refused, unless
--replace is given: its roles and its secret are then those of the new one at once.

Roles: revoke (its own tokens), revoke_any (any token, rules, lists), approve,
grants (register tokens that were issued), apim:api_key (revoke API keys with a
token of its own), operator (gateways, explain, audit, dead letters, the page).`,
		Example: `  adapter client add devportal --role revoke >> adapter.toml
  adapter client add carol --role operator --role revoke_any --role approve --hub
  adapter client add legacy --role revoke --secret-stdin < secret.txt`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return s.addClient(c, args[0], n) },
	}
	flags := c.Flags()
	flags.StringArrayVar(&n.roles, "role", nil, "a role; may be repeated")
	flags.IntVar(&n.rate, "requests-per-second", 0, "how often it may call, in place of control.requests_per_second")
	flags.IntVar(&n.maxBody, "max-body-bytes", 0, "its largest list, in place of control.max_body_bytes")
	flags.BoolVar(&n.stdin, "secret-stdin", false, "take the secret from standard input instead of making one")
	flags.BoolVar(&n.hub, "hub", false, "store it in the hub")
	flags.BoolVar(&n.replace, "replace", false, "with --hub: in place of the client of this id")
	flags.BoolVar(&n.asJSON, "json", false, "as JSON, the secret included")
	return c
}

func (s *settings) addClient(c *cobra.Command, id string, n newClient) error {
	secret, hash, err := n.secret(c.InOrStdin())
	if err != nil {
		return exitError{exitUsage, err}
	}
	cfg := config.Default()
	cfg.Clients = []config.Client{{
		ID: id, SecretHash: config.Secret(hash), Roles: n.roles, RequestsPerSecond: n.rate, MaxBodyBytes: n.maxBody,
	}}
	if err := cfg.Validate(); err != nil {
		return exitError{exitUsage, errors.New(strings.ReplaceAll(err.Error(), "clients[0].", ""))}
	}
	if n.replace && !n.hub {
		return exitError{exitUsage, errors.New("--replace is for --hub: a client of the configuration is replaced there")}
	}
	made := madeClient{cfg.Clients[0], secret}
	if n.hub {
		return s.storeClient(c, made, n)
	}
	return n.tell(c, made)
}

// secret is the one from standard input, or a new one, with its hash.
func (n newClient) secret(stdin io.Reader) (secret, hash string, err error) {
	if !n.stdin {
		return clients.NewSecret()
	}
	text, err := io.ReadAll(io.LimitReader(stdin, maxToken))
	if err != nil {
		return "", "", fmt.Errorf("read the secret from standard input: %w", err)
	}
	secret = strings.TrimRight(string(text), "\r\n")
	if len(secret) < 16 {
		return "", "", errors.New("a secret must have at least 16 characters")
	}
	sum, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.DefaultCost)
	if err != nil {
		return "", "", fmt.Errorf("the secret: %w", err)
	}
	return secret, string(sum), nil
}

// madeClient is a client with its secret.
type madeClient struct {
	config.Client
	secret string
}

// storeClient stores a client and tells its secret, which nobody would know if the
// audit failed first.
func (s *settings) storeClient(c *cobra.Command, client madeClient, n newClient) error {
	cfg, err := s.load()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(cfg.Clients, func(one config.Client) bool { return one.ID == client.ID }) {
		return exitError{exitUsage, fmt.Errorf("client %s is in the configuration, which counts before the hub", client.ID)}
	}
	return s.withHub(func(conn *nats.Conn) error {
		store, err := messaging.Clients(c.Context(), conn)
		var there []messaging.StoredClient
		if err == nil {
			there, err = store.List(c.Context())
		}
		if errors.Is(err, messaging.ErrClient) { // another one, or this one is mended
			err = nil
		}
		if !n.replace && slices.ContainsFunc(there, func(one messaging.StoredClient) bool { return one.ID == client.ID }) {
			return exitError{exitUsage, fmt.Errorf("client %s is in the hub already: --replace gives it a new secret and these roles", client.ID)}
		}
		if err == nil {
			err = store.Put(c.Context(), messaging.StoredClient{
				ID: client.ID, SecretHash: string(client.SecretHash), Roles: client.Roles, Created: time.Now().UTC(),
				RequestsPerSecond: client.RequestsPerSecond, MaxBodyBytes: client.MaxBodyBytes,
			})
		}
		if err != nil {
			return exitError{exitUnreachable, fmt.Errorf("store the client: %w", err)}
		}
		told := n.tell(c, client)
		return errors.Join(told, auditCommand(c, conn, messaging.AuditEntry{Action: "client_add", Target: client.ID, Outcome: "stored"}))
	})
}

func (n newClient) tell(c *cobra.Command, client madeClient) error {
	out, notes := c.OutOrStdout(), c.ErrOrStderr()
	switch {
	case n.asJSON:
		return json.NewEncoder(out).Encode(map[string]any{
			"id": client.ID, "secret": client.secret, "secret_hash": string(client.SecretHash), "roles": client.Roles,
			"requests_per_second": client.RequestsPerSecond, "max_body_bytes": client.MaxBodyBytes,
		})
	case n.hub:
		fmt.Fprintf(notes, "Client %s is stored in the hub. Its secret, which is shown once:\n", client.ID) //nolint:errcheck // only words for a person
		_, err := fmt.Fprintln(out, client.secret)
		return err
	}
	quoted := make([]string, 0, len(client.Roles))
	for _, role := range client.Roles {
		quoted = append(quoted, fmt.Sprintf("%q", role))
	}
	entry := fmt.Sprintf("[[clients]]\nid = %q\nsecret_hash = %q\nroles = [%s]\n",
		client.ID, string(client.SecretHash), strings.Join(quoted, ", "))
	if client.RequestsPerSecond > 0 {
		entry += fmt.Sprintf("requests_per_second = %d\n", client.RequestsPerSecond)
	}
	if client.MaxBodyBytes > 0 {
		entry += fmt.Sprintf("max_body_bytes = %d\n", client.MaxBodyBytes)
	}
	_, err := fmt.Fprint(out, entry)
	if !n.stdin {
		fmt.Fprintf(notes, "The secret of %s, which is shown once: %s\n", client.ID, client.secret) //nolint:errcheck // only words for a person
	}
	return err
}

// clientRow is a client as it is listed.
type clientRow struct {
	ID      string     `json:"id"`
	Roles   []string   `json:"roles"`
	Where   string     `json:"where"` // configuration or hub
	Created *time.Time `json:"created,omitempty"`
}

func clientList(s *settings) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the clients of the configuration and of the hub",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			rows, err := s.clientRows(c)
			if err != nil && !errors.Is(err, messaging.ErrClient) {
				return err
			}
			if asJSON {
				return errors.Join(json.NewEncoder(c.OutOrStdout()).Encode(rows), err)
			}
			return errors.Join(printClients(c.OutOrStdout(), rows), err)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return c
}

func (s *settings) clientRows(c *cobra.Command) ([]clientRow, error) {
	cfg, err := s.load()
	if err != nil {
		return nil, err
	}
	rows := []clientRow{}
	for _, one := range cfg.Clients {
		rows = append(rows, clientRow{ID: one.ID, Roles: one.Roles, Where: "configuration"})
	}
	err = s.withHub(func(conn *nats.Conn) error {
		store, err := messaging.Clients(c.Context(), conn)
		var stored []messaging.StoredClient
		if err == nil {
			stored, err = store.List(c.Context())
		}
		for _, one := range stored {
			rows = append(rows, clientRow{ID: one.ID, Roles: one.Roles, Where: "hub", Created: &one.Created})
		}
		switch {
		case errors.Is(err, messaging.ErrClient):
			return exitError{exitFailed, fmt.Errorf("%w: it is refused until it is added again or removed", err)}
		case err != nil:
			return exitError{exitUnreachable, fmt.Errorf("list the clients: %w", err)}
		}
		return nil
	})
	return rows, err
}

func printClients(w io.Writer, rows []clientRow) error {
	out := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	if len(rows) == 0 {
		fmt.Fprintln(out, "No clients.") //nolint:errcheck // Flush reports it
		return out.Flush()
	}
	fmt.Fprintln(out, "ID\tROLES\tWHERE\tCREATED") //nolint:errcheck // Flush reports it
	for _, r := range rows {
		created := "-"
		if r.Created != nil {
			created = r.Created.Format(time.RFC3339)
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\n", r.ID, strings.Join(r.Roles, ","), r.Where, created) //nolint:errcheck // Flush reports it
	}
	return out.Flush()
}

func clientRemove(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "remove <id>",
		Short: "Remove a client from the hub; one of the configuration is removed there",
		Args:  usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			return s.withHub(func(conn *nats.Conn) error {
				store, err := messaging.Clients(c.Context(), conn)
				if err == nil {
					err = store.Remove(c.Context(), args[0])
				}
				switch {
				case errors.Is(err, messaging.ErrNoClient):
					return exitError{exitNotFound, err}
				case err != nil:
					return exitError{exitUnreachable, fmt.Errorf("remove the client: %w", err)}
				}
				fmt.Fprintln(c.OutOrStdout(), "Removed", args[0]) //nolint:errcheck // only words for a person
				return auditCommand(c, conn, messaging.AuditEntry{Action: "client_remove", Target: args[0], Outcome: "removed"})
			})
		},
	}
}
