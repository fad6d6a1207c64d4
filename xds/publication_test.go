package xds_test

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"revocation-adapter/xds"
)

const publicationLine = "New Revoked token cache update for the label: commonEnforcerLabel version: "

// publications are the logged lines of new versions.
func (w *world) publications() (all []*logrus.Entry) {
	for _, e := range w.logged.AllEntries() {
		if strings.HasPrefix(e.Message, publicationLine) {
			all = append(all, e)
		}
	}
	return all
}

func TestEachPublicationIsLoggedOnce(t *testing.T) {
	t.Parallel()
	w := start(t)
	for i := 1; i <= 5; i++ {
		head := w.revoke(fmt.Sprint(i), fmt.Sprint("with ", i))
		until(t, "the publication is logged", func() bool { return len(w.publications()) == i })
		entry := w.publications()[i-1]
		if want := publicationLine + text(head); entry.Message != want {
			t.Errorf("logged %q, want %q", entry.Message, want)
		}
		if entry.Level != logrus.InfoLevel || len(entry.Data) != 0 {
			t.Errorf("logged at %v with %v", entry.Level, entry.Data)
		}
		if f := entry.Caller; !strings.HasSuffix(f.Function, ".UpdateEnforcerRevokedTokens") || path.Base(f.File) != "server.go" {
			t.Errorf("logged by %s in %s", f.Function, f.File)
		}
	}
	// A purge makes no version, and streams that come make none.
	w.clock.move(time.Hour)
	for range 3 {
		next := w.log.Snapshot().Next()
		w.log.Purge(w.clock.Now())
		<-next
		w.subscribe(t, streamTokens, "").accept()
	}
	w.delta(t).accept()
	last := publicationLine + text(w.revoke("more"))
	until(t, "the last publication is logged", func() bool { return len(w.lines(last)) > 0 })
	if n := len(w.publications()); n != 6 {
		t.Errorf("%d lines for 6 publications", n)
	}
}

// Publications that follow one another closely may share a line: that of the
// newest.
func TestManyPublicationsAreLoggedInOrder(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.subscribe(t, streamTokens, "").accept()
	var head uint64
	for i := range 1000 {
		head = w.revoke(fmt.Sprint(i))
	}
	until(t, "the newest is logged", func() bool {
		all := w.publications()
		return len(all) > 0 && all[len(all)-1].Message == publicationLine+text(head)
	})
	last := uint64(0)
	for _, e := range w.publications() {
		version, err := strconv.ParseUint(strings.TrimPrefix(e.Message, publicationLine), 10, 64)
		if err != nil || version <= last {
			t.Errorf("%q after version %d", e.Message, last)
		}
		last = version
	}
}

func TestLabelIsASetting(t *testing.T) {
	t.Parallel()
	w := start(t, func(c *xds.Config) { c.Label = "blue" })
	head := w.revoke("a")
	want := "New Revoked token cache update for the label: blue version: " + text(head)
	until(t, "the publication is logged", func() bool { return len(w.lines(want)) == 1 })
}

// No level prints a token, whatever happens to it.
func TestNoTokenIsLogged(t *testing.T) {
	t.Parallel()
	w := start(t)
	c, d := w.subscribe(t, streamTokens, "", "a very secret jti"), w.delta(t)
	c.accept()
	d.accept()
	w.revoke("a very secret jti")
	c.nack(c.next())
	d.nack(d.next())
	w.refusals(2)
	for _, e := range w.logged.AllEntries() {
		if text := fmt.Sprint(e.Message, e.Data); strings.Contains(text, "secret") {
			t.Errorf("logged: %s", text)
		}
	}
}
