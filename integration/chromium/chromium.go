// Package chromium drives Debian's Chromium in tests: a real browser, of which
// whatever it would show in red fails the test.
package chromium

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Patience is how long the browser may take to show something.
const Patience = 20 * time.Second

// Browser is a tab of a real Chromium. It fails the test when the page writes an
// error to the console, or violates its own policy.
type Browser struct {
	T   *testing.T
	ctx context.Context //nolint:containedctx // chromedp keeps its browser in a context

	mu      sync.Mutex
	faults  []string
	allowed []string // what may be in the console
}

// New opens a tab. Without Chromium the test is skipped, and in CI it fails.
func New(t *testing.T) *Browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("chromium is missing: run make deps")
		}
		t.Skip("chromium is missing: run make deps")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.WindowSize(1600, 1000))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // it refuses to run as root otherwise
	}
	quiet := log.New(io.Discard, "", 0).Printf // the library tells of messages newer than itself
	allocator, stop := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	ctx, leave := chromedp.NewContext(allocator, chromedp.WithErrorf(quiet), chromedp.WithLogf(quiet))
	b := &Browser{T: t, ctx: ctx}
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Error(err)
		}
		leave()
		stop()
		b.check()
	})
	if err := chromedp.Do(ctx); err != nil { // not under a bound: the browser would end with it
		t.Fatal(err)
	}
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatal(err)
	}
	b.Run(send(cdplog.Enable, cdp.Empty{}), send(runtime.Enable, cdp.Empty{}))
	return b
}

// hear collects what the console would show in red.
func (b *Browser) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			b.faults = append(b.faults, fmt.Sprintf("console: %s", e.Args[0].Value))
		}
	case *runtime.EventExceptionThrown:
		b.faults = append(b.faults, fmt.Sprintf("exception: %+v", *e.ExceptionDetails))
	case *cdplog.EventEntryAdded:
		if e.Entry.Level == cdplog.EntryLevelError || e.Entry.Source == cdplog.EntrySourceSecurity {
			b.faults = append(b.faults, fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		}
	}
}

// Context is that of the tab, for actions of chromedp.
func (b *Browser) Context() context.Context { return b.ctx }

// Allow lets the console say something.
func (b *Browser) Allow(text string) { b.allowed = append(b.allowed, text) }

func (b *Browser) check() {
	b.mu.Lock()
	defer b.mu.Unlock()
next:
	for _, fault := range b.faults {
		for _, text := range b.allowed {
			if strings.Contains(fault, text) {
				continue next
			}
		}
		b.T.Errorf("the console says %s", fault)
	}
}

// send is a command of the protocol for which the library has no action.
func send[P any](command cdp.Command[P, cdp.Empty], params P) chromedp.Action[chromedp.Void] {
	return func(ctx context.Context, tab *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, tab, command, params)
		return chromedp.Void{}, err
	}
}

// Run does one thing after another.
func (b *Browser) Run(actions ...chromedp.Action[chromedp.Void]) {
	b.T.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, Patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.Picture("failed")
		b.T.Fatalf("%v", err)
	}
}

// Eval returns the value of an expression in the page, or of its promise.
func Eval[T any](b *Browser, expression string) T {
	b.T.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, Patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.Picture("failed")
		b.T.Fatalf("%s: %v", expression, err)
	}
	return value
}

// Do runs a script in the page.
func (b *Browser) Do(script string) {
	b.T.Helper()
	b.Run(chromedp.Evaluate[chromedp.Void](script, chromedp.EvalAwaitPromise))
}

// Until waits until an expression in the page, or its promise, is true.
func (b *Browser) Until(expression string) {
	b.T.Helper()
	over := time.After(Patience)
	for {
		if Eval[bool](b, "(async () => Boolean(await "+expression+"))()") {
			return
		}
		select {
		case <-over:
			b.Picture("failed")
			b.T.Fatalf("it never was so: %s", expression)
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// Shows waits until an element that is visible has a text.
func (b *Browser) Shows(selector, text string) {
	b.T.Helper()
	over := time.After(Patience)
	for last := ""; ; {
		last = Eval[string](b, fmt.Sprintf(`[...document.querySelectorAll(%q)].filter((n) => n.checkVisibility()).map((n) => n.innerText).join("\n")`, selector))
		if strings.Contains(last, text) {
			return
		}
		select {
		case <-over:
			b.Picture("failed")
			b.T.Fatalf("%s shows %q, not %q", selector, last, text)
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// Click clicks an element once it is visible and stands still: a pointer goes to a
// place, and by then the element may be elsewhere.
func (b *Browser) Click(selector string) {
	b.T.Helper()
	b.Until(fmt.Sprintf(standsStill, selector))
	b.Run(chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

// standsStill says whether an element is where it was two frames ago.
const standsStill = `new Promise((resolve) => {
	const node = document.querySelector(%q);
	const place = () => node ? Object.values(node.getBoundingClientRect().toJSON()).join() : '';
	const before = place();
	requestAnimationFrame(() => requestAnimationFrame(() => resolve(node && node.checkVisibility() && place() === before)));
})`

// Fill types a text into a field.
func (b *Browser) Fill(selector, text string) {
	b.T.Helper()
	b.Run(chromedp.Focus(chromedp.CSS(selector), chromedp.NodeVisible), chromedp.SendKeys(chromedp.CSS(selector), text))
}

// Clear empties a field, and tells nobody.
func (b *Browser) Clear(selector string) {
	b.T.Helper()
	b.Do(fmt.Sprintf(`document.querySelector(%q).value = ""`, selector))
}

// Choose is what a person does with a list.
func (b *Browser) Choose(selector, value string) {
	b.T.Helper()
	b.Do(fmt.Sprintf(`(() => { const list = document.querySelector(%q); list.value = %q; list.dispatchEvent(new Event("change")); })()`, selector, value))
}

// Resize makes the window so large, in pixels.
func (b *Browser) Resize(width, height int64) {
	b.T.Helper()
	b.Run(chromedp.EmulateViewport(width, height))
}

// Theme has the page shown light or dark.
func (b *Browser) Theme(name string) {
	b.T.Helper()
	b.Run(send(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
	}))
}

// Picture keeps a picture of the whole page where SCREENSHOTS says, or nowhere for long.
func (b *Browser) Picture(name string) {
	b.T.Helper()
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		dir = b.T.TempDir()
	}
	ctx, cancel := context.WithTimeout(b.ctx, Patience)
	defer cancel()
	_ = chromedp.Do(ctx, chromedp.Evaluate[chromedp.Void]("scrollTo(0, 0)")) // the bar on top would be in the middle
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.T.Logf("no picture: %v", err)
		return
	}
	file := filepath.Join(dir, strings.ReplaceAll(b.T.Name(), "/", "-")+"-"+name+".png")
	if err := os.WriteFile(file, png, 0o600); err != nil {
		b.T.Error(err)
	}
}
