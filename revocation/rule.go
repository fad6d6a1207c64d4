package revocation

import (
	"errors"
	"fmt"
	"strings"
)

// Rule names a claim and a value: every token that carries them, and was issued
// before a time, is revoked.
type Rule struct{ Claim, Value string }

// ErrRule means that a claim and a value make no rule.
var ErrRule = errors.New("not a rule")

// Key is the key of the rule in DomainRule: claim, "=", value.
func (r Rule) Key() string { return r.Claim + "=" + r.Value }

// Digest is that of the key in DomainRule.
func (r Rule) Digest() Digest { return digestOf(DomainRule, r.Claim, "=", r.Value) }

// Check reports why r cannot be a rule, or nil. It quotes no value.
func (r Rule) Check() error {
	switch {
	case r.Claim == "" || strings.Contains(r.Claim, "="):
		return fmt.Errorf("%w: the claim must be a name without %q", ErrRule, "=")
	case r.Value == "":
		return fmt.Errorf("%w: the value of claim %q is empty", ErrRule, r.Claim)
	}
	if err := CheckKey(r.Key()); err != nil {
		return fmt.Errorf("%w: %w", ErrRule, err)
	}
	return nil
}

// ParseRule reads what Key wrote: the claim ends at the first "=".
func ParseRule(key string) (Rule, error) {
	claim, value, _ := strings.Cut(key, "=")
	r := Rule{claim, value}
	return r, r.Check()
}
