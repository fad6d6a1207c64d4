package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"revocation-adapter/adapter/bulk"
	"revocation-adapter/config"
	"revocation-adapter/messaging"
)

const fileHelp = `With --file every line of a file is a token: a jti or a whole JWT, and after a
comma or white space the time at which it expires, where that is known better
than by --expires-at or the JWT. The file is checked first: with a line that is no
token nothing is sent, unless --skip-bad is given. A run that was interrupted goes
on where it was when the same command is run again: how far it came is kept beside
the file, until all is sent. A file of - is standard input.`

// fileFlags are those of --file.
type fileFlags struct {
	path, resume string
	skipBad      bool
}

func (f *fileFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.path, "file", "", "every token of a file, a line each, instead of one token")
	flags.StringVar(&f.resume, "resume", "", "with --file: where to keep how far it came (default: the file's name and .resume; of standard input: nowhere)")
	flags.BoolVar(&f.skipBad, "skip-bad", false, "with --file: leave out lines that are no token")
	c.MarkFlagsMutuallyExclusive("file", "claim")
}

// state is the path of the state file; empty: there is none.
func (f *fileFlags) state() string {
	if f.resume != "" || f.path == "-" {
		return f.resume
	}
	return f.path + ".resume"
}

// maxInput is how much standard input may hold, in bytes. It is kept in memory,
// for it is read twice, and tokens are written to no other file.
const maxInput = 256 << 20

// openFile opens a file that can be read twice.
func openFile(path string, stdin io.Reader) (io.ReadSeeker, func(), error) {
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, nil, fmt.Errorf("--file: %w", err)
		}
		return file, func() { _ = file.Close() }, nil // only read
	}
	text, err := io.ReadAll(io.LimitReader(stdin, maxInput+1))
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("read standard input: %w", err)
	case len(text) > maxInput:
		return nil, nil, fmt.Errorf("standard input holds more than %d MiB: give a file", maxInput>>20)
	}
	return bytes.NewReader(text), func() {}, nil
}

// announceFile announces every token of a file.
func announceFile(c *cobra.Command, cfg config.Config, as announcing) error {
	if c.Flags().Changed("wait") {
		return exitError{exitUsage, errors.New("--wait is for one decision: of a file it cannot be told")}
	}
	format := bulk.Format{Type: as.typ, Tenant: as.tenant, ParseTime: parseTime}
	if err := as.checkTenant(); err != nil {
		return exitError{exitUsage, err}
	}
	if as.at != "" {
		ms, err := expiresAt(as.at)
		if err != nil {
			return exitError{exitUsage, err}
		}
		format.Expiry = ms
	}
	if _, err := bulk.ReadToken("x", as.typ); err != nil { // not of every line
		return exitError{exitUsage, err}
	}
	file, done, err := openFile(as.file.path, c.InOrStdin())
	if err != nil {
		return exitError{exitUsage, err}
	}
	defer done()
	report, err := checkFile(c, cfg, file, as, format)
	if err != nil {
		return err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read the file again: %w", err)
	}
	return sendFile(c, cfg, report, as, bulk.Job{Source: file, Format: format, Subject: as.subject, State: as.file.state()})
}

// checkFile tells what is wrong with the file, and refuses it if that is not to be
// left out.
func checkFile(c *cobra.Command, cfg config.Config, file io.Reader, as announcing, format bulk.Format) (bulk.Report, error) {
	report, err := bulk.Check(file, format, time.Now().Add(-time.Duration(cfg.Revocation.Grace)))
	if err != nil {
		return report, err
	}
	for _, fault := range report.Faults {
		c.PrintErrln(fault)
	}
	if more := report.Bad - len(report.Faults); more > 0 {
		c.PrintErrf("… and %d lines more\n", more)
	}
	switch {
	case report.Bad > 0 && !as.file.skipBad:
		return report, exitError{exitUsage, fmt.Errorf(
			"%d of %d lines are no token, and nothing was sent: mend them, or leave them out with --skip-bad", report.Bad, report.Lines)}
	case report.Tokens == 0:
		return report, exitError{exitUsage, errors.New("the file holds no token")}
	}
	return report, nil
}

