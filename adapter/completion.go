package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"revocation-adapter/config"
	"revocation-adapter/messaging"
)

// What the shell may offer, with what it means.

func typeValues() []cobra.Completion {
	return []cobra.Completion{
		cobra.CompletionWithDesc(messaging.TypeJWT, "a JWT, by its jti"),
		cobra.CompletionWithDesc(messaging.TypeAPIKey, "an API key, by its jti"),
		cobra.CompletionWithDesc(messaging.TypeDefault, "an opaque token, by its digest"),
	}
}

func protocolValues() []cobra.Completion {
	return []cobra.Completion{
		cobra.CompletionWithDesc("rtds", "as enforcers speak it"),
		cobra.CompletionWithDesc("sotw", "state of the world, on the aggregated service"),
		cobra.CompletionWithDesc("delta", "delta, on the aggregated service"),
	}
}

func roleValues() []cobra.Completion {
	return []cobra.Completion{
		cobra.CompletionWithDesc(config.RoleRevoke, "revoke what was issued to it"),
		cobra.CompletionWithDesc(config.RoleRevokeAny, "revoke everything"),
		cobra.CompletionWithDesc(config.RoleApprove, "approve again"),
		cobra.CompletionWithDesc(config.RoleGrants, "register grants"),
		cobra.CompletionWithDesc(config.RoleAPIKey, "revoke API keys with a token of its own"),
		cobra.CompletionWithDesc(config.RoleOperator, "look at everything, mend dead letters"),
	}
}

func expiryValues() []cobra.Completion {
	return []cobra.Completion{cobra.CompletionWithDesc("never", "the token does not expire")}
}

func beforeValues() []cobra.Completion {
	return []cobra.Completion{cobra.CompletionWithDesc("now", "all that was issued until now")}
}

// offers has the shell offer values of a flag that c has, and no files.
func offers(c *cobra.Command, flag string, values []cobra.Completion) {
	offersFrom(c, flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

func offersFrom(c *cobra.Command, flag string, values cobra.CompletionFunc) {
	if c.Flags().Lookup(flag) != nil {
		_ = c.RegisterFlagCompletionFunc(flag, values) // it exists, and is registered once
	}
}

// completeFlags has the shell offer what c's flags can be.
func (s *settings) completeFlags(c *cobra.Command) {
	for flag, values := range map[string][]cobra.Completion{
		"type": typeValues(), "protocol": protocolValues(), "role": roleValues(), "expires-at": expiryValues(), "issued-before": beforeValues(),
	} {
		offers(c, flag, values)
	}
	offersFrom(c, "claim", s.completeClaim)
	if c.ValidArgsFunction == nil && c.Run == nil && c.RunE != nil {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	for _, sub := range c.Commands() {
		s.completeFlags(sub)
	}
}

// completeClaim offers the names of rules.claims. The value follows the "=".
func (s *settings) completeClaim(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	cfg, err := s.load()
	if err != nil {
		return nil, directive
	}
	var names []cobra.Completion
	for _, claim := range cfg.Rules.Claims {
		names = append(names, claim+"=")
	}
	return names, directive
}

// What completion may take of a person's time, and how much is offered.
const (
	completionTimeout = 2 * time.Second
	maxOffered        = 100
)

// completeDeadLetters offers the numbers of dead letters, with their reasons.
func (s *settings) completeDeadLetters(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var numbers []cobra.Completion
	// A hub that is away is none of completion's business: nothing is offered.
	_ = s.withHub(func(conn *nats.Conn) error {
		ctx, cancel := context.WithTimeout(c.Context(), completionTimeout)
		defer cancel()
		for d, err := range messaging.DeadLetters(ctx, conn) {
			if err != nil || len(numbers) == maxOffered {
				return err
			}
			if number := fmt.Sprint(d.Sequence); !slices.Contains(args, number) {
				numbers = append(numbers, cobra.CompletionWithDesc(number, d.Reason))
			}
		}
		return nil
	})
	return numbers, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// completeDeadLetter offers one number.
func (s *settings) completeDeadLetter(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return s.completeDeadLetters(c, args, begun)
}
