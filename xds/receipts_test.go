package xds_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"revocation-adapter/revocation"
	"revocation-adapter/xds"
)

func TestReceiptOfAGatewayThatIsHeldBack(t *testing.T) {
	t.Parallel()
	w := start(t)
	prompt, slow := w.gw(t, "prompt", xds.TypeURL, ""), w.gw(t, "slow", xds.TypeURL, "")
	pass(prompt)
	pass(slow)
	v := w.revoke("a")
	answer := w.awaiting(t, tokensRevoked(v))
	pass(prompt)
	held := slow.next()
	w.comes(t, tokensRevoked(v), xds.Standing{"prompt": xds.Enforced, "slow": xds.Pending})
	silent(t, answer)
	slow.ack(held)
	answered(t, answer, xds.Standing{"prompt": xds.Enforced, "slow": xds.Enforced})
}

func TestReceiptOfAGatewayThatRefuses(t *testing.T) {
	t.Parallel()
	w := start(t)
	c := w.gw(t, "gw", xds.TypeURL, "")
	pass(c)
	v := w.revoke("a")
	answer := w.awaiting(t, tokensRevoked(v))
	c.nack(c.next())
	until(t, "the NACK is counted", func() bool { return w.server.Gateways()[0].NACKs == 1 })
	silent(t, answer)
	if g := w.server.Gateways()[0]; g.LastNACK != "no" || g.Version >= v || g.Behind != 1 {
		t.Errorf("the gateway is %+v", g)
	}
	w.clock.move(time.Minute)
	pass(c)
	answered(t, answer, xds.Standing{"gw": xds.Enforced})
}

func TestReceiptOfAGatewayThatLeaves(t *testing.T) {
	t.Parallel()
	w := start(t)
	conn := w.dial()
	c := w.gwOn(t, conn, "leaves", xds.TypeURL, "")
	pass(c)
	stays := w.gw(t, "stays", xds.TypeURL, "")
	pass(stays)
	v := w.revoke("a")
	c.next()
	answer := w.awaiting(t, tokensRevoked(v))
	pass(stays)
	silent(t, answer)
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	answered(t, answer, xds.Standing{"leaves": xds.Gone, "stays": xds.Enforced})
}

// A gateway that comes while somebody waits has to load the set first.
func TestReceiptOfAGatewayThatComesLater(t *testing.T) {
	t.Parallel()
	w := start(t)
	first := w.gw(t, "first", xds.TypeURL, "")
	pass(first)
	v := w.revoke("a")
	answer := w.awaiting(t, tokensRevoked(v))
	second := w.gw(t, "second", xds.TypeURL, "")
	pass(first)
	silent(t, answer)
	pass(second)
	answered(t, answer, xds.Standing{"first": xds.Enforced, "second": xds.Enforced})
}

// Two streams are one gateway, and the ACK of either counts.
func TestReceiptOfTwoStreams(t *testing.T) {
	t.Parallel()
	w := start(t)
	conn := w.dial()
	first := w.gwOn(t, conn, "gw", xds.TypeURL, "")
	pass(first)
	second := w.gwOn(t, conn, "gw", xds.TypeURL, first.version)
	pass(second)
	v := w.revoke("a")
	answer := w.awaiting(t, tokensRevoked(v))
	first.next() // never answered
	silent(t, answer)
	pass(second)
	answered(t, answer, xds.Standing{"gw": xds.Enforced})
	if all := w.server.Gateways(); len(all) != 1 || all[0].Version != v {
		t.Errorf("gateways are %+v", all)
	}
}

// An ACK with the nonce of this stream's response and the version of another's
// says nothing of this one.
func TestReceiptNeedsTheVersionOfTheResponse(t *testing.T) {
	t.Parallel()
	w := start(t)
	c := w.gw(t, "gw", xds.TypeURL, "")
	pass(c)
	old := c.version
	v := w.revoke("a")
	resp := c.next()
	c.version = old
	c.send(&discovery.DiscoveryRequest{ResponseNonce: resp.GetNonce()})
	again := c.next() // for the version that it claims
	if f := w.stands(tokensRevoked(v)); f["gw"] != xds.Pending {
		t.Errorf("the gateway stands %v without an ACK of the version", f)
	}
	c.ack(again)
	w.comes(t, tokensRevoked(v), xds.Standing{"gw": xds.Enforced})
}

