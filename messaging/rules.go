package messaging

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"revocation-adapter/revocation"
)

// The types of events that name many tokens: by a rule, or one by one.
const (
	TypeConsumerApp   = "consumer_app_revocation_event"   // of a client
	TypeSubjectEntity = "subject_entity_revocation_event" // of a user or a client
	TypeClaimRule     = "claim_rule"                      // that carry a claim: ours
	TypeBatch         = "token_revocation_batch"
)

// The types of entity that a TypeSubjectEntity may name.
const (
	EntityUser   = "USER_ID"
	EntityClient = "CLIENT_ID"
)

// Rules says which claims rules are made of, and how long a rule counts.
type Rules struct {
	ClientClaim string        // names the client that a token was issued to
	UserClaim   string        // names the user
	Claims      []string      // that a TypeClaimRule may name
	MaxLifetime time.Duration // of any token: so long after its watermark a rule counts; 0: for ever
}

// MaxAhead is how far in the future a watermark may be: beyond what clocks
// differ, it would refuse tokens that nobody has issued yet.
const MaxAhead = 24 * time.Hour

// Client is the event that revokes what was issued to a client before a time, in
// milliseconds since the epoch, as text.
func (r Rules) Client(key, before string) (Event, error) {
	return publishedRule(TypeConsumerApp, revocation.Rule{Claim: r.ClientClaim, Value: key}, before)
}

// Entity is the event that revokes what was issued to an entity, of EntityUser or
// EntityClient, before a time, in milliseconds since the epoch, as text.
func (r Rules) Entity(id, entityType, before string) (Event, error) {
	rule := revocation.Rule{Claim: r.UserClaim, Value: id}
	switch strings.ToUpper(entityType) {
	case EntityUser:
	case EntityClient:
		rule.Claim = r.ClientClaim
	default:
		return Event{}, malformed("its entityType is neither %s nor %s", EntityUser, EntityClient)
	}
	return publishedRule(TypeSubjectEntity, rule, before)
}

// publishedRule is a rule that happened at its own time, if that is not after it
// came.
func publishedRule(typ string, rule revocation.Rule, before string) (Event, error) {
	e, err := ruleEvent(typ, rule)
	if err != nil {
		return Event{}, err
	}
	e.Before, err = watermark(before)
	e.Happened = e.Before
	return e, err
}

func ruleEvent(typ string, rule revocation.Rule) (Event, error) {
	if err := rule.Check(); err != nil {
		return Event{}, malformed("%v", err)
	}
	return Event{
		Type: typ, Domain: revocation.DomainRule, Key: rule.Key(),
		Digest: revocation.DigestOf(revocation.DomainRule, rule.Key()), Lifetime: revocation.Unknown,
	}, nil
}

// watermark reads milliseconds since the epoch. What is too small was meant to be
// seconds, or nothing at all.
func watermark(text string) (int64, error) {
	n, ok := wholeNumber(strings.TrimSpace(text))
	switch {
	case text == "":
		return 0, malformed("the time of the rule is missing")
	case !ok || !n.IsInt64():
		return 0, malformed("the time of the rule is not a whole number of milliseconds")
	case n.Sign() < 0:
		return 0, malformed("the time of the rule is negative")
	case n.Int64() < secondsBelow:
		return 0, malformed("the time of the rule is not in milliseconds")
	}
	return n.Int64(), nil
}

// Check reports why an event that came at a time cannot be one, or nil.
func (e Event) Check(at time.Time) error {
	if e.Before > at.Add(MaxAhead).UnixMilli() {
		return malformed("the time of the rule is more than %s ahead", MaxAhead)
	}
	return nil
}

// The names of members, as they are spelled on the bus and in HTTP bodies.
type names []string

func namesOfClient() names { return names{"consumer_key", "consumerKey", "client_id", "clientId"} }
func namesOfEntity() names { return names{"entityId", "entity_id"} }
func namesOfTime() names {
	return names{"revocationTime", "revocation_time", "issuedBefore", "issued_before"}
}

