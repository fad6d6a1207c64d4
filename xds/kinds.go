package xds

import (
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"revocation-adapter/revocation"
)

// The types of what is served.
const (
	// TypeURL is that of tokens: wso2.discovery.keymgt.RevokedToken, called by its
	// jti.
	TypeURL = "type.googleapis.com/wso2.discovery.keymgt.RevokedToken"
	// RuleTypeURL is that of rules: revocation.v1.Rule, called claim=value.
	RuleTypeURL = "type.googleapis.com/revocation.v1.Rule"
	// BatchTypeURL is that of what enforcers are told: revocation.v1.Batch, tokens
	// and rules together, which has no name.
	BatchTypeURL = "type.googleapis.com/revocation.v1.Batch"
)

// kind is a type of resources. Tokens and rules are a series of the log each,
// batches hold both.
type kind uint8

const (
	tokens  = kind(revocation.Tokens)
	rules   = kind(revocation.Rules)
	batches = kind(2)
	kinds   = 3
)

func (k kind) String() string {
	switch k {
	case rules:
		return "rules"
	case batches:
		return "batches"
	}
	return "tokens"
}

// kindOf returns the kind that a type URL names.
func kindOf(url string) (k kind, ok bool) {
	switch url {
	case TypeURL:
		return tokens, true
	case RuleTypeURL:
		return rules, true
	case BatchTypeURL:
		return batches, true
	}
	return 0, false
}

// types are those that the protocol carries, for people.
func (p protocol) types() string {
	if p == delta {
		return TypeURL + " and " + RuleTypeURL
	}
	return TypeURL + ", " + RuleTypeURL + " and " + BatchTypeURL
}

func (k kind) url() string {
	switch k {
	case rules:
		return RuleTypeURL
	case batches:
		return BatchTypeURL
	}
	return TypeURL
}

// newest is the version that a client must have reached to be told of nothing
// more. That of tokens rises with the log's, so that a deployed enforcer can be
// seen to follow it. Who wants rules alone is not woken for each token: his
// version stands still until a rule changes.
func (k kind) newest(s *revocation.Snapshot) uint64 {
	if k == rules {
		return s.Changed(revocation.Rules)
	}
	return s.Version()
}

// served says whether gateways are told of a domain's keys. Of refresh tokens
// they are not.
func (k kind) served(d revocation.Domain) bool {
	if k == rules {
		return d == revocation.DomainRule
	}
	return d == revocation.DomainToken || d == revocation.DomainOpaque
}

func (k kind) lookup(log *revocation.Log, name string) (revocation.Change, bool) {
	if k == rules {
		return log.LookupRule(name)
	}
	return log.Lookup(name)
}

// perEntry bounds what an entry takes on the wire beside its name, which it has
// twice at most.
func (k kind) perEntry() int {
	if k == rules {
		return perToken + revocation.MaxTenant + 32
	}
	return perToken
}

// size is that of the message that append makes.
func (k kind) size(c revocation.Change, name []byte) int {
	if k == rules {
		claim, value, _ := strings.Cut(string(name), "=")
		return sizeText(fieldClaim, claim) + sizeText(fieldValue, value) + sizeNumber(fieldBefore, c.Before()) +
			sizeNumber(fieldRuleExpiry, c.Expiry) + sizeText(fieldTenant, c.Tenant)
	}
	return sizeField(fieldJTI, len(name)) + sizeNumber(fieldExpiry, c.Expiry)
}

// append appends the message of a change.
func (k kind) append(b []byte, c revocation.Change, name []byte) []byte {
	if k == rules {
		claim, value, _ := strings.Cut(string(name), "=")
		b = appendText(appendText(b, fieldClaim, claim), fieldValue, value)
		b = appendNumber(appendNumber(b, fieldBefore, c.Before()), fieldRuleExpiry, c.Expiry)
		return appendText(b, fieldTenant, c.Tenant)
	}
	return appendNumber(appendBytes(b, fieldJTI, name), fieldExpiry, c.Expiry)
}

// What is empty is not on the wire.

func sizeText(field protowire.Number, text string) int {
	if text == "" {
		return 0
	}
	return sizeField(field, len(text))
}

func appendText(b []byte, field protowire.Number, text string) []byte {
	if text == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), text)
}

func sizeNumber(field protowire.Number, n int64) int {
	if n == 0 {
		return 0
	}
	return protowire.SizeTag(field) + protowire.SizeVarint(uint64(n)) // two's complement is the wire form
}

func appendNumber(b []byte, field protowire.Number, n int64) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), uint64(n)) // two's complement
}
