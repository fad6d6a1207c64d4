package revocation

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of what an event says of itself, in bytes.
const (
	MaxEventID = 256
	MaxSource  = 64
	MaxActor   = 256
	MaxReason  = 512
)

// ErrEventText means that an event says something of itself that is not kept.
var ErrEventText = errors.New("what the event says of itself cannot be kept")

// Check reports why e cannot be kept, or nil: a text is too long, is no UTF-8, or
// holds a whole JWT, which somebody pasted there. It quotes none.
func (e Event) Check() error {
	for _, text := range []struct {
		name, is string
		limit    int
	}{
		{"id", e.ID, MaxEventID},
		{"source", e.Source, MaxSource},
		{"actor", e.Actor, MaxActor},
		{"reason", e.Reason, MaxReason},
	} {
		switch {
		case len(text.is) > text.limit:
			return fmt.Errorf("%w: its %s is longer than %d bytes", ErrEventText, text.name, text.limit)
		case !utf8.ValidString(text.is):
			return fmt.Errorf("%w: its %s is no UTF-8", ErrEventText, text.name)
		case HoldsJWT(text.is):
			return fmt.Errorf("%w: its %s holds a token", ErrEventText, text.name)
		}
	}
	return nil
}

// HoldsJWT says whether a text holds what looks like a whole JWT or JWE.
func HoldsJWT(text string) bool {
	for {
		_, after, found := strings.Cut(text, "eyJ") // of {" in base64
		if !found {
			return false
		}
		end := strings.IndexFunc(after, func(r rune) bool {
			return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=.", r)
		})
		if end < 0 {
			end = len(after)
		}
		if strings.Count(after[:end], ".") >= 2 {
			return true
		}
		text = after
	}
}

// After returns r, later than old where it says the other state: whoever decides
// now decides over what is known, whatever the clocks say. Nothing else is later
// than it is. What old lists already has the time that it has there, which may be
// such a later one: said again, it changes nothing.
func (r Revocation) After(old Revocation) Revocation {
	if len(r.Events) == 0 {
		r.Time = Event{Time: r.Time, State: r.State}.after(old)
		return r
	}
	r.Events = slices.Clone(r.Events)
	r.Time = 0
	for i, e := range r.Events {
		r.Events[i].Time = e.after(old)
		r.Time = max(r.Time, r.Events[i].Time)
	}
	return r
}

// after is the time of e in a record that comes after old.
func (e Event) after(old Revocation) int64 {
	if i := slices.IndexFunc(old.Events, e.same); e.ID != "" && i >= 0 {
		return old.Events[i].Time
	}
	if e.State == old.State || e.Time > old.Time || old.Time == math.MaxInt64 {
		return e.Time
	}
	return old.Time + 1
}
