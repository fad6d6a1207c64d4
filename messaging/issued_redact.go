package messaging

import (
	"encoding/json"
	"slices"
	"strings"

	"revocation-adapter/revocation"
)

// redactIssued keeps of an event of a token that was issued what is no secret, and
// the digests of its tokens, by which a replay puts it into the registry. Of one
// that does not parse nothing is kept: it may hold both tokens.
func redactIssued(event []byte) []byte {
	p, err := payloadOf(event)
	if err != nil {
		return []byte(noList)
	}
	if g, err := readIssued(event); err == nil {
		return keptOf(p.scalars("eventId"), g)
	}
	kept := p.scalars(slices.Concat(names{"eventId", "jti", "type", "tokenType", "tenantId", "organization"},
		namesOfExpiry(), namesOfRefreshExpiry(), namesOfClient(), namesOfUser())...)
	for name, raw := range kept {
		if revocation.HoldsJWT(string(raw)) {
			kept[name] = json.RawMessage(noText)
		}
	}
	typ, _ := p.first(names{"tokenType"}) // one that is no text makes the event malformed
	if typ == "" {
		typ, _ = p.text("type", 0)
	}
	for _, name := range namesOfIssued() {
		p.redactText(kept, name, func(token string) string {
			if t, err := (Token{Token: token, Type: typ}).Granted(); err == nil && t.Key != "" && strings.Count(t.Key, ".") < 2 {
				return t.Key
			}
			return digestName(token)
		})
	}
	for _, name := range namesOfRefresh() {
		p.redactText(kept, name, func(token string) string { return RefreshToken(token, 0).Name() })
	}
	return enveloped(kept)
}

// keptOf is the event of a grant, which it says the same of.
func keptOf(id payload, g Grant) []byte {
	kept := map[string]any{
		"consumerKey": g.Client, "user": g.Subject, "tenantId": g.Tenant, "tokenType": TypeDefault, "expiryTime": expiryTime(g.Access.Expiry),
	}
	for name, raw := range id {
		kept[name] = raw
	}
	if g.Access.Domain == revocation.DomainToken {
		kept["jti"], kept["tokenType"] = g.Access.Key, g.Access.kindName()
	} else {
		kept["accessToken"] = g.Access.Name()
	}
	if g.Refresh != (GrantToken{}) {
		kept["refreshToken"], kept["refreshExpiryTime"] = g.Refresh.Name(), expiryTime(g.Refresh.Expiry)
	}
	return enveloped(kept)
}

// expiryTime is an expiry as an event has it, where what is small is in seconds.
func expiryTime(millis int64) int64 {
	if millis < secondsBelow {
		return (millis + 999) / 1000
	}
	return millis
}

// kindName is the type that names the kind of a token with a jti.
func (t GrantToken) kindName() string {
	switch t.Kind {
	case revocation.KindJWT:
		return TypeJWT
	case revocation.KindAPIKey:
		return TypeAPIKey
	}
	return ""
}

func enveloped(kept any) []byte {
	event, err := json.Marshal(map[string]any{"event": map[string]any{"payloadData": kept}})
	if err != nil {
		return []byte(noList)
	}
	return event
}

// redactText puts a member that is a secret into kept, as safe makes it.
func (p payload) redactText(kept payload, name string, safe func(string) string) {
	if _, ok := p[name]; !ok {
		return
	}
	kept[name] = json.RawMessage(noText)
	text, err := p.text(name, 0)
	if err != nil {
		return
	}
	if text != "" {
		text = safe(text)
	}
	if quoted, err := json.Marshal(text); err == nil {
		kept[name] = quoted
	}
}
