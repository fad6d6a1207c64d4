package page_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"revocation-adapter/adapter/receipts"
	"revocation-adapter/revocation"
)

const jwt = "eyJhbGciOiJSUzI1NiJ9.eyJqdGkiOiJhYmMifQ.c2lnbmF0dXJl"

func TestPageSignsInOperatorsOnly(t *testing.T) {
	s, b := newStage(t), newBrowser(t)
	b.Allow("/page/session") // the browser writes down that signing in has failed
	b.Run(navigate(s))
	b.Until(`document.activeElement.id === "client-id"`)
	b.Fill("#client-id", "alice")
	b.Fill("#client-secret", "wrong\r")
	b.Shows("#sign-in-note", "Client id or secret is wrong")
	b.Clear("#client-id")
	b.Clear("#client-secret")
	b.Fill("#client-id", "app")
	b.Fill("#client-secret", secret+"\r")
	b.Shows("#sign-in-note", "This client is no operator")
	b.Clear("#client-id")
	b.Clear("#client-secret")
	b.Fill("#client-id", "alice")
	b.Fill("#client-secret", secret+"\r")
	b.Shows("#ready", "Ready")
	b.Shows("#client", "alice")
	if kept := eval[string](b, "document.cookie"); kept != "" {
		t.Error("a script can read the cookie")
	}
	if left := eval[string](b, `document.getElementById("client-secret").value`); left != "" {
		t.Error("the secret stays in the form")
	}
	b.Run(chromedp.Reload())
	b.Shows("#client", "alice")
}

func TestPageRevokesAndTheReceiptArrives(t *testing.T) {
	s, b := newStage(t), newBrowser(t)
	s.fleet.join(3, s.version.Load())
	s.fleet.stuck["gw-0003"] = true
	b.enter(s)
	b.Shows("#behind", "All 3 gateways are up to date")
	b.Fill("#act-token", jwt)
	b.Fill("#act-reason", "stolen laptop")
	b.Click("#act-form button.danger")
	b.Shows("#receipt", "Enforced by 0 of 3 connected gateways")
	s.fleet.confirm(s.version.Load())
	b.Shows("#receipt", "Enforced by 2 of 3 connected gateways")
	b.Shows("#receipt", "Waiting for (1): gw-0003")
	b.Picture("waiting")
	delete(s.fleet.stuck, "gw-0003")
	s.fleet.confirm(s.version.Load())
	b.Shows("#receipt", "Enforced by all 3 connected gateways")
	b.Until(`document.getElementById("receipt-said").textContent.includes("Enforced by all 3")`)
	b.Shows("#changes-rows tr:first-child", "Revoked")
	b.Shows("#f-revoked", "1")
	b.Shows("#f-delivery", "s")
	if left := eval[string](b, `document.getElementById("act-token").value`); left != "" {
		t.Error("the token stays on the screen")
	}
	orders := s.api.requests("/revocations")
	want := `{"tokens":[{"token":"` + jwt + `"}],"state":"revoked","reason":"stolen laptop"}`
	if len(orders) != 1 || orders[0].Body != want {
		t.Errorf("asked for %+v, want %s", orders, want)
	}
}

// Whom it concerns is what the adapter says, not the form; and who cannot be told is
// seen.
func TestPageReceiptOfWhomItConcerns(t *testing.T) {
	s, b := newStage(t), newBrowser(t)
	s.fleet.join(1, s.version.Load())
	s.api.tenants, s.fleet.cannot = []string{"acme", "other"}, 2
	b.enter(s)
	b.Click(`input[value="jti"]`)
	b.Fill("#act-jti", "3f1c")
	b.Fill("#act-tenant", "acme")
	b.Click("#act-form button.danger")
	b.Shows("#receipt", "Enforced by 0 of 1")
	s.fleet.confirm(s.version.Load())
	b.Shows("#receipt", "2 gateways cannot be told by their protocol, and go on accepting it")
	b.Until(`document.querySelector("#receipt .mark.ok") === null`)
	if asked := s.fleet.lastQuery(); len(asked.Parts) != 1 || fmt.Sprint(asked.Parts[0].Tenants) != "[acme other]" {
		t.Errorf("asked for %+v", asked)
	}
}