func sendFile(c *cobra.Command, cfg config.Config, report bulk.Report, as announcing, job bulk.Job) error {
	conn, err := dialHub(cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	begun, shown := time.Now(), newProgress(c.ErrOrStderr(), report.Lines)
	reached, events := 0, ""
	job.Publish = func(ctx context.Context, a messaging.Announcement) error {
		events = a.EventID[:strings.LastIndexByte(a.EventID, '-')] // what all of the file begin with
		return publishPatiently(ctx, conn, as.subject, a)
	}
	job.Progress = func(at bulk.Position) {
		reached = at.Lines
		shown.at(at.Lines)
	}
	totals, err := job.Run(c.Context())
	shown.end()
	e := messaging.AuditEntry{
		Action: as.action() + "_file", Target: strconv.Itoa(totals.Tokens) + " sent", Outcome: "stored", Count: totals.Tokens, EventID: events,
	}
	if err != nil {
		e.Outcome = "failed"
	}
	audited := auditCommand(c, conn, e)
	if err != nil {
		return notSent(err, reached, job.State)
	}
	if audited != nil {
		return audited
	}
	return summary(c, as, report, totals, time.Since(begun))
}

// How long one event is tried again, and how often: the hub may be restarted, or
// full until the adapter has caught up.
const (
	patience  = 30 * time.Second
	tryAgain  = time.Second
	batchTime = 20 * time.Second // for the hub to store one event
)

// publishPatiently returns when the hub has stored an event. One that was stored
// without our hearing of it is stored twice, and changes nothing the second time.
func publishPatiently(ctx context.Context, conn *nats.Conn, subject string, a messaging.Announcement) error {
	for begun := time.Now(); ; {
		err := publishOnce(ctx, conn, subject, a)
		if err == nil || ctx.Err() != nil || errors.Is(err, nats.ErrMaxPayload) || time.Since(begun) > patience {
			return err
		}
		select {
		case <-time.After(tryAgain):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func publishOnce(ctx context.Context, conn *nats.Conn, subject string, a messaging.Announcement) error {
	ctx, cancel := context.WithTimeout(ctx, batchTime)
	defer cancel()
	if _, err := messaging.Publish(ctx, conn, subject, a); err != nil {
		return exitError{exitUnreachable, err}
	}
	return nil
}

// notSent says how to go on after a run that did not come to its end.
func notSent(err error, reached int, state string) error {
	again := fmt.Sprintf("what is before line %d is stored: run the same command again to go on", reached+1)
	if state == "" {
		again = fmt.Sprintf("what is before line %d is stored: run the same command again, which begins anew", reached+1)
	}
	code, coded := exitFailed, exitError{}
	switch {
	case errors.Is(err, bulk.ErrOther):
		return exitError{exitUsage, fmt.Errorf("%w; to begin anew remove %s", err, state)}
	case errors.Is(err, context.Canceled):
		err = errors.New("interrupted")
	case errors.As(err, &coded):
		code = coded.code
	}
	return exitError{code, fmt.Errorf("%w; %s", err, again)}
}

func summary(c *cobra.Command, as announcing, report bulk.Report, totals bulk.Totals, took time.Duration) error {
	facts := []string{fmt.Sprintf("%d events stored in %s", totals.Events, messaging.IngestStream)}
	if report.Expired > 0 {
		facts = append(facts, fmt.Sprintf("%d had expired, no gateway accepts them", report.Expired))
	}
	if report.Bad > 0 {
		facts = append(facts, fmt.Sprintf("%d bad lines left out", report.Bad))
	}
	facts = append(facts, took.Round(time.Millisecond).String())
	_, err := fmt.Fprintf(c.OutOrStdout(), "%s %d tokens (%s)\n", as.done, totals.Tokens-report.Expired, strings.Join(facts, ", "))
	return err
}
