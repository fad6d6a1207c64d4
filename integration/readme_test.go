//go:build linux

package integration_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A block of the README that follows <!-- tour: VERB NAME --> is run, and what
// it shows must be what is printed. "start" starts the command after the $ and
// leaves it running under the name, "shows" is what it prints next, "stop" is
// what it prints on Ctrl-C, and "run" is a script in a shell of its own.
type tourStep struct {
	verb, name string
	commands   []string
	output     []string
}

// tour is the README being followed.
type tour struct {
	dir     string // a copy of the repository
	env     []string
	running map[string]*tourProcess
}

// tourProcess is what runs in a terminal of its own.
type tourProcess struct {
	cmd  *exec.Cmd
	path string // what it printed
	seen int    // lines of it that the README has shown
}

func TestReadme(t *testing.T) {
	steps := readTour(t, filepath.Join("..", "README.md"))
	for _, tool := range []string{"bash", "make"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, tool)
		}
	}
	takeDefaultPorts(t)
	r := &tour{dir: copyRepository(t), env: tourEnvironment(), running: map[string]*tourProcess{}}
	if out, err := r.shell(t, "go run ./adapter version"); err != nil { // builds
		t.Fatalf("%v: %s", err, out)
	}
	for _, s := range steps {
		switch s.verb {
		case "start":
			r.start(t, s)
			r.shows(t, s)
		case "shows":
			r.shows(t, s)
		case "stop":
			r.interrupt(t, s.name)
			r.shows(t, s)
		case "run":
			r.script(t, s)
		}
	}
}

var tourBlock = regexp.MustCompile("(?ms)^<!-- tour: (start|shows|stop|run) ?([a-z]*) -->\n```[a-z]*\n(.*?)^```$")

func readTour(t *testing.T, path string) (steps []tourStep) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range tourBlock.FindAllStringSubmatch(string(text), -1) {
		s := tourStep{verb: block[1], name: block[2]}
		for line := range strings.Lines(block[3]) {
			line = strings.TrimSuffix(line, "\n")
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				s.commands = append(s.commands, command)
			} else {
				s.output = append(s.output, line)
			}
		}
		steps = append(steps, s)
	}
	if marks := bytes.Count(text, []byte("<!-- tour:")); marks == 0 || marks != len(steps) {
		t.Fatalf("%s has %d marks of a tour, of which %d can be read", path, marks, len(steps))
	}
	return steps
}

// takeDefaultPorts waits for other tours on this machine, and skips this one
// where somebody else has a port of the default configuration.
func takeDefaultPorts(t *testing.T) {
	t.Helper()
	eventually(t, "no other tour is under way", func() bool {
		turn, err := net.Listen("unix", "@revocation-adapter-tour")
		if err == nil {
			t.Cleanup(func() { _ = turn.Close() })
		}
		return err == nil
	})
	for _, address := range []string{"127.0.0.1:4222", "127.0.0.1:18000", "127.0.0.1:9843"} {
		lis, err := net.Listen("tcp", address)
		switch {
		case err == nil:
			_ = lis.Close()
		case os.Getenv("CI") == "true":
			t.Fatalf("a port of the default configuration is taken: %v", err)
		default:
			t.Skipf("a port of the default configuration is taken: %v", err)
		}
	}
}

// copyRepository returns a copy without what has no part in the tour, so that
// the tour's data/ is its own.
func copyRepository(t *testing.T) string {
	t.Helper()
	root, dir := "..", t.TempDir()
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		from, to := filepath.Join(root, e.Name()), filepath.Join(dir, e.Name())
		switch {
		case slices.Contains([]string{".git", "bin", "data", "integration"}, e.Name()):
		case e.IsDir():
			err = errors.Join(err, os.CopyFS(to, os.DirFS(from)))
		default:
			text, readErr := os.ReadFile(from)
			err = errors.Join(err, readErr, os.WriteFile(to, text, 0o600))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// tourEnvironment is ours without what make tells its children, if the test
// runs under make.
func tourEnvironment() []string {
	return slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return strings.HasPrefix(name, "MAKE") || name == "MFLAGS"
	})
}

