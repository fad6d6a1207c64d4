package stack

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Adapter is the real one, with an embedded hub unless its sections say otherwise.
type Adapter struct {
	Process
	Hub, XDS, Control string // addresses
	config            string
}

// NewAdapter writes the configuration of an adapter into dir. Sections follow
// [hub] and may go on with it.
func NewAdapter(binary, dir, sections string) (*Adapter, error) {
	a := &Adapter{config: filepath.Join(dir, "adapter.toml")}
	if err := free(&a.Hub, &a.XDS, &a.Control); err != nil {
		return nil, err
	}
	text := fmt.Sprintf("[xds]\nlisten = %q\n[control]\nlisten = %q\n[hub]\nstore = %q\n", a.XDS, a.Control, filepath.Join(dir, "hub"))
	if !strings.HasPrefix(sections, "mode") {
		text += fmt.Sprintf("listen = %q\n", a.Hub)
	}
	a.Process = Process{Name: "adapter", Args: []string{binary, "run", "--config", a.config}, Dir: dir}
	return a, os.WriteFile(a.config, []byte(text+sections), 0o600)
}

// Ready waits until the adapter serves.
func (a *Adapter) Ready(ctx context.Context) error {
	return a.Until(ctx, "ready", func() bool { return status(ctx, "http://"+a.Control+"/readyz") == http.StatusOK })
}

// Command runs a command of the adapter's command line.
func (a *Adapter) Command(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, a.Args[0], append([]string{"--config", a.config}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("adapter %s: %w: %s", args[0], err, out)
	}
	return nil
}

// Enforcer is the real process.
type Enforcer struct {
	Process
	ExtAuthz, ForwardAuth, Control string // addresses
}

// NewEnforcer writes the configuration of an enforcer that follows adapters into
// dir. Sections may not be those of its listeners.
func NewEnforcer(binary, dir string, adapters []string, sections string) (*Enforcer, error) {
	e := &Enforcer{}
	if err := free(&e.ExtAuthz, &e.ForwardAuth, &e.Control); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "enforcer.toml")
	text := fmt.Sprintf("[adapter]\naddresses = [%s]\n[ext_authz]\nlisten = %q\n[forward_auth]\nlisten = %q\n[control]\nlisten = %q\n",
		quoted(adapters), e.ExtAuthz, e.ForwardAuth, e.Control)
	e.Process = Process{Name: "enforcer", Args: []string{binary, "run", "--config", path}, Dir: dir}
	return e, os.WriteFile(path, []byte(text+sections), 0o600)
}

func quoted(texts []string) string {
	all := make([]string, len(texts))
	for i, text := range texts {
		all[i] = fmt.Sprintf("%q", text)
	}
	return strings.Join(all, ", ")
}

// Ready waits until the enforcer knows what is revoked.
func (e *Enforcer) Ready(ctx context.Context) error {
	return e.Until(ctx, "ready", func() bool { return status(ctx, "http://"+e.Control+"/readyz") == http.StatusOK })
}

// Nginx is nginx with the example's configuration.
type Nginx struct {
	Process
	Address string
}

// NginxPath is where nginx is: Debian keeps it where only root looks.
func NginxPath() (string, error) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/nginx")
	}
	if err != nil {
		return "", errors.New("nginx is missing: run make deps")
	}
	return path, nil
}

// NewNginx prepares nginx in dir, with a configuration of resources/gateways whose
// addresses are replaced.
func NewNginx(dir, example, enforcer, api string) (*Nginx, error) {
	binary, err := NginxPath()
	if err != nil {
		return nil, err
	}
	n := &Nginx{}
	if err := free(&n.Address); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(example)
	if err != nil {
		return nil, err
	}
	conf := strings.NewReplacer("127.0.0.1:8000", n.Address, "127.0.0.1:8082", enforcer, "127.0.0.1:8080", api).Replace(string(text))
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(conf), 0o600); err != nil {
		return nil, err
	}
	n.Process = Process{Name: "nginx", Args: []string{binary, "-p", dir, "-c", "nginx.conf", "-g", "daemon off;"}, Dir: dir}
	return n, nil
}

// Ready waits until nginx answers anything at all.
func (n *Nginx) Ready(ctx context.Context) error {
	return n.Until(ctx, "answering", func() bool { return status(ctx, "http://"+n.Address) != 0 })
}