func TestReceiptOfTenants(t *testing.T) {
	t.Parallel()
	w := start(t)
	for name, tenants := range map[string][]string{"all": nil, "carbon": {"carbon"}, "other": {"other"}, "both": {"other", "carbon"}} {
		c := w.gw(t, name, xds.TypeURL, "", tenants...)
		pass(c)
	}
	v := w.put(of("carbon", revoked("a", later)))
	w.comes(t, tokensRevoked(v, "carbon"), xds.Standing{
		"all": xds.Pending, "carbon": xds.Pending, "both": xds.Pending, "other": xds.NotConcerned,
	})
	for _, everybodys := range []xds.Concern{tokensRevoked(v), tokensRevoked(v, "carbon", "")} {
		if f := w.stands(everybodys)["other"]; f == xds.NotConcerned {
			t.Errorf("what is of no tenant does not concern a gateway of tenants: %v", f)
		}
	}
}

// An enforcer of some tenants has a version in which nothing of theirs changed. It is
// told so later, with the next heartbeat.
func TestReceiptOfBatchesOfOtherTenants(t *testing.T) {
	t.Parallel()
	w := start(t)
	c := w.gw(t, "gw", xds.BatchTypeURL, "", "carbon")
	pass(c)
	theirs := w.put(of("carbon", revoked("a", later)))
	pass(c)
	v := w.put(of("other", revoked("b", later)))
	w.comes(t, tokensRevoked(v, "carbon", "other"), xds.Standing{"gw": xds.Enforced})
	again := w.gw(t, "gw", xds.BatchTypeURL, "", "carbon") // restarted, and loads
	again.next()
	witness := w.witness(t)
	after := w.put(of("other", revoked("c", later)))
	witness.follow(after) // and the stream of the past has been told
	if f := w.stands(tokensRevoked(theirs, "carbon"))["gw"]; f != xds.Pending {
		t.Errorf("it stands %v though it has not loaded its set", f)
	}
}

// What was reached with some tenants says nothing about the others.
func TestReceiptOfStreamsForDifferentTenants(t *testing.T) {
	t.Parallel()
	w := start(t)
	some, all := w.gw(t, "gw", xds.TypeURL, "", "carbon"), w.gw(t, "gw", xds.TypeURL, "")
	pass(some)
	pass(all)
	v := w.put(revoked("a", later))
	pass(some)
	all.next()
	w.comes(t, tokensRevoked(v, "other"), xds.Standing{"gw": xds.Pending})
	if f := w.stands(tokensRevoked(v, ""))["gw"]; f != xds.Pending {
		t.Errorf("it stands %v though its stream for all has not ACKed", f)
	}
}

// The state of the world only adds: the approval of a token is not told there.
func TestReceiptOfAnApproval(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.revoke("a")
	adds, incremental, enforcer := w.gw(t, "adds", xds.TypeURL, ""), w.deltaGW(t, "delta", xds.TypeURL), w.enforcerGW(t, "enforcer")
	pass(adds)
	incremental.accept()
	pass(enforcer)
	v := w.approve("a")
	approval := concern(v, part(revocation.Tokens, revocation.Approved))
	answer := w.awaiting(t, approval)
	pass(adds)
	pass(enforcer)
	silent(t, answer)
	incremental.accept()
	answered(t, answer, xds.Standing{"adds": xds.Cannot, "delta": xds.Enforced, "enforcer": xds.Enforced})
}

func TestReceiptOfRules(t *testing.T) {
	t.Parallel()
	w := start(t)
	tokensAlone, rulesAlone := w.gw(t, "tokens", xds.TypeURL, ""), w.gw(t, "rules", xds.RuleTypeURL, "")
	incremental, enforcer := w.deltaGW(t, "delta", xds.RuleTypeURL), w.enforcerGW(t, "enforcer")
	pass(tokensAlone)
	pass(rulesAlone)
	incremental.accept()
	pass(enforcer)
	v := w.put(rule("sub=alice", 1))
	revokedRule := concern(v, part(revocation.Rules, revocation.Revoked))
	answer := w.awaiting(t, revokedRule)
	pass(rulesAlone)
	pass(enforcer)
	silent(t, answer)
	incremental.accept()
	want := xds.Standing{"tokens": xds.Cannot, "rules": xds.Enforced, "delta": xds.Enforced, "enforcer": xds.Enforced}
	answered(t, answer, want)
	pass(tokensAlone)

	v = w.revoke("a")
	answer = w.awaiting(t, tokensRevoked(v))
	pass(enforcer)
	silent(t, answer)
	pass(tokensAlone)
	answered(t, answer, xds.Standing{
		"tokens": xds.Enforced, "rules": xds.NotConcerned, "delta": xds.NotConcerned, "enforcer": xds.Enforced,
	})
}

