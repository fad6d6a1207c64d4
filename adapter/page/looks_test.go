package page_test

import (
	"fmt"
	"testing"
	"time"

	"revocation-adapter/adapter/receipts"
	"revocation-adapter/revocation"
)

// furnish has something to see in every part.
func furnish(t *testing.T, s *stage, b *browser) {
	t.Helper()
	s.fleet.join(240, s.version.Load())
	s.fleet.stuck["gw-0017"] = true
	s.fleet.edit(func(all []receipts.Gateway) {
		all[40].Connected = false
		all[7].NACKs, all[7].LastNACK, all[7].Tenants = 3, "too large", []string{"carbon.super", "example.com"}
	})
	s.api.bury("the event is not understood: it is not a JSON object")
	s.api.bury("the type token_renewal_event is not known")
	b.enter(s)
	for i := range 12 {
		delete(s.fleet.stuck, "gw-0017")
		version := s.change(t, fmt.Sprintf("b6f9aa44-2d56-4f12-9c0f-1d1d0a5b7a%02x", i), []revocation.State{revocation.Revoked, revocation.Approved}[i/10])
		b.Shows("#f-version", fmt.Sprint(version))
		s.fleet.confirm(version)
		b.Until(fmt.Sprintf(`document.querySelectorAll("#chart .bar").length > %d`, i))
	}
	s.fleet.stuck["gw-0017"] = true
	s.fleet.confirm(s.change(t, "the-last-of-them", revocation.Revoked))
	b.Shows("#behind", "1 gateway is behind")
	b.Click(`#changes-rows tr:nth-child(2) button`)
	b.Shows("#look-answer", "stolen laptop")
	b.Fill("#act-token", jwt)
	b.Click("#act-form button.danger")
	b.Shows("#receipt", "Waiting for")
	s.fleet.confirm(s.version.Load())
	b.Shows("#receipt", "Waiting for (1): gw-0017")
}

// The page can be read on a telephone and on a wide screen, in the dark and in the
// light.
func TestPageLooks(t *testing.T) {
	s, b := newStage(t), newBrowser(t)
	b.Theme("light")
	b.Run(navigate(s))
	b.Shows("#gate", "Sign in")
	b.Picture("sign-in")
	furnish(t, s, b)
	for _, theme := range []string{"light", "dark"} {
		b.Theme(theme)
		for _, width := range []int64{1600, 1024, 360} {
			b.Resize(width, 900)
			<-time.After(300 * time.Millisecond) // transitions of colours
			b.Picture(fmt.Sprintf("%s-%d", theme, width))
			if over := eval[int](b, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
				t.Errorf("%s at %d: the page is %d pixels too wide: %s", theme, width, over, eval[string](b, tooWide))
			}
			for _, pale := range eval[[]string](b, paleTexts) {
				t.Errorf("%s at %d: hard to read: %s", theme, width, pale)
			}
		}
	}
	b.Do(`document.getElementById("title").scrollIntoView()`)
	b.Click("#letters-rows tr:first-child .buttons button:last-child")
	b.Shows("#dialog", "deleted for good")
	b.Picture("dialog")
}

const tooWide = `[...document.querySelectorAll("body *")].filter((n) => n.getBoundingClientRect().right > innerWidth + 1 && !n.closest(".scroller, .skip, .unseen")).map((n) => n.tagName + "#" + n.id).slice(0, 5).join(" ")`

// paleTexts are those whose contrast with what is behind them is below 4.5 (WCAG AA).
const paleTexts = `(() => {
	const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number); return { rgb: [r, g, b], a }; };
	const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
	const light = (rgb) => { const [r, g, b] = rgb.map(linear); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
	const ground = (n) => {
		for (; n; n = n.parentElement) { const c = parse(getComputedStyle(n).backgroundColor); if (c.a > 0.99) return c.rgb; }
		return [255, 255, 255];
	};
	const found = new Set();
	const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walker.nextNode()) {
		const n = walker.currentNode.parentElement;
		if (!walker.currentNode.data.trim() || !n.checkVisibility({ checkVisibilityCSS: true }) || n.closest("script, noscript, .unseen")) continue;
		const css = getComputedStyle(n);
		const [x, y] = [light(parse(n.closest("svg") ? css.fill : css.color).rgb), light(ground(n))].sort((p, q) => q - p);
		const ratio = (x + 0.05) / (y + 0.05);
		if (ratio < 4.5) found.add(ratio.toFixed(2) + " " + n.tagName + "." + n.className + " " + n.textContent.slice(0, 30));
	}
	return [...found];
})()`
