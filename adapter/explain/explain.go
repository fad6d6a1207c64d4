// Package explain says of one key whether it is revoked, by whom, why and until
// when, and which gateways know.
//
// It asks the hub's leader, and changes nothing. What it returns holds no token.
package explain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"revocation-adapter/adapter/issuers"
	"revocation-adapter/adapter/receipts"
	"revocation-adapter/adapter/tokens"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// The states of an explanation, beside revoked and approved.
const (
	None = "none" // nothing is known of it, or it has expired
	Used = "used" // a one-time token that was used up
)

// Explanation is all that is known of a key.
type Explanation struct {
	Key         string            `json:"key"`
	Domain      string            `json:"domain"`
	State       string            `json:"state"` // revoked, used, approved or none
	ActiveUntil *Until            `json:"active_until,omitempty"`
	Version     uint64            `json:"version,omitempty"`
	Time        *time.Time        `json:"time,omitempty"`   // of the event that decided
	Stored      *time.Time        `json:"stored,omitempty"` // when the hub had it
	Source      string            `json:"source,omitempty"` // the way in
	Actor       string            `json:"actor,omitempty"`
	Reason      string            `json:"reason,omitempty"`
	EventID     string            `json:"event_id,omitempty"`
	Tenant      string            `json:"tenant,omitempty"`
	Before      *time.Time        `json:"issued_before,omitempty"` // of a rule
	Rules       []string          `json:"rules,omitempty"`         // that revoke the token, by itself revoked or not
	Events      []Event           `json:"events,omitempty"`        // the newest first
	Receipt     *receipts.Receipt `json:"-"`                       // nil: no gateway is told of it
}

// Event is one event that went into what is known.
type Event struct {
	ID     string     `json:"id"`
	Time   *time.Time `json:"time,omitempty"`
	State  string     `json:"state"`
	Source string     `json:"source,omitempty"`
	Actor  string     `json:"actor,omitempty"`
	Reason string     `json:"reason,omitempty"`
}

// Until is a time in milliseconds since the epoch, or revocation.Never.
type Until int64

// String is RFC 3339, or "never".
func (u Until) String() string {
	if int64(u) >= revocation.Never {
		return "never"
	}
	return time.UnixMilli(int64(u)).UTC().Format(time.RFC3339)
}

// MarshalText writes what String returns.
func (u Until) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// Explainer is what is asked.
type Explainer struct {
	Record func(ctx context.Context, d revocation.Domain, digest revocation.Digest) (messaging.Record, error)
	// Stands says how gateways stand to a version now.
	Stands func(ctx context.Context, q receipts.Query) (receipts.Receipt, error)
	Claims []string // that rules may be on
	Grace  time.Duration
	Now    func() time.Time
}

// ErrName means that something is no name of a key.
var ErrName = errors.New("it names no key")

// Explain says what is known of a name: a token as it is, a jti, a digest with
// revocation.NamePrefix, or claim=value of a rule.
func (x Explainer) Explain(ctx context.Context, name string) (Explanation, error) {
	all, claims, err := keysOf(name)
	if err != nil {
		return Explanation{}, err
	}
	e := Explanation{Key: all[0].Name(), Domain: all[0].Domain.String(), State: None}
	found, err := x.first(ctx, all)
	if err != nil {
		return e, err
	}
	rules, err := x.rulesOn(ctx, claims)
	if err != nil {
		return e, err
	}
	for _, rule := range rules {
		e.Rules = append(e.Rules, rule.Name())
	}
	if found != nil {
		x.describe(&e, *found)
	}
	decided := rules
	switch {
	case found != nil && (len(rules) == 0 || e.State == Used || e.State == revocation.Revoked.String()):
		decided = []messaging.Record{*found}
	case len(rules) > 0:
		e = e.byRules()
	}
	e.Receipt, err = x.receipt(ctx, decided)
	return e, err
}

// byRules is e of a token that rules revoke, whatever is known of it by itself: who
// approved that has not decided.
func (e Explanation) byRules() Explanation {
	return Explanation{
		Key: e.Key, Domain: e.Domain, State: revocation.Revoked.String(), ActiveUntil: e.ActiveUntil, Tenant: e.Tenant,
		Rules: e.Rules, Events: e.Events,
	}
}

// receipt says how gateways stand to what decided; nil: they are not told of it.
func (x Explainer) receipt(ctx context.Context, decided []messaging.Record) (*receipts.Receipt, error) {
	if len(decided) == 0 || decided[0].Domain == revocation.DomainRefresh {
		return nil, nil //nolint:nilnil // there is none
	}
	part := receipts.Part{Series: decided[0].Domain.Series(), State: decided[0].State}
	var version uint64
	for _, r := range decided {
		version, part.Tenants = max(version, r.Version), append(part.Tenants, r.Tenant)
	}
	stands, err := x.Stands(ctx, receipts.Query{Version: version, Parts: []receipts.Part{part}})
	return &stands, err
}