// Who wants rules alone is not told of the tokens that came after: the version of
// the last rule is as far as he gets.
func TestReceiptOfARuleAndTokensAfterIt(t *testing.T) {
	t.Parallel()
	w := start(t)
	rulesAlone := w.gw(t, "rules", xds.RuleTypeURL, "")
	pass(rulesAlone)
	atRule := w.put(rule("sub=alice", 1))
	both := concern(atRule+2, part(revocation.Rules, revocation.Revoked), part(revocation.Tokens, revocation.Revoked))
	answer := w.awaiting(t, both)
	pass(rulesAlone)
	silent(t, answer) // the log is not there yet, and may bring another rule
	w.revoke("a", "b")
	answered(t, answer, xds.Standing{"rules": xds.Enforced})
}

// A gateway that resumes has what it says that it has.
func TestReceiptAfterAReconnect(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{"tokens": xds.TypeURL, "batches": xds.BatchTypeURL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t)
			v := w.revoke("a")
			conn := w.dial()
			c := w.gwOn(t, conn, "gw", url, "")
			pass(c)
			w.comes(t, tokensRevoked(v), xds.Standing{"gw": xds.Enforced})
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
			until(t, "it has left", func() bool { return len(w.server.Gateways()) == 0 })
			if f := w.stands(tokensRevoked(v)); len(f) != 0 {
				t.Errorf("a gateway that left before stands %v", f)
			}
			next := w.revoke("b")
			w.gw(t, "gw", url, c.version) // it answers nothing
			w.comes(t, tokensRevoked(v), xds.Standing{"gw": xds.Enforced})
			w.comes(t, tokensRevoked(next), xds.Standing{"gw": xds.Pending})
		})
	}
}

// A gateway that was restarted has nothing, whatever a stream of its past has
// ACKed that nobody has closed yet.
func TestReceiptAfterARestart(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{"tokens": xds.TypeURL, "batches": xds.BatchTypeURL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t)
			v := w.revoke("a")
			pass(w.gw(t, "gw", url, ""))
			w.comes(t, tokensRevoked(v), xds.Standing{"gw": xds.Enforced})
			again := w.gw(t, "gw", url, "")
			w.comes(t, tokensRevoked(v), xds.Standing{"gw": xds.Pending})
			pass(again)
			w.comes(t, tokensRevoked(v), xds.Standing{"gw": xds.Enforced})
		})
	}
}

// A stream of the past that waits does not raise what the gateway has after its
// restart, when something comes that is not for it.
func TestReceiptAfterARestartWithTenants(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.put(of("carbon", revoked("a", later)))
	pass(w.gw(t, "gw", xds.TypeURL, "", "carbon"))
	v := w.put(of("other", revoked("b", later)))
	w.comes(t, tokensRevoked(v, "carbon"), xds.Standing{"gw": xds.Enforced})
	w.gw(t, "gw", xds.TypeURL, "", "carbon").next() // loads, and does not ACK
	w.comes(t, tokensRevoked(v, "carbon"), xds.Standing{"gw": xds.Pending})
	witness := w.witness(t)
	after := w.put(of("other", revoked("c", later)))
	witness.follow(after) // and the stream of the past has been told
	if f := w.stands(tokensRevoked(after, "carbon"))["gw"]; f != xds.Pending {
		t.Errorf("it stands %v though it has not loaded its set", f)
	}
}

