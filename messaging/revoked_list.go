package messaging

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// errList means that the control plane's answer is not what it should be.
var errList = errors.New("the answer is not understood")

// The lists of the newer answer. The older one is an array of revokedTokens.
const (
	listOfTokens  = "revokedJWTList"
	listOfClients = "revokedJWTConsumerKeyList"
	listOfUsers   = "revokedJWTSubjectEntityList"
)

// revokedList reads the control plane's answer entry by entry: its memory does
// not grow with it.
type revokedList struct {
	dec     *json.Decoder
	rules   Rules
	take    func(Event) error // an error of it ends the reading
	refused func(error)       // called for an entry that is not understood
	goesOn  func()            // called when a value was read to its end
}

// read reads the answer to its end.
func (l *revokedList) read() error {
	begin, err := l.dec.Token()
	switch {
	case err != nil:
		return l.broken(err)
	case begin == json.Delim('['):
		err = l.entries(l.token)
	case begin == json.Delim('{'):
		err = l.lists()
	default:
		return fmt.Errorf("%w: it is neither an array nor an object", errList)
	}
	if err != nil {
		return err
	}
	if _, err := l.dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows it", errList)
	}
	return nil
}

// lists reads an object. Without one of the lists it is something else, an error
// perhaps, and never an empty set.
func (l *revokedList) lists() error {
	found := false
	for l.dec.More() {
		name, err := l.dec.Token()
		if err != nil {
			return l.broken(err)
		}
		entry := l.entry(name)
		if entry == nil {
			if err := l.skip(); err != nil {
				return err
			}
			continue
		}
		found = true
		switch begin, err := l.dec.Token(); {
		case err != nil:
			return l.broken(err)
		case begin == nil: // null
		case begin != json.Delim('['):
			return fmt.Errorf("%w: %v is not an array", errList, name)
		default:
			if err := l.entries(entry); err != nil {
				return err
			}
		}
	}
	if _, err := l.dec.Token(); err != nil {
		return l.broken(err)
	}
	if !found {
		return fmt.Errorf("%w: it has none of the lists", errList)
	}
	return nil
}

// entry is how an entry of a list is read; nil: it is none of them.
func (l *revokedList) entry(name json.Token) func() (Event, error) {
	switch name {
	case listOfTokens:
		return l.token
	case listOfClients:
		return func() (Event, error) { return l.rule(l.client) }
	case listOfUsers:
		return func() (Event, error) { return l.rule(l.entity) }
	}
	return nil
}

// entries reads what is left of an array.
func (l *revokedList) entries(read func() (Event, error)) error {
	for l.dec.More() {
		e, err := read()
		l.goesOn()
		switch {
		case errors.Is(err, ErrEvent):
			l.refused(err)
		case err != nil:
			return err
		default:
			if err := l.take(e); err != nil {
				return err
			}
		}
	}
	if _, err := l.dec.Token(); err != nil {
		return l.broken(err)
	}
	return nil
}

// token reads an entry that names a token. There may be a million.
func (l *revokedList) token() (Event, error) {
	var entry struct {
		Signature json.RawMessage `json:"jwt_signature"`
		Expiry    json.RawMessage `json:"expiry_time"`
	}
	if err := l.decode(&entry); err != nil {
		return Event{}, err
	}
	p := payload{}
	if entry.Signature != nil {
		p["jwt_signature"] = entry.Signature
	}
	if entry.Expiry != nil {
		p["expiry_time"] = entry.Expiry
	}
	var t Token
	if err := p.read(members{{&t.ID, names{"jwt_signature"}}, {&t.Expiry, names{"expiry_time"}}}); err != nil {
		return Event{}, err
	}
	return t.Event()
}

// rule reads an entry that names a rule.
func (l *revokedList) rule(of func(payload) (Event, error)) (Event, error) {
	var p payload
	if err := l.decode(&p); err != nil {
		return Event{}, err
	}
	e, err := of(p)
	if err != nil {
		return Event{}, err
	}
	e.Tenant, err = p.text("organization", MaxTenant)
	return e, err
}

func (l *revokedList) client(p payload) (Event, error) {
	var key, before string
	if err := p.read(members{{&key, namesOfClient()}, {&before, namesOfTime()}}); err != nil {
		return Event{}, err
	}
	return l.rules.Client(key, before)
}

func (l *revokedList) entity(p payload) (Event, error) {
	var id, typ, before string
	if err := p.read(members{
		{&id, namesOfEntity()},
		{&typ, names{"entity_type", "entityType"}},
		{&before, namesOfTime()},
	}); err != nil {
		return Event{}, err
	}
	return l.rules.Entity(id, typ, before)
}

// decode reads one value. One of another kind is an entry that is not understood.
func (l *revokedList) decode(to any) error {
	err := l.dec.Decode(to)
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return malformed("an entry of a list is a %s", kind.Value)
	}
	if err != nil {
		return l.broken(err)
	}
	return nil
}

// skip reads over a value, token by token.
func (l *revokedList) skip() error {
	for depth := 0; ; {
		token, err := l.dec.Token()
		if err != nil {
			return l.broken(err)
		}
		l.goesOn()
		switch token {
		case json.Delim('['), json.Delim('{'):
			depth++
		case json.Delim(']'), json.Delim('}'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

// broken is an answer that ends early, or is no JSON. The error of the decoder
// could quote what it read.
func (l *revokedList) broken(err error) error {
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: it ends early, after %d bytes", errList, l.dec.InputOffset())
	case errors.Is(err, errLongValue):
		return err
	case errors.As(err, &syntax):
		return fmt.Errorf("%w: it is no JSON, at byte %d", errList, syntax.Offset)
	}
	return fmt.Errorf("%w: %w", errList, err)
}