func TestPageAsksBeforeRulesAndApprovals(t *testing.T) {
	s, b := newStage(t), newBrowser(t)
	s.fleet.join(1, s.version.Load())
	b.enter(s)
	b.Click(`input[value="rule"]`)
	b.Fill("#act-claim", "sub")
	b.Fill("#act-value", "alice")
	b.Click("#act-form button.danger")
	b.Shows("#dialog", "Revoke all of these?")
	b.Shows("#dialog", "3 gateways are concerned")
	b.Picture("rule")
	b.Click("#dialog-no")
	b.Until(`!document.getElementById("dialog").open`)
	b.Click("#act-form button.danger")
	b.Click("#dialog-yes")
	b.Shows("#receipt", "Revoked sub=alice.")
	b.Click(`input[value="jti"]`)
	b.Fill("#act-jti", "3f1c")
	b.Click(`#act-form button[value="approved"]`)
	b.Shows("#dialog", "Approve again?")
	b.Click("#dialog-yes")
	b.Shows("#receipt", "Approved 3f1c.")
	var done []string
	for _, r := range s.api.requests("/revocations") {
		if !strings.Contains(r.Body, "dry_run") {
			done = append(done, r.Body)
		}
	}
	want := `[{"rules":[{"claim":"sub","value":"alice"}],"state":"revoked"} {"tokens":[{"jti":"3f1c","type":"JWT"}],"state":"approved"}]`
	if fmt.Sprint(done) != want {
		t.Errorf("did %s, want %s", done, want)
	}
}

func TestPageShowsAThousandGateways(t *testing.T) {
	s, b := newStage(t), newBrowser(t)
	s.fleet.join(1000, s.version.Load())
	s.fleet.stuck["gw-0417"], s.fleet.stuck["gw-0902"] = true, true
	s.fleet.edit(func(all []receipts.Gateway) { all[6].Connected, all[7].NACKs, all[7].LastNACK = false, 2, "too large" })
	b.enter(s)
	b.Shows("#gateways-count", "1,000")
	s.fleet.confirm(s.change(t, "b6f9", revocation.Revoked))
	// What it confirmed on one stream is the newest, on another it misses something.
	s.fleet.edit(func(all []receipts.Gateway) { all[949].Lag = 1 })
	b.Shows("#behind", "3 gateways are behind, 1 gateway is not connected.")
	b.Shows("#gateways-rows tr:nth-child(2)", "gw-0417")
	b.Shows("#gateways-rows tr:nth-child(4)", "gw-0950")
	b.Shows("#gateways-rows tr:nth-child(5)", "gw-0007")
	b.Shows("#f-current", "996 of 1,000")
	if rows := eval[int](b, `document.querySelectorAll("#gateways-rows tr").length`); rows > 60 {
		t.Errorf("%d rows are in the document", rows)
	}
	b.Picture("behind")
	b.Fill("#gateways-filter", "gw-09 adapter-1")
	b.Shows("#gateways-count", "33 of 1,000")
	b.Clear("#gateways-filter")
	b.Choose("#gateways-only", "refused")
	b.Shows("#gateways-count", "1 of 1,000")
	b.Shows("#gateways-rows", "gw-0008")
	b.Choose("#gateways-only", "")
	b.Click("#gateways-head .c-name button")
	b.Shows("#gateways-rows tr:nth-child(2)", "gw-0001")
	b.Click("#gateways-head .c-name button")
	b.Shows("#gateways-rows tr:nth-child(2)", "gw-1000")
	b.Do(`document.getElementById("gateways-scroller").scrollTop = 1e9`)
	b.Shows("#gateways-rows", "gw-0001")
	at := eval[string](b, `[...document.querySelectorAll("#gateways-rows tr")].at(-2).getAttribute("aria-rowindex")`)
	if at != "1001" {
		t.Errorf("the last row says it is row %s", at)
	}
	s.fleet.edit(func(all []receipts.Gateway) { all[0].Name = "renamed" })
	b.Do(`document.getElementById("gateways-scroller").scrollTop = 0`)
	b.Shows("#gateways-rows tr:nth-child(2)", "renamed")
	b.Shows("#gateways-count", "1,000")
}

