package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows how far a file was sent.
type progress interface {
	at(lines int)
	end()
}

// newProgress draws a bar on a terminal, and elsewhere prints a line now and then.
func newProgress(out io.Writer, total int) progress {
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return &drawn{progressbar.NewOptions(total,
			progressbar.OptionSetWriter(out), progressbar.OptionSetDescription("lines"), progressbar.OptionShowCount(),
			progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())}
	}
	return &printed{out: out, total: total}
}

// drawn is a bar. What a terminal does not take is not worth an end.
type drawn struct{ bar *progressbar.ProgressBar }

func (d *drawn) at(lines int) { _ = d.bar.Set(lines) } // the terminal is gone
func (d *drawn) end()         { _ = d.bar.Exit() }     // the terminal is gone

// printEvery is how often printed says something.
const printEvery = 10 * time.Second

// printed is lines of text.
type printed struct {
	out   io.Writer
	total int
	last  time.Time // zero: nothing was printed yet
}

func (p *printed) at(lines int) {
	first := p.last.IsZero()
	if first && lines == 0 {
		p.last = time.Now()
		return
	}
	if !first && time.Since(p.last) < printEvery {
		return
	}
	p.last = time.Now()
	verb := "Sent"
	if first {
		verb = "Going on: sent before"
	}
	fmt.Fprintf(p.out, "%s %d of %d lines\n", verb, lines, p.total) //nolint:errcheck // nobody looks
}

func (*printed) end() {}
