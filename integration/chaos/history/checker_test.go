package history_test

import (
	"strings"
	"testing"
	"time"

	"revocation-adapter/integration/chaos/history"
	"revocation-adapter/revocation"
)

func began() time.Time { return time.UnixMilli(1_795_000_000_000) }

const (
	revoked  = revocation.Revoked
	approved = revocation.Approved

	sotw, other, third = 0, 1, 2 // gateways of clean; the last two are delta
)

// builder makes a history in which every event reaches every gateway.
type builder struct {
	history.History
	clock   time.Duration
	version uint64
}

func (b *builder) event(jti, id string, state revocation.State, life time.Duration) {
	b.clock += 10 * time.Millisecond
	sent := b.clock
	b.clock += 10 * time.Millisecond
	b.Events = append(b.Events, history.Event{
		JTI: jti, ID: id, State: state, Expiry: began().Add(life).UnixMilli(), Sent: sent, Acked: b.clock,
	})
	b.Hub[jti] = state
}

// deliver tells every gateway that it may be told of.
func (b *builder) deliver(jti string, state revocation.State, but ...int) {
	b.clock += 10 * time.Millisecond
	b.version++
	for i, g := range b.Gateways {
		r := history.Response{Gateway: i, At: b.clock, Version: b.version}
		left := false
		for _, o := range but {
			left = left || o == i
		}
		switch {
		case left:
		case state == revoked:
			r.Added = []string{jti}
		case g.Delta:
			r.Removed = []string{jti}
		}
		b.Responses = append(b.Responses, r)
	}
}

// acknowledged revokes the token told, and has a receipt that names so many gateways.
func (b *builder) acknowledged(gateways int) {
	b.publish("told", "x", revoked)
	e := &b.Events[len(b.Events)-1]
	e.Enforced, e.Told = gateways, b.clock
}

func (b *builder) publish(jti, id string, state revocation.State) {
	b.event(jti, id, state, time.Hour)
	b.deliver(jti, state)
}

// clean has a token that is revoked, one that is approved again, one that is
// revoked, approved and revoked, one that was approved only, one that expired,
// and a repeat of a revocation after the approval.
func clean() *builder {
	b := &builder{History: history.History{
		Began: began(), End: time.Minute, Grace: time.Second,
		Gateways: []history.Gateway{{Name: "sotw"}, {Name: "delta-1", Delta: true}, {Name: "delta-2", Delta: true}},
		Hub:      map[string]revocation.State{},
	}}
	b.publish("revoked", "e1", revoked)
	b.publish("approved", "e2", revoked)
	b.publish("approved", "e3", approved)
	b.event("approved", "e2", revoked, time.Hour) // a repeat
	b.Hub["approved"] = approved
	for i, state := range []revocation.State{revoked, approved, revoked} {
		b.publish("again", "a"+string(rune('0'+i)), state)
	}
	b.publish("harmless", "e4", approved)
	b.event("expired", "e5", revoked, 2*time.Second)
	delete(b.Hub, "expired")
	return b
}

