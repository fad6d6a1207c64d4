package control

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"unicode/utf8"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// headerEffect says what a call has changed: revoked, approved, or none with the
// reason.
const headerEffect = "Revocation-Effect"

// The reasons for which a call changes nothing.
const (
	none     = "none"
	unknown  = "unknown"         // nobody knows such a token
	notValid = "invalid"         // no gateway should accept it
	expired  = "expired"         // no gateway accepts it any more
	already  = "already_revoked" // or approved
	notSo    = "not_revoked"
)

// effect is what a call comes to.
type effect struct {
	state   revocation.State
	reason  string // why it is none; "" otherwise
	changed []messaging.GrantToken
	version uint64              // up to which gateways must be for it to hold; 0: they are not told of it
	tenants []string            // of each record that gateways are told of, whatever the call says
	series  []revocation.Series // the same
}

// maxReason bounds what a caller may say of why, in bytes.
const maxReason = 256

// reasonOf reads why the caller does it.
func reasonOf(text string) (string, error) {
	if len(text) > maxReason || !utf8.ValidString(text) || strings.ContainsAny(text, "\r\n\x00") || revocation.HoldsJWT(text) {
		return "", invalid("reason must be a line of at most 256 bytes, and hold no token")
	}
	return text, nil
}

// record is what the call says of a token.
func (c *call) record(t messaging.GrantToken, tenant string, s statement) revocation.Revocation {
	life := revocation.Dated
	if t.Expiry == 0 || t.Unknown {
		life = revocation.Unknown
	}
	e := messaging.Event{
		ID: s.event, Domain: t.Domain, Key: t.Key, Digest: t.Digest, Kind: t.Kind,
		Expiry: t.Expiry, Lifetime: life, Tenant: tenant,
	}
	return c.dated(e, s)
}

// statement is what a call says, and who does.
type statement struct {
	state         revocation.State
	event         string
	actor, reason string
}

// says is the statement of this call.
func (c *call) says(state revocation.State, reason string) statement {
	return statement{state: state, event: c.event, actor: c.client.ID, reason: reason}
}

func (c *call) dated(e messaging.Event, s statement) revocation.Revocation {
	now := c.cfg.Now()
	r := e.Revocation(messaging.Dating{
		State: s.state, Source: messaging.SourceHTTP, At: now, Came: now, UnknownLife: c.cfg.UnknownLife, Rules: c.cfg.Rules,
	})
	r.Events = []revocation.Event{{
		ID: s.event, Time: r.Time, State: s.state, Source: messaging.SourceHTTP, Actor: s.actor, Reason: s.reason,
	}}
	return r
}

// put stores what the call says of tokens, and returns what it comes to.
func (c *call) put(all []messaging.GrantToken, tenant string, s statement) (effect, error) {
	e := effect{state: s.state, reason: already}
	c.received(all[0])
	records := make([]revocation.Revocation, 0, len(all))
	for _, t := range all {
		records = append(records, c.record(t, tenant, s))
	}
	outcomes := c.core.Decisions.Put(c.lasting.Context(), records...)
	if err := firstError(outcomes); err != nil {
		return effect{}, err
	}
	for i, o := range outcomes {
		e.note(records[i], o)
		if effective(records[i].Domain, s.state, o) {
			e.changed, e.reason = append(e.changed, all[i]), ""
		}
	}
	return e, nil
}

// effective says whether what was put has done something. A longer expiry alone is
// nothing; a token that is told to more tenants, or a rule that refuses more, is.
func effective(d revocation.Domain, state revocation.State, o messaging.Outcome) bool {
	return o.Changed && (o.Was != state || o.Wider || d == revocation.DomainRule)
}

// received tells of an event as every other way in does.
func (c *call) received(t messaging.GrantToken) {
	typ := messaging.TypeJWT
	switch {
	case t.Domain == revocation.DomainRule:
		typ = messaging.TypeClaimRule
	case t.Domain != revocation.DomainToken:
		typ = messaging.TypeDefault
	case t.Kind == revocation.KindAPIKey:
		typ = messaging.TypeAPIKey
	}
	c.cfg.Log.Info("Event ", typ, " is received")
}

// note takes a record that is in the log into account: its version, and whom it
// concerns. Gateways are never told of refresh tokens.
func (e *effect) note(r revocation.Revocation, o messaging.Outcome) {
	if r.Domain == revocation.DomainRefresh {
		return
	}
	e.version = max(e.version, o.Version)
	e.tenants = append(e.tenants, o.Tenant)
	e.series = append(e.series, r.Domain.Series())
}

func firstError(outcomes []messaging.Outcome) error {
	for _, o := range outcomes {
		switch {
		case errors.Is(o.Err, messaging.ErrFull):
			return &fault{
				status: http.StatusServiceUnavailable, code: "temporarily_unavailable",
				detail: "the log holds as many revocations as it may: nothing new is stored until some expire or revocation.max_live is raised", wait: 60,
			}
		case errors.Is(o.Err, context.Canceled):
			return o.Err
		case o.Err != nil:
			return storeFault(o.Err)
		}
	}
	return nil
}

// storeFault says that the hub does not take it now. The cause stays in our log.
func storeFault(err error) error {
	return errors.Join(unavailable("it is not known to be stored: try again"), err)
}

// readFault says that the hub does not answer a question now.
func readFault(err error) error {
	return errors.Join(unavailable("the hub does not answer now: try again"), err)
}

// nothing is an effect without one.
func nothing(reason string) effect { return effect{reason: reason} }

// tell answers with what a call came to: an empty body, or the receipt that was
// asked for.
func (c *call) tell(e effect) error {
	word := e.state.String()
	if e.reason != "" {
		word = none + `; reason="` + e.reason + `"`
	}
	c.w.Header().Set(headerEffect, word)
	c.entry.EventID, c.entry.Version, c.entry.Count = c.event, e.version, len(e.changed)
	if e.reason != "" {
		c.entry.EventID = ""
	}
	c.audit(cmp.Or(e.reason, e.state.String()), http.StatusOK)
	wait, asked := prefersWait(c.r.Header)
	if !asked {
		c.w.WriteHeader(http.StatusOK)
		return nil
	}
	return c.tellReceipt(e, wait)
}
