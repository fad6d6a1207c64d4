package page_test

import (
	"testing"

	"github.com/chromedp/chromedp"

	"revocation-adapter/integration/chromium"
)

// browser is one that knows the page.
type browser struct{ *chromium.Browser }

func newBrowser(t *testing.T) *browser {
	t.Helper()
	return &browser{chromium.New(t)}
}

func eval[T any](b *browser, expression string) T { return chromium.Eval[T](b.Browser, expression) }

func navigate(s *stage) chromedp.Action[chromedp.Void] { return navigateTo(s.url + "/") }

func navigateTo(url string) chromedp.Action[chromedp.Void] { return chromedp.Navigate(url) }

// enter opens the page and signs in.
func (b *browser) enter(s *stage) {
	b.T.Helper()
	b.Run(navigate(s))
	b.Shows("#gate h1", "Revocations")
	b.Fill("#client-id", "alice")
	b.Fill("#client-secret", secret+"\r")
	b.Shows("#link", "Live")
}