func TestCheck(t *testing.T) {
	t.Parallel()
	type want struct{ lost, wrong, regressions, diverged, receipts, unacked int }
	for name, c := range map[string]struct {
		spoil func(*builder)
		want  want
	}{
		"a clean history": {func(*builder) {}, want{}},
		"a gateway misses a revocation": {func(b *builder) {
			b.event("lost", "x", revoked, time.Hour)
			b.deliver("lost", revoked, other)
		}, want{lost: 1, diverged: 1}},
		"a state-of-the-world gateway misses one": {func(b *builder) {
			b.event("lost", "x", revoked, time.Hour)
			b.deliver("lost", revoked, sotw)
		}, want{lost: 1}},
		"all gateways miss one": {func(b *builder) {
			b.event("lost", "x", revoked, time.Hour)
		}, want{lost: 1, diverged: 2}},
		"the hub misses one": {func(b *builder) {
			b.publish("lost", "x", revoked)
			delete(b.Hub, "lost")
		}, want{lost: 1}},
		"the hub says approved": {func(b *builder) { b.Hub["again"] = approved }, want{lost: 1}},
		"a delta gateway drops what is revoked": {func(b *builder) {
			b.Responses = append(b.Responses, history.Response{Gateway: third, Version: b.version, Removed: []string{"revoked"}})
		}, want{lost: 1, diverged: 1}},
		"a delta gateway keeps what is approved": {func(b *builder) {
			b.Responses = append(b.Responses, history.Response{Gateway: third, Version: b.version, Added: []string{"approved"}})
		}, want{wrong: 1, diverged: 1}},
		"the hub keeps what is approved": {func(b *builder) { b.Hub["approved"] = revoked }, want{wrong: 1}},
		"a token that nobody revoked": {func(b *builder) {
			b.Responses = append(b.Responses, history.Response{Gateway: sotw, Version: b.version, Added: []string{"stranger"}})
		}, want{wrong: 1}},
		"a token that was only ever approved": {func(b *builder) {
			b.Responses = append(b.Responses, history.Response{Gateway: sotw, Version: b.version, Added: []string{"harmless"}})
		}, want{wrong: 1}},
		"a stranger at a delta gateway": {func(b *builder) {
			b.Responses = append(b.Responses, history.Response{Gateway: other, Version: b.version, Added: []string{"stranger"}})
		}, want{wrong: 1, diverged: 1}},
		"a stranger in the hub": {func(b *builder) { b.Hub["stranger"] = revoked }, want{wrong: 1}},
		"a version falls": {func(b *builder) {
			b.Responses = append(b.Responses, history.Response{Gateway: sotw, Replica: 1, Version: b.version - 1})
		}, want{regressions: 1}},
		"a version falls and stays below": {func(b *builder) {
			for range 2 {
				b.Responses = append(b.Responses, history.Response{Gateway: other, Version: b.version - 1})
			}
		}, want{regressions: 2}},
		"a version stands still": {func(b *builder) {
			b.Responses = append(b.Responses, history.Response{Gateway: sotw, Version: b.version})
		}, want{}},
		"delta gateways disagree on what is in doubt": {func(b *builder) {
			b.publish("doubt", "x", revoked)
			b.event("doubt", "y", approved, time.Hour)
			b.Events[len(b.Events)-1].Acked = 0
			b.Responses = append(b.Responses, history.Response{Gateway: other, Version: b.version, Removed: []string{"doubt"}})
		}, want{diverged: 1, unacked: 1}},
		"what is in doubt is not lost": {func(b *builder) {
			b.event("doubt", "x", revoked, time.Hour)
			b.Events[len(b.Events)-1].Acked = 0
			delete(b.Hub, "doubt")
		}, want{unacked: 1}},
		"a receipt that is true":                    {func(b *builder) { b.acknowledged(3) }, want{}},
		"a receipt that names one gateway too many": {func(b *builder) { b.acknowledged(4) }, want{receipts: 1}},
		"a receipt that is early": {func(b *builder) {
			b.acknowledged(3)
			b.Events[len(b.Events)-1].Told -= 11 * time.Millisecond
		}, want{receipts: 1}},
		"a receipt of what was revoked before": {func(b *builder) {
			b.publish("told", "first", revoked)
			b.acknowledged(4) // of a repeat nobody is told anew
		}, want{}},
		"grace keeps a token alive": {func(b *builder) {
			b.event("grace", "x", revoked, b.End-b.Grace/2)
		}, want{lost: 1, diverged: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := clean()
			c.spoil(b)
			v := history.Check(b.History)
			got := want{len(v.Lost), len(v.False), len(v.Regressions), len(v.Diverged), len(v.Receipts), v.Unacked}
			if got != c.want {
				t.Errorf("got %+v, want %+v: %+v", got, c.want, v)
			}
			if v.Passed() != (c.want == want{}) {
				t.Errorf("passed is %t for %+v", v.Passed(), got)
			}
		})
	}
}

// A fault is told with what is needed to find it in the logs.
func TestAFaultSaysWhat(t *testing.T) {
	t.Parallel()
	b := clean()
	b.event("lost", "x", revoked, time.Hour)
	b.deliver("lost", revoked, other)
	v := history.Check(b.History)
	if len(v.Lost) != 1 || !strings.Contains(v.Lost[0], "lost, revoked as x at ") || !strings.HasSuffix(v.Lost[0], "missing from [delta-1]") {
		t.Errorf("got %q", v.Lost)
	}
}

func TestDelays(t *testing.T) {
	t.Parallel()
	b := clean()
	b.clock = 10 * time.Second
	b.Faults = []history.Fault{
		{Kind: "pause", From: 11 * time.Second, To: 20 * time.Second},
		{Kind: "kill", From: 40 * time.Second, To: 41 * time.Second},
		{Kind: "kill", From: 50 * time.Second, To: 51 * time.Second},
	}
	b.event("slow", "s1", revoked, time.Hour)
	b.deliver("slow", revoked, third)
	b.Responses = append(b.Responses, history.Response{Gateway: third, At: 15 * time.Second, Version: b.version, Added: []string{"slow"}})
	b.clock = 30 * time.Second
	b.event("overtaken", "o1", revoked, time.Hour)
	b.event("overtaken", "o2", approved, time.Hour)
	b.clock += time.Second
	b.deliver("overtaken", approved)
	b.event("expired at last", "l1", revoked, b.clock+time.Second)
	b.clock += 2 * time.Second
	b.deliver("expired at last", revoked)

	got := map[string]history.Delay{}
	for _, d := range history.Check(b.History).Delays {
		got[d.Kind] = d
	}
	if d := got["pause"]; d.Worst != 15*time.Second-10*time.Second-20*time.Millisecond || d.Faults != 1 || d.Events != 1 {
		t.Errorf("under a pause: %+v", d)
	}
	if d := got["kill"]; d.Worst != 0 || d.Faults != 2 || d.Events != 0 {
		t.Errorf("under kills: %+v", d)
	}
	if d := got[""]; d.Worst != time.Second+10*time.Millisecond || d.Faults != 0 {
		t.Errorf("without a fault: %+v", d)
	}
}