// first is the record that counts of those that a name may mean: one that is
// revoked, else the first; nil: there is none.
func (x Explainer) first(ctx context.Context, all []messaging.GrantToken) (found *messaging.Record, err error) {
	for _, key := range all {
		record, err := x.Record(ctx, key.Domain, key.Digest)
		switch {
		case errors.Is(err, messaging.ErrNoRecord):
		case err != nil:
			return nil, err
		case found == nil || found.State != revocation.Revoked && record.State == revocation.Revoked:
			found = &record
		}
	}
	return found, nil
}

// keysOf are the keys that a name may mean, with the claims of a JWT.
func keysOf(name string) ([]messaging.GrantToken, *issuers.Claims, error) {
	claims, err := issuers.Parse(name)
	if err == nil {
		t, err := tokens.OfClaims(claims)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrName, err)
		}
		return []messaging.GrantToken{t.GrantToken, messaging.RefreshToken(name, 0)}, claims, nil // which may be a JWT too
	}
	if name == "" {
		return nil, nil, fmt.Errorf("%w: it is empty", ErrName)
	}
	if !errors.Is(err, issuers.ErrNotJWT) {
		return nil, nil, fmt.Errorf("%w: it looks like a JWT, and cannot be read as one", ErrName)
	}
	var all []messaging.GrantToken
	if rule, err := revocation.ParseRule(name); err == nil {
		all = append(all, messaging.GrantToken{Domain: revocation.DomainRule, Key: name, Digest: rule.Digest()})
	}
	if revocation.CheckKey(name) == nil {
		all = append(all, tokens.JTI(name))
	}
	if err := tokens.CheckOpaque(name); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrName, err)
	}
	all = append(all, tokens.Opaque(name), messaging.RefreshToken(name, 0))
	if strings.HasPrefix(name, revocation.NamePrefix) { // so answers name a JWT that fell with its refresh token
		all = append(all, messaging.GrantToken{Domain: revocation.DomainToken, Digest: tokens.Opaque(name).Digest})
	}
	return all, nil, nil
}

// RulesOn are the keys of the rules that revoke a token with these claims: those
// whose time is after its iat. One without iat is revoked by every rule on it.
func (x Explainer) RulesOn(ctx context.Context, claims *issuers.Claims) (keys []string, err error) {
	rules, err := x.rulesOn(ctx, claims)
	for _, rule := range rules {
		keys = append(keys, rule.Name())
	}
	return keys, err
}

// rulesOn are those rules, by their keys.
func (x Explainer) rulesOn(ctx context.Context, claims *issuers.Claims) (rules []messaging.Record, err error) {
	if claims == nil {
		return nil, nil
	}
	for name, value := range claims.Texts(x.Claims) {
		rule := revocation.Rule{Claim: name, Value: value}
		record, err := x.Record(ctx, revocation.DomainRule, rule.Digest())
		switch {
		case errors.Is(err, messaging.ErrNoRecord):
		case err != nil:
			return nil, err
		case record.State == revocation.Revoked && !record.Expired(x.Now(), x.Grace) && claims.IssuedBefore(record.Before):
			rules = append(rules, record)
		}
	}
	slices.SortFunc(rules, func(a, b messaging.Record) int { return cmp.Compare(a.Name(), b.Name()) })
	return rules, nil
}

// describe adds what a record says.
func (x Explainer) describe(e *Explanation, r messaging.Record) {
	e.Key, e.Domain, e.State = r.Name(), r.Domain.String(), r.State.String()
	switch {
	case r.Expired(x.Now(), x.Grace):
		e.State = None
	case r.Used():
		e.State = Used
	}
	expiry := Until(r.Expiry)
	e.ActiveUntil, e.Version, e.Time, e.Stored = &expiry, r.Version, micros(r.Time), &r.Stored
	e.Source, e.Reason, e.Tenant, e.Before = r.Source, r.Reason, r.Tenant, micros(r.Before*1000)
	for _, of := range r.Events {
		e.Events = append(e.Events, Event{of.ID, micros(of.Time), of.State.String(), of.Source, of.Actor, of.Reason})
	}
	if len(r.Events) > 0 {
		last := r.Events[0]
		e.EventID, e.Actor = last.ID, last.Actor
		e.Source, e.Reason = cmp.Or(last.Source, e.Source), cmp.Or(last.Reason, e.Reason)
	}
}

// micros is a time in microseconds since the epoch; nil: it is not known.
func micros(us int64) *time.Time {
	if us == 0 {
		return nil
	}
	at := time.UnixMicro(us).UTC()
	return &at
}