func (r *tour) shell(t *testing.T, script string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir, cmd.Env = r.dir, r.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (r *tour) script(t *testing.T, s tourStep) {
	t.Helper()
	script := strings.Join(s.commands, "\n")
	out, err := r.shell(t, script)
	if err != nil {
		t.Fatalf("%v\n%s\nprints\n%s", err, script, out)
	}
	if want := strings.Join(s.output, "\n"); tourMask(out) != tourMask(want) {
		t.Fatalf("%s\nprints\n%s\nand in the README\n%s", script, out, want)
	}
}

// start runs a command in a process group of its own, as a terminal does.
func (r *tour) start(t *testing.T, s tourStep) {
	t.Helper()
	if len(s.commands) != 1 {
		t.Fatalf("%s is started by one command, has %d", s.name, len(s.commands))
	}
	out, err := os.Create(filepath.Join(t.TempDir(), s.name))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }() // the process has its own
	cmd := exec.Command("bash", "-c", s.commands[0])
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = r.dir, r.env, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.running[s.name] = &tourProcess{cmd: cmd, path: out.Name()}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // has left already, where it was stopped
		_ = cmd.Wait()                                      // it was killed, or waited for
	})
}

// interrupt is Ctrl-C. What does not leave is killed, and then has not printed
// what it should.
func (r *tour) interrupt(t *testing.T, name string) {
	t.Helper()
	p, ok := r.running[name]
	if !ok {
		t.Fatalf("%q was not started", name)
	}
	group := -p.cmd.Process.Pid
	if err := syscall.Kill(group, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { _ = syscall.Kill(group, syscall.SIGKILL) })
	defer late.Stop()
	_ = p.cmd.Wait() // go run leaves with 1 on Ctrl-C
}

// shows waits for what a running process prints next. Lines of different parts
// of it may come in either order.
func (r *tour) shows(t *testing.T, s tourStep) {
	t.Helper()
	p, ok := r.running[s.name]
	if !ok {
		t.Fatalf("%q was not started", s.name)
	}
	var fresh []string
	enough := func() bool {
		text, err := os.ReadFile(p.path)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(text), "\n")
		fresh = lines[p.seen : len(lines)-1]
		return len(fresh) >= len(s.output)
	}
	deadline, tick := time.After(patience), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !enough() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s printed only\n%s\nand in the README\n%s", s.name, strings.Join(fresh, "\n"), strings.Join(s.output, "\n"))
		}
	}
	fresh = fresh[:len(s.output)]
	p.seen += len(fresh)
	if !slices.Equal(tourLines(fresh), tourLines(s.output)) {
		t.Fatalf("%s printed\n%s\nand in the README\n%s", s.name, strings.Join(fresh, "\n"), strings.Join(s.output, "\n"))
	}
}

func tourLines(lines []string) []string {
	masked := make([]string, 0, len(lines))
	for _, line := range lines {
		masked = append(masked, tourMask(line))
	}
	slices.Sort(masked)
	return masked
}

// tourMasks stand for what differs each time.
var tourMasks = []struct {
	what *regexp.Regexp
	mask string
}{
	{regexp.MustCompile(`\b20\d\d-\d\d-\d\d[ T]\d\d:\d\d:\d\dZ?`), "TIME"},
	{regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.\d{3}(  \d+ +\d+ +\d+) +\d+$`), "TIME$1 BYTES"},
	{regexp.MustCompile(`\b\d{16}\b`), "VERSION"},
	{regexp.MustCompile(`\[(\w+\.go|Makefile):\d+`), "[$1:LINE"},
	{regexp.MustCompile(`- \[[\w.]+\] \[-\] The `), "- [FUNCTION] [-] The "}, // only the event and cache lines promise theirs
	{regexp.MustCompile(`\(event \w{22},`), "(event ID,"},
	{regexp.MustCompile(`version=\S+ xds=`), "version=BUILD xds="},
	{regexp.MustCompile(`"took_ms":\d+`), `"took_ms":MS`},
	{regexp.MustCompile(`[ \r]+(\n|$)`), "$1"},
}

func tourMask(text string) string {
	for _, m := range tourMasks {
		text = m.what.ReplaceAllString(text, m.mask)
	}
	return strings.TrimSpace(text)
}
