package integration_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"revocation-adapter/integration/stack"
)

// tokenFile writes a file of n jtis that expire in an hour, every other one by its
// own line.
func tokenFile(t *testing.T, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens.txt")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	out, expires := bufio.NewWriter(file), inAnHour().UnixMilli()
	for i := range n {
		if i%2 == 0 {
			fmt.Fprintf(out, "%s,%d\n", bulkID(i), expires) //nolint:errcheck // Flush reports it
		} else {
			fmt.Fprintln(out, bulkID(i)) //nolint:errcheck // Flush reports it
		}
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func bulkID(i int) string { return fmt.Sprintf("fc8ee897-b3d9-3bb6-a9ca-%012d", i) }

// metric is the sum of the samples of a metric that begin so.
func (a *adapter) metric(t *testing.T, begins string) float64 {
	t.Helper()
	_, page := a.get(t, "/metrics")
	sum := 0.0
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, begins) {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndex(line, " "):]), 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// awaitHeld waits until so many keys are refused, and nothing waits in the hub. It
// is patient while there is progress.
func (a *adapter) awaitHeld(t *testing.T, n int) {
	t.Helper()
	live := func() float64 { return a.metric(t, "revocation_adapter_live_revocations") }
	for last := -1.0; ; {
		done := false
		eventually(t, fmt.Sprintf("more than %v keys are refused, at last %d", last, n), func() bool {
			done = live() == float64(n) && a.metric(t, "revocation_adapter_ingest_pending_events") == 0
			return done || live() != last
		})
		if done {
			return
		}
		last = live()
	}
}

// bulkState is what the command notes of a run.
type bulkState struct {
	Prefix string `json:"event_id_prefix"`
	Lines  int    `json:"lines"`
	Events int    `json:"events"`
}

func readBulkState(path string) (s bulkState) {
	text, err := os.ReadFile(path)
	if err == nil {
		_ = json.Unmarshal(text, &s) // it is not there yet
	}
	return s
}

// interruptBulk begins a command of a file, and interrupts it in the middle.
func interruptBulk(t *testing.T, a *adapter, args []string, interrupt func(*os.Process, bulkState) bool) (state bulkState, stderr string) {
	t.Helper()
	path := args[2] + ".resume"
	cmd := exec.Command(binary, append([]string{"--config", a.config}, args...)...)
	var errOut strings.Builder
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "enough of the file is sent", func() bool { return interrupt(cmd.Process, readBulkState(path)) })
	if err := cmd.Wait(); err == nil {
		t.Fatal("it had ended before it was signalled")
	}
	return readBulkState(path), errOut.String()
}

// startFast starts an adapter without the race detector, which stores ten times as
// fast. Other tests look for races.
func startFast(t *testing.T) *adapter {
	t.Helper()
	a := newAdapter(t, nil)
	var err error
	if a.binary, err = stack.Build(t.Context(), t.TempDir(), "adapter", "revocation-adapter/adapter"); err != nil {
		t.Fatal(err)
	}
	a.start(t)
	a.awaitReady(t)
	return a
}

// after signals a process that has sent more than some lines.
func after(lines int, s os.Signal) func(*os.Process, bulkState) bool {
	return func(p *os.Process, state bulkState) bool { return state.Lines > lines && p.Signal(s) == nil }
}

// A hundred thousand tokens are revoked by a command that is killed, interrupted
// and run again: each once.
func TestBulkFile(t *testing.T) {
	t.Parallel()
	const n = 100_000
	a, file := startFast(t), tokenFile(t, n)
	before := a.version(t)
	args := []string{"revoke", "--file", file, "--expires-at", inAnHour().Format(time.RFC3339)}
	killed, _ := interruptBulk(t, a, args, after(n/5, os.Kill))
	stopped, stderr := interruptBulk(t, a, args, after(n/2, syscall.SIGINT))
	if stopped.Prefix != killed.Prefix || stopped.Lines <= killed.Lines || !strings.Contains(stderr, "run the same command again") {
		t.Errorf("killed at %+v, interrupted at %+v: %s", killed, stopped, stderr)
	}
	code, stdout, stderr := a.run(t, args...)
	if code != 0 || !strings.HasPrefix(stdout, "Revoked 100000 tokens (100 events stored in INGEST") {
		t.Fatalf("exit %d: %s%s", code, stdout, stderr)
	}
	if !strings.Contains(stderr, fmt.Sprintf("Going on: sent before %d of %d lines", stopped.Lines, n)) {
		t.Errorf("it does not say that it goes on: %s", stderr)
	}
	a.awaitHeld(t, n)
	eventually(t, "all have a version", func() bool { return a.version(t) == before+n })
	if _, err := os.Stat(file + ".resume"); !os.IsNotExist(err) {
		t.Errorf("the state is left: %v", err)
	}
	if code, stdout, _ := a.run(t, "approve", "--file", file); code != 0 || !strings.HasPrefix(stdout, "Re-approved 100000 tokens") {
		t.Errorf("approve: exit %d: %s", code, stdout)
	}
	a.awaitHeld(t, 0)
	if letters := a.metric(t, "revocation_adapter_dead_letters"); letters != 0 {
		t.Errorf("%v dead letters", letters)
	}
}

