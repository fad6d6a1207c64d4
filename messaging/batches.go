package messaging

import (
	"encoding/json"
	"errors"
	"strings"

	"revocation-adapter/revocation"
)

// typeTokenRevocation is what an entry of a list may say it is, beside the type
// of its token.
const typeTokenRevocation = "token_revocation"

func namesOfLists() names  { return names{"revokedTokensList", "tokenRevocationEventList"} }
func namesOfToken() names  { return names{"accessToken", "revokedToken"} }
func namesOfExpiry() names { return names{"expiryTime", "expiry_time"} }

// Token is a token as a list names it, all of it text. Of Token and ID one is
// given.
type Token struct {
	Token  string // a whole token, a jti or an opaque token, by Type
	ID     string // a jti
	Type   string // TypeJWT, …; blank: a JWT where it is one, or else an opaque token
	Expiry string // as expiryTime
}

// Event is the event that revokes the token.
func (t Token) Event() (Event, error) {
	var e Event
	var err error
	if e.Expiry, e.Lifetime, err = normalExpiry(t.Expiry); err != nil {
		return Event{}, err
	}
	if t.ID != "" && t.Token == "" {
		err = e.setListed(t.ID, t.Type)
		return e, err
	}
	if t.Type == "" && t.Token != "" {
		if _, err := revocation.ReadJWT(t.Token); !errors.Is(err, revocation.ErrNotJWT) {
			t.Type = TypeJWT
		}
	}
	e.Type = t.Type
	err = e.setToken(t.Token)
	return e, err
}

// setListed takes a jti, of whatever kind.
func (e *Event) setListed(id, typ string) error {
	kind := revocation.KindNone
	switch strings.ToUpper(typ) {
	case TypeJWT:
		kind = revocation.KindJWT
	case TypeAPIKey:
		kind = revocation.KindAPIKey
	}
	e.Type = typ
	return e.setID(id, kind)
}

// batch reads the tokens that an event lists. All of them must be understood: one
// that is not makes the event malformed. Without a list, everything should be
// read again.
func (e Event) batch(p payload, status string) (Call, error) {
	call := Call{Type: e.Type}
	inner, _ := p.inner() // what is no object has no list: other receivers look at the type alone
	for _, object := range []payload{inner, p} {
		events, err := e.listed(object)
		if err != nil {
			return Call{}, err
		}
		call.Events = append(call.Events, events...)
	}
	call.Reload = len(call.Events) == 0
	if call.Reload && status == StatusApproved {
		return Call{}, malformed("it lists no token")
	}
	return call, nil
}

// listed returns the events of the tokens that an object lists. They have all
// else from e.
func (e Event) listed(object payload) ([]Event, error) {
	inherited, err := object.first(names{"tokenType"})
	if err != nil {
		return nil, err
	}
	if e.Tenant == "" {
		if e.Tenant, err = object.text("organization", MaxTenant); err != nil {
			return nil, err
		}
	}
	var events []Event
	for _, name := range namesOfLists() {
		var entries []json.RawMessage
		if raw, ok := object[name]; ok && string(raw) != `""` && json.Unmarshal(raw, &entries) != nil {
			return nil, malformed("%s is not a list", name)
		}
		for i, raw := range entries {
			one, err := e.entry(raw, inherited)
			if err != nil {
				return nil, malformed("entry %d of %s: %s", i, name, strings.TrimPrefix(err.Error(), ErrEvent.Error()+": "))
			}
			events = append(events, one)
		}
	}
	return events, nil
}

// entry reads one entry of a list: a jti, or an object.
func (e Event) entry(raw json.RawMessage, typ string) (Event, error) {
	t, err := readEntry(raw, typ)
	if err != nil {
		return Event{}, err
	}
	one, err := t.Event()
	if err != nil {
		return Event{}, err
	}
	if one.Lifetime == revocation.Unknown {
		one.Expiry, one.Lifetime = e.Expiry, e.Lifetime
	}
	one.ID, one.Tenant = e.ID, e.Tenant
	return one, nil
}

func readEntry(raw json.RawMessage, typ string) (Token, error) {
	var id string
	if json.Unmarshal(raw, &id) == nil && string(raw) != "null" {
		t := Token{ID: id, Type: typ}
		if typ != "" {
			t = Token{Token: id, Type: typ}
		}
		return t, nil
	}
	var object payload
	if json.Unmarshal(raw, &object) != nil || object == nil {
		return Token{}, malformed("it is neither a jti nor an object")
	}
	var t Token
	var own string
	if err := object.read(members{
		{&t.Token, namesOfToken()},
		{&t.ID, names{"jti"}},
		{&t.Type, names{"tokenType"}},
		{&own, names{"type"}},
		{&t.Expiry, namesOfExpiry()},
	}); err != nil {
		return Token{}, err
	}
	if t.Type == "" && !strings.EqualFold(own, typeTokenRevocation) {
		t.Type = own
	}
	if t.Type == "" {
		t.Type = typ
	}
	return t, nil
}