func TestPageSaysWhyItIsNotReady(t *testing.T) {
	s, b := newStage(t), newBrowser(t)
	b.enter(s)
	s.notReady.Store(true)
	b.Shows("#ready", "Not ready: the log is not complete yet")
	b.Shows("#behind", "No gateway is known yet")
	b.Shows("#sources-rows", "the control plane answers 503")
	b.Picture("not-ready")
	s.change(t, "first-of-replay", revocation.Revoked)
	b.Shows("#changes-rows", "first-of-replay")
	s.change(t, "second-of-replay", revocation.Revoked)
	b.Shows("#changes-rows tr:first-child", "second-of-replay")
	b.Shows("#changes-rows tr:first-child", "earlier") // it is no news
	if rows := eval[int](b, `document.querySelectorAll("#changes-rows tr").length`); rows != 2 {
		t.Errorf("%d rows for two changes", rows)
	}
	b.Shows("#f-rate", "0.0")
	s.notReady.Store(false)
	b.Shows("#ready", "Ready: everything")
}

func TestPageExplains(t *testing.T) {
	s, b := newStage(t), newBrowser(t)
	b.enter(s)
	s.change(t, "b6f9aa44-2d56-4f12-9c0f-1d1d0a5b7a10", revocation.Revoked)
	b.Shows("#changes-rows tr:first-child", "Revoked")
	b.Click("#changes-rows tr:first-child button")
	b.Shows("#look-answer", "Revoked: gateways refuse it")
	s.change(t, "<img src=x onerror=alert(1)>", revocation.Revoked)
	b.Shows("#changes-rows tr:first-child", "<img src=x onerror=alert(1)>")
	b.Shows("#look-answer", "stolen laptop")
	b.Shows("#look-answer", "3 enforce it, 0 wait, 1 not reachable, 1 not concerned, 0 cannot be told")
	b.Picture("explained")
	b.Clear("#look-what")
	b.Fill("#look-what", jwt+"\r")
	b.Shows("#look-answer", "Not known")
	b.Clear("#look-what")
	b.Fill("#look-what", "of-a-rule\r")
	b.Shows("#look-answer", "Revoked: gateways refuse it")
	b.Shows("#look-answer", "azp=stolen")
	b.Clear("#look-what")
	b.Fill("#look-what", "of-one-call\r")
	b.Shows("#look-answer", "Used up: gateways refuse it")
	b.Shows("#look-answer button", "Approve again")
	asked := s.api.requests("/revocations/explain")
	if len(asked) != 4 || !strings.Contains(asked[1].Body, `"Token":"`+jwt) {
		t.Errorf("a token is asked for as %+v", asked)
	}
}