// Who asks by name, and then for everything, has to load everything.
func TestReceiptOfWhoAskedByName(t *testing.T) {
	t.Parallel()
	w := start(t)
	v := w.revoke("a", "b")
	c := w.open(t, aggregated)
	c.names = []string{"a"}
	c.send(&discovery.DiscoveryRequest{Node: node("gw")})
	c.accept()
	w.comes(t, tokensRevoked(v), xds.Standing{"gw": xds.Enforced}) // all that it asked for
	c.names = nil
	c.names = []string{"*"}
	c.send(&discovery.DiscoveryRequest{ResponseNonce: ""})
	resp := c.next()
	w.comes(t, tokensRevoked(v), xds.Standing{"gw": xds.Pending})
	c.ack(resp)
	w.comes(t, tokensRevoked(v), xds.Standing{"gw": xds.Enforced})
}

func TestReceiptOfManyChunks(t *testing.T) {
	t.Parallel()
	w := start(t)
	v := w.revoke(threeChunks()...)
	c := w.gw(t, "gw", xds.TypeURL, "")
	pass(c)
	pass(c)
	third := c.next()
	w.comes(t, tokensRevoked(v), xds.Standing{"gw": xds.Pending})
	c.ack(third)
	w.comes(t, tokensRevoked(v), xds.Standing{"gw": xds.Enforced})
}

func TestReceiptWithoutGateways(t *testing.T) {
	t.Parallel()
	w := start(t)
	answered(t, w.awaiting(t, tokensRevoked(w.revoke("a"))), xds.Standing{})
}

func TestReceiptEndsWithItsTime(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.gw(t, "gw", xds.TypeURL, "")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if f := w.server.Await(ctx, tokensRevoked(w.revoke("a"))); f["gw"] != xds.Pending {
		t.Errorf("it stands %v", f)
	}
}

func TestReceiptStatusOfGateways(t *testing.T) {
	t.Parallel()
	w := start(t)
	pass(w.gw(t, "a", xds.TypeURL, "", "carbon", "abstract"))
	pass(w.gw(t, "b", xds.RuleTypeURL, ""))
	w.deltaGW(t, "b", xds.TypeURL).accept()
	v := w.revoke("x")
	until(t, "all ACKs have come", func() bool { return w.server.Gateways()[1].Behind == 1 })
	all := w.server.Gateways()
	if len(all) != 2 || all[0].Name != "a" || all[1].Name != "b" {
		t.Fatalf("gateways are %+v", all)
	}
	a, b := all[0], all[1]
	if got := fmt.Sprint(a.Protocols, a.Types, a.Tenants, a.NACKs); got != "[sotw] [tokens] [abstract carbon] 0" {
		t.Errorf("a is %s", got)
	}
	if got := fmt.Sprint(b.Protocols, b.Types, b.Tenants); got != "[sotw delta] [tokens rules] []" {
		t.Errorf("b is %s", got)
	}
	if !a.Since.Equal(origin) || !strings.HasPrefix(a.Address, "127.0.0.1:") || b.Behind != 1 || b.Version != v-1 {
		t.Errorf("a is %+v, b %+v", a, b)
	}
}

// How a gateway would stand that is gone says what it was when it was seen.
func TestReceiptOfWhoIsGone(t *testing.T) {
	t.Parallel()
	revokedToken := part(revocation.Tokens, revocation.Revoked)
	ofCarbon := revokedToken
	ofCarbon.Tenants = []string{"carbon"}
	cases := map[string]struct {
		gw   xds.GatewayStatus
		part xds.Part
		want xds.Figure
	}{
		"of all tenants":     {was("sotw", "tokens"), ofCarbon, xds.Gone},
		"of another tenant":  {was("sotw", "tokens", "other"), ofCarbon, xds.NotConcerned},
		"of no tenant":       {was("sotw", "tokens", "other"), revokedToken, xds.Gone},
		"rules alone":        {was("sotw", "rules"), revokedToken, xds.NotConcerned},
		"only adds":          {was("sotw", "tokens"), part(revocation.Tokens, revocation.Approved), xds.Cannot},
		"delta, an approval": {was("delta", "tokens"), part(revocation.Tokens, revocation.Approved), xds.Gone},
		"tokens, a rule":     {was("delta", "tokens"), part(revocation.Rules, revocation.Revoked), xds.Cannot},
		"batches, a rule":    {was("sotw", "batches"), part(revocation.Rules, revocation.Approved), xds.Gone},
		"nothing is known":   {xds.GatewayStatus{}, revokedToken, xds.Gone},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := c.gw.Stands(concern(1, c.part)); got != c.want {
				t.Errorf("it stands %v, want %v", got, c.want)
			}
		})
	}
}
