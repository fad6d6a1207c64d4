package page_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"revocation-adapter/revocation"
)

func (b *browser) press(keys ...string) {
	b.T.Helper()
	for _, key := range keys {
		b.Run(chromedp.KeyEvent(key))
	}
}

// stop is what has the focus, and whether one can see that it has.
type stop struct {
	ID      string `json:"id"`
	Seen    bool   `json:"seen"`
	Outline bool   `json:"outline"`
}

const focused = `(() => {
	const n = document.activeElement, box = n.getBoundingClientRect(), css = getComputedStyle(n);
	return {
		id: n === document.body ? "" : n.id || n.getAttribute("aria-label") || n.textContent.trim().slice(0, 40),
		seen: box.width > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
		outline: css.outlineStyle !== "none" && parseFloat(css.outlineWidth) >= 2,
	};
})()`

// tabTo presses Tab until what is wanted has the focus.
func (b *browser) tabTo(id string) {
	b.T.Helper()
	for range 100 {
		b.press(kb.Tab)
		if eval[stop](b, focused).ID == id {
			return
		}
	}
	b.T.Fatalf("Tab never comes to %s", id)
}

func TestPageByKeyboardAlone(t *testing.T) {
	s, b := newStage(t), newBrowser(t)
	s.fleet.join(40, s.version.Load())
	s.change(t, "b6f9", revocation.Revoked)
	s.api.bury("not understood")
	b.Run(navigate(s))
	b.Until(`document.activeElement.id === "client-id"`)
	b.press("alice", kb.Tab, secret, kb.Enter)
	b.Shows("#letters-rows", "not understood")

	b.tabTo("Gateways") // a link that skips to them
	b.press(kb.Enter, kb.Tab)
	if at := eval[stop](b, focused).ID; at != "gateways-filter" {
		t.Errorf("after the link the focus is on %q", at)
	}
	b.press("gw-0033")
	b.Shows("#gateways-count", "1 of 40")
	b.tabTo("Changes behind") // the head that sorts
	b.press(kb.Enter)
	b.Until(`document.querySelector("#gateways-head .c-lag").getAttribute("aria-sort") === "ascending"`)

	b.Do(`document.getElementById("title").focus()`)
	b.tabTo("act-token")
	b.press(jwt)
	b.tabTo("Revoke")
	b.press(kb.Enter)
	b.Shows("#receipt", "Revoked the token.")
	b.tabTo("Remove dead letter 1")
	b.press(kb.Enter)
	b.Until(`document.activeElement.id === "dialog-no"`)
	b.press(kb.Escape)
	b.Until(`document.activeElement.getAttribute("aria-label") === "Remove dead letter 1"`)
	b.press(kb.Enter, kb.Escape, kb.Enter, kb.Tab) // fast: a question that is over answers no later one
	b.Until(`document.activeElement.id === "dialog-yes"`)
	b.press(kb.Enter)
	b.Shows("#letters-note", "Dead letter 1 was removed")
	b.tabTo("sign-out")
	b.press(kb.Enter)
	b.Shows("#sign-in-note", "You have signed out")
}

// Everything that can be pressed has its turn, and can be seen when it has.
func TestPageTabReachesEverything(t *testing.T) {
	s, b := newStage(t), newBrowser(t)
	s.fleet.join(40, s.version.Load())
	s.change(t, "b6f9", revocation.Revoked)
	s.api.bury("not understood")
	b.enter(s)
	b.Shows("#letters-rows", "not understood")
	b.Shows("#gateways-rows", "gw-0001")
	wanted := eval[[]string](b, `[...document.querySelectorAll("#console :is(button, input, select, textarea, a, [tabindex='0'])")]
		.filter((n) => n.checkVisibility() && !(n.type === "radio" && !n.checked))
		.map((n) => n.id || n.getAttribute("aria-label") || n.textContent.trim().slice(0, 40))`)
	var met []string
	for range len(wanted) + 5 {
		b.press(kb.Tab)
		at := eval[stop](b, focused)
		if at.ID == "" || slices.Contains(met, at.ID) {
			continue
		}
		met = append(met, at.ID)
		if !at.Seen || !at.Outline {
			t.Errorf("%q has the focus, and nobody sees it: %+v", at.ID, at)
		}
	}
	for _, id := range wanted {
		if !slices.Contains(met, id) {
			t.Errorf("Tab never comes to %q", id)
		}
	}
	if len(wanted) < 30 {
		t.Errorf("only %d things can be reached: %s", len(wanted), strings.Join(wanted, ", "))
	}
}

// Every field has a name for who cannot see it, every table its heads, and levels
// of headings leave none out.
func TestPageHasNamesAndLandmarks(t *testing.T) {
	s, b := newStage(t), newBrowser(t)
	b.enter(s)
	for what, expression := range map[string]string{
		"fields without a label":        `[...document.querySelectorAll("input, select, textarea")].filter((n) => !n.labels?.length && !n.getAttribute("aria-label")).map((n) => n.id)`,
		"heads without a scope":         `[...document.querySelectorAll("thead th")].filter((n) => n.scope !== "col").map((n) => n.textContent)`,
		"sections without a heading":    `[...document.querySelectorAll("section")].filter((n) => !document.getElementById(n.getAttribute("aria-labelledby"))?.textContent.trim()).map((n) => n.id)`,
		"scrollers out of reach":        `[...document.querySelectorAll(".scroller")].filter((n) => n.tabIndex !== 0 || n.getAttribute("role") !== "region").map((n) => n.outerHTML)`,
		"ids that are there twice":      `[...document.querySelectorAll("[id]")].map((n) => n.id).filter((id, i, all) => all.indexOf(id) !== i)`,
		"scripts and styles in HTML":    `[...document.querySelectorAll("script:not([src]), style")].map((n) => n.outerHTML)`,
		"resources from somewhere else": `performance.getEntriesByType("resource").map((r) => r.name).filter((name) => !name.startsWith(location.origin + "/"))`,
	} {
		if found := eval[[]string](b, expression); len(found) > 0 {
			t.Errorf("%s: %q", what, found)
		}
	}
	for _, landmark := range []string{"header", "main", "nav"} {
		if n := eval[int](b, fmt.Sprintf(`[...document.querySelectorAll(%q)].filter((n) => n.checkVisibility()).length`, landmark)); n != 1 {
			t.Errorf("%d %s", n, landmark)
		}
	}
}
