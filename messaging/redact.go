package messaging

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"

	"revocation-adapter/revocation"
)

// What stands in a dead letter for a member that is none: a replay of it is not
// understood either.
const (
	noText = "[]"
	noList = "{}"
)

// redact replaces what may be an opaque token by its digest, by which a replay
// revokes it, if the envelope parses. Only the fields that an event has are kept
// then: another could hold the token as well. An event that does not parse is
// kept as it is.
func redact(event []byte) []byte {
	p, err := payloadOf(event)
	if err != nil {
		return event
	}
	kept := p.scalars("eventId", "ttl", "expiryTime", "type", "tenantId", "organization", "status")
	typ, _ := p.text("type", 0) // one that is no text is none of ours
	switch strings.ToLower(typ) {
	case TypeBatch:
		p.redactLists(kept)
		p.redactInner(kept, func(inner payload) payload {
			return inner.redactLists(inner.scalars(append(namesOfClient(), "organization", "tokenType")...))
		})
	case TypeConsumerApp, TypeSubjectEntity, TypeClaimRule:
		p.redactInner(kept, func(inner payload) payload {
			all := append(namesOfClient(), append(namesOfEntity(), namesOfTime()...)...)
			return inner.scalars(append(all, "entityType", "entity_type", "claim", "value", "organization")...)
		})
	default:
		p.redactToken(kept, typ)
	}
	redacted, err := json.Marshal(map[string]any{"event": map[string]any{"payloadData": kept}})
	if err != nil {
		return event
	}
	return redacted
}

// scalars are the members of these names. One that is no text could be anything.
func (p payload) scalars(of ...string) payload {
	kept := payload{}
	for _, name := range of {
		raw, ok := p[name]
		if !ok {
			continue
		}
		if _, err := p.text(name, 0); err != nil {
			raw = json.RawMessage(noText)
		}
		kept[name] = raw
	}
	return kept
}

// redactToken keeps what revokedToken says, or its digest.
func (p payload) redactToken(kept payload, typ string) {
	raw, ok := p["revokedToken"]
	if !ok {
		return
	}
	kept["revokedToken"] = raw
	switch token, err := p.text("revokedToken", 0); {
	case err != nil:
		kept["revokedToken"] = json.RawMessage(noText)
	case token != "" && !shown(token, typ):
		kept["revokedToken"] = quote(digestName(token))
	}
}

// redactInner keeps what revokedToken says in base64, redacted, or its digest.
func (p payload) redactInner(kept payload, redacted func(payload) payload) {
	inner, err := p.inner()
	if err != nil {
		p.redactToken(kept, "")
		return
	}
	text, err := json.Marshal(redacted(inner))
	if err != nil {
		kept["revokedToken"] = json.RawMessage(noText)
		return
	}
	kept["revokedToken"] = quote(base64.StdEncoding.EncodeToString(text))
}

// shown says whether the type promises that a token is no secret. A whole JWT in
// place of a jti is one.
func shown(token, typ string) bool {
	switch strings.ToUpper(typ) {
	case TypeJWT, TypeAPIKey:
		return strings.Count(token, ".") < 2
	}
	return false
}

func digestName(token string) string {
	return revocation.NamePrefix + OpaqueDigest(token).String()
}

// quote is a JSON string of what needs no escapes.
func quote(text string) json.RawMessage { return json.RawMessage(strconv.Quote(text)) }

// redactLists puts the lists of p into kept, entry by entry.
func (p payload) redactLists(kept payload) payload {
	inherited, _ := p.text("tokenType", 0) // one that is no text makes the event malformed
	for _, name := range namesOfLists() {
		raw, ok := p[name]
		if !ok {
			continue
		}
		var entries []json.RawMessage
		if json.Unmarshal(raw, &entries) != nil {
			kept[name] = json.RawMessage(noList)
			continue
		}
		for i, entry := range entries {
			entries[i] = redactEntry(entry, inherited)
		}
		list, err := json.Marshal(entries)
		if err != nil {
			list = []byte(noList)
		}
		kept[name] = list
	}
	return kept
}

// keptEntry is an entry of a list as a dead letter has it.
type keptEntry struct {
	ID     string `json:"jti,omitempty"`
	Token  string `json:"revokedToken,omitempty"`
	Type   string `json:"tokenType,omitempty"`
	Expiry string `json:"expiryTime,omitempty"`
}

func redactEntry(raw json.RawMessage, inherited string) json.RawMessage {
	t, err := readEntry(raw, inherited)
	if err != nil {
		return json.RawMessage(noText)
	}
	redacted, err := json.Marshal(t.redacted())
	if err != nil {
		return json.RawMessage(noText)
	}
	return redacted
}

// redacted is what may be kept of a token: by the name of a jti or by its digest
// it is revoked as well.
func (t Token) redacted() keptEntry {
	kept := keptEntry{Type: t.Type, Expiry: t.Expiry}
	e, err := t.Event()
	switch {
	case err == nil && e.Domain == revocation.DomainToken && strings.Count(e.Key, ".") < 2:
		kept.ID, kept.Type = e.Key, e.Type
		if e.Lifetime != revocation.Unknown {
			kept.Expiry = strconv.FormatInt(e.Expiry, 10)
		}
	case err == nil && e.Domain == revocation.DomainOpaque:
		kept.Token, kept.Type = digestName(t.Token), TypeDefault
	case t.Token != "":
		kept.Token, kept.Type = digestName(t.Token), cmp.Or(t.Type, e.Type)
	case t.ID != "": // it is none, and must not become an opaque token
		kept.Token, kept.Type = digestName(t.ID), cmp.Or(t.Type, TypeJWT)
	}
	return kept
}