// The hub is killed while a file is sent, and comes back: the command goes on by
// itself.
func TestBulkFileOutlivesTheHub(t *testing.T) {
	t.Parallel()
	const n = 50_000
	a, file := startFast(t), tokenFile(t, n)
	before := a.version(t)
	cmd := exec.CommandContext(t.Context(), binary, "--config", a.config, "revoke", "--file", file, "--expires-at", "never")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "some of it is sent", func() bool { return readBulkState(file+".resume").Lines > n/5 })
	a.signal(t, os.Kill)
	if at := readBulkState(file + ".resume").Lines; at >= n {
		t.Fatalf("all of it was sent before the hub was killed")
	}
	a.start(t)
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "Revoked 50000 tokens (50 events") {
		t.Fatalf("%v: %s", err, out.String())
	}
	a.awaitHeld(t, n)
	eventually(t, "each has one version", func() bool { return a.version(t) == before+n })
}

// What is wrong with a file is said by its lines, and nothing of it is sent.
func TestBulkFileIsChecked(t *testing.T) {
	t.Parallel()
	a, dir := startAdapter(t), t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bad := write("bad", "good-1\n\ns3cr3t.s3cr3t.s3cr3t\ngood-2 2031-02-06T20:17:01Z\n"+accessToken+"\n")
	opaque := write("opaque", "s3cr3t-opaque\n")
	tests := []struct {
		name   string
		args   []string
		code   int
		stdout string
		stderr string
		held   int
	}{
		{"a bad line", []string{"revoke", "--file", bad}, 2, "", "line 3: the token: not a JWT", 0},
		{"without it", []string{"revoke", "--file", bad, "--skip-bad"}, 0, "Revoked 2 tokens (1 events stored in INGEST, 1 had expired, no gateway accepts them, 1 bad lines left out", "line 3: ", 2},
		{"opaque tokens", []string{"revoke", "--file", opaque, "--type", "Default", "--resume", filepath.Join(dir, "r")}, 0, "Revoked 1 tokens", "", 3},
		{"standard input without a token", []string{"revoke", "--file", "-"}, 2, "", "holds no token", 3},
		{"no file", []string{"revoke", "--file", filepath.Join(dir, "none")}, 2, "", "no such file", 3},
		{"no name", []string{"revoke", "--file", ""}, 2, "", "--file: ", 3},
		{"a file and a token", []string{"revoke", "x", "--file", bad}, 2, "", "in place of a token", 3},
		{"a file and a claim", []string{"revoke", "--claim", "sub=x", "--file", bad}, 2, "", "[file claim]", 3},
		{"a file and a span", []string{"revoke", "--file", bad, "--expires-in", "1h"}, 2, "", "[file expires-in]", 3},
		{"a file and a time of a claim", []string{"revoke", "--file", bad, "--issued-before", "now"}, 2, "", "needs --claim", 3},
		{"a file and a wait", []string{"revoke", "--file", bad, "--wait", "1s"}, 2, "", "--wait is for one decision", 3},
		{"an unknown type", []string{"revoke", "--file", bad, "--type", "SAML"}, 2, "", "--type must be", 3},
		{"an unreadable time", []string{"revoke", "--file", bad, "--expires-at", "soon"}, 2, "", "--expires-at must be", 3},
		{"--resume without a file", []string{"revoke", "x", "--resume", "y"}, 2, "", "need --file", 3},
		{"a folder that does not exist", []string{"revoke", "--file", opaque, "--resume", filepath.Join(dir, "no", "r")}, 1, "", "note the state", 3},
		{"approve", []string{"approve", "--file", bad, "--skip-bad"}, 0, "Re-approved 2 tokens", "", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := a.run(t, tt.args...)
			if code != tt.code || !strings.HasPrefix(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("exit %d (want %d), stdout %q (want %q), stderr %q (want %q)", code, tt.code, stdout, tt.stdout, stderr, tt.stderr)
			}
			if strings.Contains(stdout+stderr, "s3cr3t") {
				t.Errorf("it shows a token: %s%s", stdout, stderr)
			}
			a.awaitHeld(t, tt.held)
		})
	}
	if code, out, _ := a.run(t, "audit", "--json", "--action", "approve_file"); code != 0 || !strings.Contains(out, `"target":"3 sent"`) || !strings.Contains(out, `"event_id":"bulk-`) {
		t.Errorf("the audit, exit %d: %s", code, out)
	}
}

// On a terminal there is a bar, from standard input too.
func TestBulkFileOnATerminal(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("script"); err != nil {
		missing(t, "script, of bsdutils")
	}
	a, file := startAdapter(t), tokenFile(t, 3_000)
	command := fmt.Sprintf("%s --config %s revoke --file - < %s", binary, a.config, file)
	out, err := exec.CommandContext(t.Context(), "script", "-qec", command, "/dev/null").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "%") || !strings.Contains(string(out), "/3000") || !strings.Contains(string(out), "Revoked 3000 tokens") {
		t.Errorf("%v: %q", err, out)
	}
	a.awaitHeld(t, 3_000)
}
