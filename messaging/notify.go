package messaging

import (
	"context"
	"encoding/json"
	"strings"

	"revocation-adapter/revocation"
)

// TypeToken is the type of a notification that names one token. The others are
// those of the bus.
const TypeToken = typeTokenRevocation

// DecodeNotification reads what key managers announce to the control plane over
// HTTP: an object with the members of an event, of one of four types.
func DecodeNotification(body []byte, rules Rules) (Call, error) {
	var p payload
	if err := json.Unmarshal(body, &p); err != nil || p == nil {
		return Call{}, malformed("it is not a JSON object")
	}
	e, err := readCommon(p)
	if err != nil {
		return Call{}, err
	}
	var events []Event
	switch strings.ToLower(e.Type) {
	case TypeBatch:
		call, err := e.batch(p, StatusRevoked)
		if err != nil {
			return Call{}, err
		}
		return Call{Type: e.Type, Events: happened(call.Events, p), Reload: call.Reload}, nil
	case TypeToken:
		events, err = notifiedToken(p)
	case TypeConsumerApp, TypeSubjectEntity:
		events, err = notifiedRule(p, rules)
	default:
		return Call{}, malformed("its type is none that this version handles")
	}
	if err != nil {
		return Call{}, err
	}
	for i := range events {
		events[i].ID, events[i].Tenant = e.ID, e.Tenant
	}
	return Call{Type: events[0].Type, Events: happened(events, p)}, nil
}

func notifiedToken(p payload) ([]Event, error) {
	var t Token
	if err := p.read(members{
		{&t.Token, namesOfToken()},
		{&t.Type, names{"tokenType"}},
		{&t.Expiry, namesOfExpiry()},
	}); err != nil {
		return nil, err
	}
	e, err := t.Event()
	return []Event{e}, err
}

func notifiedRule(p payload, rules Rules) ([]Event, error) {
	var typ, client, entity, entityType, before string
	if err := p.read(members{
		{&typ, names{"type"}},
		{&client, namesOfClient()},
		{&entity, namesOfEntity()},
		{&entityType, names{"entityType", "entity_type"}},
		{&before, namesOfTime()},
	}); err != nil {
		return nil, err
	}
	read := func() (Event, error) { return rules.Entity(entity, entityType, before) }
	if strings.EqualFold(typ, TypeConsumerApp) {
		read = func() (Event, error) { return rules.Client(client, before) }
	}
	e, err := read()
	return []Event{e}, err
}

// happened dates events as their publisher does. A rule has its own time; what is
// not in milliseconds is no date.
func happened(events []Event, p payload) []Event {
	text, err := p.first(names{"timeStamp", "timestamp"})
	at, ok := wholeNumber(text)
	if err != nil || !ok || !at.IsInt64() || at.Int64() < secondsBelow {
		return events
	}
	for i := range events {
		if events[i].Domain != revocation.DomainRule {
			events[i].Happened = at.Int64()
		}
	}
	return events
}

// Notify stores what a notification says, and returns when the log has it. An
// error that wraps ErrEvent is the sender's.
func (in *Intake) Notify(ctx context.Context, body []byte, report *Report) error {
	err := in.notify(ctx, body, report)
	report.Failed(err)
	return err
}

func (in *Intake) notify(ctx context.Context, body []byte, report *Report) error {
	now := in.hub.cfg.Now()
	call, err := DecodeNotification(body, in.hub.cfg.Rules)
	for _, e := range call.Events {
		if err == nil {
			err = e.Check(now)
		}
	}
	if err != nil {
		in.log.WithField("reason", err).Error("A notification is refused")
		return err
	}
	in.log.Info("Event ", call.Type, " is received")
	in.log.Debug("RevokedToken: ", masked, ", Token Type: ", call.Type)
	if call.Reload {
		if in.Reload == nil {
			return malformed("it lists no token, and there is no control plane to read them from")
		}
		in.Reload()
		return nil
	}
	stored, n := report.Begin(now), 0
	_, err = in.Store(ctx, Decoded{Source: SourceNotify, State: revocation.Revoked, Events: call.Events, At: now, Came: now})
	if err == nil {
		n = len(call.Events)
	}
	stored(n)
	return err
}