func TestPageReplaysAndRemovesDeadLetters(t *testing.T) {
	s, b := newStage(t), newBrowser(t)
	s.api.bury("the event is not understood: it is not a JSON object")
	s.api.bury("the type foo is not known")
	b.enter(s)
	b.Shows("#f-letters", "2")
	b.Shows("#letters-rows tr:first-child", "not a JSON object")
	b.Click(`button[aria-label="Show dead letter 1"]`)
	b.Shows("#dialog", "<b>hello</b> é") // as text
	b.Click("#dialog-no")
	b.Click(`button[aria-label="Remove dead letter 1"]`)
	b.Shows("#dialog", "deleted for good")
	b.Click("#dialog-no")
	b.Until(`!document.getElementById("dialog").open`)
	if n := len(s.api.list()); n != 2 {
		t.Fatalf("%d are left, though nobody confirmed", n)
	}
	b.Click(`button[aria-label="Replay dead letter 1"]`)
	b.Click("#dialog-yes")
	b.Shows("#letters-note", "Dead letter 1 was published again")
	b.Shows("#letters-count", "1")
	b.Click(`button[aria-label="Remove dead letter 2"]`)
	b.Click("#dialog-yes")
	b.Shows("#letters-none", "There is none")
	b.Shows("#f-letters", "0")
	if n := len(s.api.requests("/deadletters/1/replay")) + len(s.api.requests("/deadletters/2")); n != 2 {
		t.Errorf("%d requests", n)
	}
	s.api.bury("it comes by itself")
	b.Shows("#letters-rows", "it comes by itself")
	b.Click("#sign-out")
	b.enter(s)
	b.Shows("#letters-rows", "it comes by itself")
	for range 120 {
		s.api.bury("one of many")
	}
	b.Shows("#letters-count", "the first 100 of 121")
}

func TestPageEndsWithTheSession(t *testing.T) {
	for name, end := range map[string]func(*stage, *browser){
		"idle":           func(s *stage, _ *browser) { s.late.Store(int64(15 * time.Minute)) },
		"no operator":    func(s *stage, _ *browser) { s.removed.Store(true) },
		"signed out":     func(_ *stage, b *browser) { b.Click("#sign-out") },
		"in another tab": func(_ *stage, b *browser) { b.Do(signOutElsewhere) },
	} {
		t.Run(name, func(t *testing.T) {
			s, b := newStage(t), newBrowser(t)
			s.fleet.join(2, s.version.Load())
			b.enter(s)
			s.change(t, "the-token-that-was-seen", revocation.Revoked)
			b.Shows("#gateways-rows", "gw-0001")
			b.Shows("#changes-rows", "the-token-that-was-seen")
			b.Do(`document.querySelector("#changes-rows button").focus()`) // which holds the list
			end(s, b)
			b.Shows("#sign-in-note", map[bool]string{true: "You have signed out", false: "Your session has ended"}[name == "signed out"])
			left := eval[string](b, `document.body.textContent`)
			for _, seen := range []string{"gw-0001", "the-token-that-was-seen", "the control plane answers 503"} {
				if strings.Contains(left, seen) {
					t.Errorf("%s stays in the document", seen)
				}
			}
			if who := eval[string](b, `fetch("/page/session").then((r) => r.text())`); strings.Contains(who, "alice") {
				t.Errorf("the session is still there: %s", who)
			}
		})
	}
}

const signOutElsewhere = `(async () => {
	const who = await (await fetch("/page/session")).json();
	await fetch("/page/session", {method: "DELETE", headers: {"X-CSRF-Token": who.token}});
})()`

// A page whose connection was cut says so, comes back by itself, and shows what it
// missed. One whose session ended meanwhile asks to sign in.
func TestPageConnectsAgain(t *testing.T) {
	s, b := newStage(t), newBrowser(t)
	b.Allow("net::ERR_") // the browser writes down what was cut
	b.Allow("/page/events")
	b.enter(s)
	s.change(t, "before", revocation.Revoked)
	b.Shows("#changes-rows", "before")
	s.cut()
	b.Shows("#link", "Connection lost")
	s.change(t, "meanwhile", revocation.Revoked)
	b.Shows("#link", "Live")
	b.Shows("#changes-rows", "meanwhile")
	if rows := eval[int](b, `document.querySelectorAll("#changes-rows tr").length`); rows != 2 {
		t.Errorf("%d rows for two changes", rows)
	}
	s.late.Store(int64(20 * time.Minute))
	s.cut()
	b.Shows("#sign-in-note", "Your session has ended")
}
