package integration_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"revocation-adapter/integration/stack"
)

// binary is the adapter, built once.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "integration")
	if err == nil {
		binary = filepath.Join(dir, "adapter")
		err = build(binary)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir) // a temporary folder
	os.Exit(code)
}

func build(path string, more ...string) error {
	args := append([]string{"build", "-o", path}, more...)
	if raceEnabled {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "revocation-adapter/adapter")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build the adapter: %w: %s", err, out)
	}
	return nil
}

// missing reports that something outside Go is not installed. In CI that is a
// fault.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing: run make deps", what)
	}
	t.Skipf("%s is missing: run make deps", what)
}

// adapter is the real one, a process.
type adapter struct {
	dir, config       string
	hub, xds, control string // addresses
	binary            string // what runs, if it is not the one that was built first
	cmd               *exec.Cmd
	log               *stack.Output
	left              chan struct{} // closed when the process has left
}

// newAdapter writes a configuration on free ports. Extra is put in front of it;
// a %s in hub is replaced by nothing.
func newAdapter(t *testing.T, sections map[string]string) *adapter {
	t.Helper()
	a := &adapter{dir: t.TempDir(), hub: freePort(t), xds: freePort(t), control: freePort(t)}
	a.config = filepath.Join(a.dir, "adapter.toml")
	hub := fmt.Sprintf("listen = %q\nstore = %q\n", a.hub, filepath.Join(a.dir, "hub"))
	if own, ok := sections["hub"]; ok {
		hub = own
		if !strings.Contains(own, "store =") {
			hub += fmt.Sprintf("store = %q\n", filepath.Join(a.dir, "hub"))
		}
	}
	text := "[hub]\n" + hub +
		fmt.Sprintf("[xds]\nlisten = %q\n%s", a.xds, sections["xds"]) +
		fmt.Sprintf("[control]\nlisten = %q\n", a.control) +
		sections["rest"]
	if err := os.WriteFile(a.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

// startAdapter starts an adapter with an embedded hub and waits until it is
// ready.
func startAdapter(t *testing.T) *adapter {
	t.Helper()
	a := newAdapter(t, map[string]string{"rest": "[log]\nlevel = \"debug\"\n"})
	a.start(t)
	a.awaitReady(t)
	return a
}

func (a *adapter) start(t *testing.T) {
	t.Helper()
	a.log = &stack.Output{}
	a.cmd = exec.Command(cmp.Or(a.binary, binary), "run", "--config", a.config)
	a.cmd.Stderr = a.log
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	left := make(chan struct{})
	a.left = left
	cmd := a.cmd
	go func() {
		_ = cmd.Wait() // the exit code is in ProcessState
		close(left)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // gone already, as a rule
		<-left
		if t.Failed() {
			t.Logf("log of the adapter:\n%s", a.log)
		}
		if strings.Contains(a.log.String(), "DATA RACE") {
			t.Errorf("the adapter has a data race:\n%s", a.log)
		}
	})
}

// signal sends a signal and returns how long the adapter took to leave.
func (a *adapter) signal(t *testing.T, s os.Signal) time.Duration {
	t.Helper()
	begin := time.Now()
	if err := a.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	select {
	case <-a.left:
	case <-time.After(20 * time.Second):
		t.Fatalf("the adapter does not stop on %s", s)
	}
	return time.Since(begin)
}

func (a *adapter) stop(t *testing.T) {
	t.Helper()
	a.signal(t, syscall.SIGTERM)
	if code := a.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
}

func (a *adapter) awaitReady(t *testing.T) {
	t.Helper()
	eventually(t, "the adapter is ready", func() bool {
		select {
		case <-a.left:
			t.Fatalf("the adapter left: %s", a.log)
		default:
		}
		code, _ := a.get(t, "/readyz")
		return code == http.StatusOK
	})
}

// get reads a page of the control port; code 0 means that nobody answers.
func (a *adapter) get(t *testing.T, path string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+a.control+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, ""
	}
	return resp.StatusCode, string(text)
}

// run runs a command of the adapter's command line.
func (a *adapter) run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append([]string{"--config", a.config}, args...)...)
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("adapter %s: %v", strings.Join(args, " "), err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

// connect is an unconfigured NATS client.
func (a *adapter) connect(t *testing.T, opts ...nats.Option) *nats.Conn {
	t.Helper()
	conn, err := nats.Connect("nats://"+a.hub, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

// publish publishes as any NATS client does, without waiting for an answer.
func (a *adapter) publish(t *testing.T, payload string) {
	t.Helper()
	conn := a.connect(t)
	if err := conn.Publish("tokenRevocation", []byte(envelope(payload))); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

func envelope(payload string) string { return `{"event":{"payloadData":` + payload + `}}` }

// event is the payload of an event as the control plane writes it.
func event(jti string, expires time.Time) string {
	return fmt.Sprintf(`{"eventId":"e-%s","revokedToken":%q,"ttl":"5000","expiryTime":%d,"type":"JWT","tenantId":-1234}`,
		jti, jti, expires.UnixMilli())
}

func inAnHour() time.Time { return time.Now().Add(time.Hour) }

// dial opens a gRPC connection to the adapter.
func (a *adapter) dial(t *testing.T, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	conn, err := grpc.NewClient(a.xds, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func freePort(t *testing.T) string {
	t.Helper()
	address, err := stack.Free()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// patience is how long a condition may take to come true.
const patience = time.Minute

// eventually waits until a condition is true.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}
