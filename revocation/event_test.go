package revocation_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"revocation-adapter/revocation"
)

func TestEventTexts(t *testing.T) {
	const jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2VjcmV0"
	for name, tt := range map[string]struct {
		event revocation.Event
		bad   bool
	}{
		"nothing":             {revocation.Event{}, false},
		"everything":          {revocation.Event{ID: "e1", Source: "http", Actor: "alice", Reason: "stolen laptop, v1.2.3"}, false},
		"the longest":         {revocation.Event{Actor: strings.Repeat("a", revocation.MaxActor), Reason: strings.Repeat("r", revocation.MaxReason)}, false},
		"a long id":           {revocation.Event{ID: strings.Repeat("x", revocation.MaxEventID+1)}, true},
		"a long source":       {revocation.Event{Source: strings.Repeat("x", revocation.MaxSource+1)}, true},
		"a long actor":        {revocation.Event{Actor: strings.Repeat("x", revocation.MaxActor+1)}, true},
		"a long reason":       {revocation.Event{Reason: strings.Repeat("x", revocation.MaxReason+1)}, true},
		"no UTF-8":            {revocation.Event{Reason: "\xff"}, true},
		"a token":             {revocation.Event{Reason: jwt}, true},
		"a token in a text":   {revocation.Event{Reason: "found (" + jwt + ") on eyJ"}, true},
		"a token of an actor": {revocation.Event{Actor: "Bearer " + jwt}, true},
		"a name like a token": {revocation.Event{Reason: "eyJ.is how they begin. Always."}, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := tt.event.Check()
			if (err != nil) != tt.bad || tt.bad && !errors.Is(err, revocation.ErrEventText) {
				t.Fatalf("got %v", err)
			}
			if tt.bad && (strings.Contains(err.Error(), jwt) || strings.Contains(err.Error(), "xxx")) {
				t.Errorf("%v quotes it", err)
			}
		})
	}
}

// Whoever decides now wins over a time in the future; what is a repeat does not.
func TestAfterIsLaterThanWhatItOverturns(t *testing.T) {
	of := func(id string, state revocation.State, at int64) revocation.Revocation {
		return revocation.Revocation{
			Domain: revocation.DomainToken, Key: "j", State: state, Time: at, Expiry: 1, Lifetime: revocation.Dated,
			Events: []revocation.Event{{ID: id, Time: at, State: state, Actor: "alice"}},
		}
	}
	for name, tt := range map[string]struct {
		old, next revocation.Revocation
		state     revocation.State
		at        int64
	}{
		"an approval over a revocation of the future": {of("e1", revocation.Revoked, 100), of("e2", revocation.Approved, 5), revocation.Approved, 101},
		"a revocation over an approval of the future": {of("e1", revocation.Approved, 100), of("e2", revocation.Revoked, 5), revocation.Revoked, 101},
		"an approval at the same time":                {of("e1", revocation.Revoked, 5), of("e2", revocation.Approved, 5), revocation.Approved, 6},
		"a later one has its own time":                {of("e1", revocation.Revoked, 5), of("e2", revocation.Approved, 9), revocation.Approved, 9},
		"the same state is not later":                 {of("e1", revocation.Revoked, 100), of("e2", revocation.Revoked, 5), revocation.Revoked, 100},
		"what overturned the future, again": {
			revocation.Merge(of("e1", revocation.Revoked, 100), of("e2", revocation.Approved, 101)), of("e2", revocation.Approved, 5), revocation.Approved, 101,
		},
		"a repeat overturns nothing": {
			revocation.Merge(of("e1", revocation.Revoked, 5), of("e2", revocation.Approved, 9)), of("e1", revocation.Revoked, 7), revocation.Approved, 9,
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := tt.next.Events[0]
			merged := revocation.Merge(tt.old, tt.next.After(tt.old))
			if merged.State != tt.state || merged.Time != tt.at || merged.Events[0].Time != tt.at {
				t.Errorf("got %+v, want %s at %d", merged, tt.state, tt.at)
			}
			if tt.next.Events[0] != before {
				t.Errorf("what was given is changed to %+v", tt.next.Events[0])
			}
		})
	}
	if got := of("e2", revocation.Approved, 5).After(of("e1", revocation.Revoked, math.MaxInt64)); got.Time < 0 {
		t.Errorf("over the last moment it is of %d", got.Time)
	}
}