// read reads an event of a type that names a rule. Common is what events of every
// type have.
func (r Rules) read(common Event, p payload, status string) (Event, error) {
	inner, err := p.inner()
	if err != nil {
		return Event{}, err
	}
	typ := strings.ToLower(common.Type)
	if status == StatusApproved && typ != TypeClaimRule {
		return Event{}, malformed("a rule is lifted by type %s", TypeClaimRule)
	}
	if common.Tenant == "" {
		if common.Tenant, err = inner.text("organization", MaxTenant); err != nil {
			return Event{}, err
		}
	}
	e, err := r.rule(typ, status, inner)
	if err != nil {
		return Event{}, err
	}
	if typ == TypeClaimRule && status == StatusRevoked {
		e.Expiry, e.Lifetime = common.Expiry, common.Lifetime
	}
	e.ID, e.Type, e.Tenant = common.ID, common.Type, common.Tenant
	return e, nil
}

// rule reads what revokedToken says in an event of a type that names a rule.
func (r Rules) rule(typ, status string, inner payload) (Event, error) {
	var id, entityType, before, claim, value string
	of := namesOfEntity()
	if typ == TypeConsumerApp {
		of = namesOfClient()
	}
	err := inner.read(members{
		{&id, of},
		{&entityType, names{"entityType", "entity_type"}},
		{&before, namesOfTime()},
		{&claim, names{"claim"}},
		{&value, names{"value"}},
	})
	switch {
	case err != nil:
		return Event{}, err
	case typ == TypeConsumerApp:
		return r.Client(id, before)
	case typ == TypeSubjectEntity:
		return r.Entity(id, entityType, before)
	}
	return r.claimRule(status, revocation.Rule{Claim: claim, Value: value}, before)
}

// claimRule is a rule on any of Claims. It happens when it comes. What lifts a
// rule has no watermark.
func (r Rules) claimRule(status string, rule revocation.Rule, before string) (Event, error) {
	if !slices.Contains(r.Claims, rule.Claim) {
		return Event{}, malformed("its claim is none of rules.claims: %s", strings.Join(r.Claims, ", "))
	}
	e, err := ruleEvent(TypeClaimRule, rule)
	if err != nil {
		return Event{}, err
	}
	if status == StatusRevoked || before != "" {
		e.Before, err = watermark(before)
	}
	if status == StatusApproved {
		e.Before = 0
	}
	return e, err
}

// expiry is when the last token that a rule covers has expired.
func (r Rules) expiry(before int64) (int64, revocation.Lifetime) {
	if r.MaxLifetime == 0 {
		return revocation.Never, revocation.Forever
	}
	return before + r.MaxLifetime.Milliseconds(), revocation.Dated
}

// first returns the first member of these names that is not blank.
func (p payload) first(of names) (string, error) {
	for _, name := range of {
		if text, err := p.text(name, 0); err != nil || text != "" {
			return text, err
		}
	}
	return "", nil
}

// members says where to put what members say.
type members []struct {
	to *string
	of names
}

func (p payload) read(all members) (err error) {
	for _, m := range all {
		if *m.to, err = p.first(m.of); err != nil {
			return err
		}
	}
	return nil
}

// inner reads revokedToken as base64 of a JSON object, of either alphabet, padded
// or not.
func (p payload) inner() (payload, error) {
	text, err := p.text("revokedToken", 0)
	if err != nil {
		return nil, err
	}
	if text == "" {
		return nil, malformed("revokedToken is missing")
	}
	text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(strings.TrimSpace(text), "="))
	raw, err := base64.RawStdEncoding.DecodeString(text)
	var inner payload
	if err != nil || json.Unmarshal(raw, &inner) != nil || inner == nil {
		return nil, malformed("revokedToken is not base64 of a JSON object")
	}
	return inner, nil
}
