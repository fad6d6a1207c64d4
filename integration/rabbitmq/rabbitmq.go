// Package rabbitmq starts a RabbitMQ of its own, as a process: on loopback, on
// free ports, with its own data, cookie and port mapper. It can be killed and
// started again. Nothing of it outlives Close.
package rabbitmq

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"revocation-adapter/integration/stack"
)

// ErrMissing means that RabbitMQ is not installed.
var ErrMissing = errors.New("rabbitmq-server is not installed")

// startTimeout is how long a server may take until it can be used.
const startTimeout = 90 * time.Second

// Options say what is to be started.
type Options struct {
	Dir           string // for everything that it writes
	CA, Cert, Key string // PEM files; with them it listens with TLS as well
}

// Server is one RabbitMQ.
type Server struct {
	Address    string // host:port
	TLSAddress string // empty without Options.Cert

	o      Options
	script string
	env    []string
	mapper *process // epmd, which would otherwise stay

	mu   sync.Mutex
	node *process // nil: killed
}

// process is a child in a group of its own.
type process struct {
	cmd  *exec.Cmd
	left chan struct{} // closed when it has left
}

// Start starts a server and waits until it can be used.
func Start(ctx context.Context, o Options) (*Server, error) {
	s := &Server{o: o, script: "/usr/lib/rabbitmq/bin/rabbitmq-server"} // Debian's wrapper would change the user
	epmd, err := exec.LookPath("epmd")
	if _, missing := os.Stat(s.script); cmp.Or(err, missing) != nil {
		return nil, ErrMissing
	}
	free, err := stack.FreePorts(4)
	if err != nil {
		return nil, err
	}
	var ports []string
	for _, port := range free {
		ports = append(ports, strconv.Itoa(port))
	}
	if err := s.configure(ports); err != nil {
		return nil, err
	}
	if s.mapper, err = s.run(exec.Command(epmd, "-port", ports[2], "-address", "127.0.0.1")); err != nil {
		return nil, err
	}
	if err := s.Restart(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// configure writes what the server reads.
func (s *Server) configure(ports []string) error {
	at := func(name string) string { return filepath.Join(s.o.Dir, name) }
	s.Address = "127.0.0.1:" + ports[0]
	conf := "listeners.tcp.default = " + s.Address + "\n"
	if s.o.Cert != "" {
		s.TLSAddress = "127.0.0.1:" + ports[3]
		conf += fmt.Sprintf("listeners.ssl.default = %s\nssl_options.cacertfile = %s\nssl_options.certfile = %s\nssl_options.keyfile = %s\n",
			s.TLSAddress, s.o.CA, s.o.Cert, s.o.Key)
	}
	s.env = append(os.Environ(),
		"HOME="+s.o.Dir, "RABBITMQ_MNESIA_BASE="+at("data"), "RABBITMQ_LOG_BASE="+at("log"), "RABBITMQ_LOGS=-",
		"RABBITMQ_NODENAME=test-"+ports[0]+"@localhost", "RABBITMQ_NODE_PORT="+ports[0], "RABBITMQ_DIST_PORT="+ports[1],
		"ERL_EPMD_ADDRESS=127.0.0.1", "ERL_EPMD_PORT="+ports[2],
		"RABBITMQ_CONFIG_FILE="+at("rabbitmq"), "RABBITMQ_ENABLED_PLUGINS_FILE="+at("plugins"))
	return errors.Join(
		os.WriteFile(at("rabbitmq.conf"), []byte(conf), 0o600),
		os.WriteFile(at("plugins"), []byte("[].\n"), 0o600))
}

// Restart starts the server again, with its data, after Kill.
func (s *Server) Restart(ctx context.Context) error {
	node, err := s.run(exec.Command(s.script))
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.node = node
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		conn, err := s.Dial()
		if err == nil {
			return conn.Close()
		}
		select {
		case <-again.C:
		case <-node.left:
			return fmt.Errorf("rabbitmq left: %s", s.output())
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// Dial connects as the user that a new server has.
func (s *Server) Dial() (*amqp091.Connection, error) {
	return amqp091.Dial("amqp://guest:guest@" + s.Address)
}

// Unacknowledged is how many messages were delivered and not acknowledged.
func (s *Server) Unacknowledged(ctx context.Context) (n int, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(filepath.Dir(s.script), "rabbitmqctl"), "-q",
		"list_queues", "--no-table-headers", "messages_unacknowledged")
	cmd.Env = s.env
	out, err := cmd.Output()
	if err != nil {
		return 0, err
	}
	for _, field := range strings.Fields(string(out)) {
		one, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		n += one
	}
	return n, nil
}

// Kill ends the server at once.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.node.kill()
	s.node = nil
}

// Close ends everything that was started.
func (s *Server) Close() {
	s.Kill()
	s.mapper.kill()
}

func (s *Server) output() []byte {
	text, err := os.ReadFile(filepath.Join(s.o.Dir, "output"))
	if err != nil {
		return []byte(err.Error())
	}
	return bytes.TrimSpace(text)
}

// run starts a child; the function that it leaves running ends with the child.
func (s *Server) run(cmd *exec.Cmd) (*process, error) {
	out, err := os.OpenFile(filepath.Join(s.o.Dir, "output"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close() //nolint:errcheck // the child has its own
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.Dir = s.env, out, out, s.o.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, left: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // it was killed
		close(p.left)
	}()
	return p, nil
}

// kill ends the child and its children, and waits.
func (p *process) kill() {
	if p == nil {
		return
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // gone already, maybe
	<-p.left
}
