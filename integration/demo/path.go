package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"revocation-adapter/integration/stack"
)

// path is the way of a call, and what the demo holds of it.
type path struct {
	adapter  *stack.Adapter
	enforcer *stack.Enforcer
	nginx    *stack.Nginx
	api      *httptest.Server
	issuer   *stack.Issuer
	tokens   int
}

const nginxExample = "resources/gateways/nginx/nginx.conf"

// Of the path /pay every token with the scope OTT is good for one call.
const enforcerSections = `
[jwt]
jwks = [%q]
[set]
snapshot_file = %q
snapshot_every = "1s"
[[one_time]]
path = "/pay"
scope = "OTT"
`

func open(ctx context.Context, dir string) (p *path, err error) {
	p = &path{api: httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "the API answers\n") // the caller has gone, else
	}))}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if err = p.prepare(ctx, dir); err != nil {
		return p, err
	}
	for _, part := range []interface {
		Start() error
		Ready(ctx context.Context) error
	}{p.adapter, p.enforcer, p.nginx} {
		if err = part.Start(); err == nil {
			err = part.Ready(ctx)
		}
		if err != nil {
			return p, err
		}
	}
	return p, nil
}

func (p *path) prepare(ctx context.Context, dir string) (err error) {
	adapter, err := stack.Build(ctx, dir, "adapter", "revocation-adapter/adapter")
	if err != nil {
		return err
	}
	enforcer, err := stack.Build(ctx, dir, "enforcer", "revocation-adapter/enforcer/cmd")
	if err != nil {
		return err
	}
	if p.issuer, err = stack.NewIssuer("demo"); err != nil {
		return err
	}
	keys := filepath.Join(dir, "jwks.json")
	if err = p.issuer.WriteKeys(keys); err != nil {
		return err
	}
	if p.adapter, err = stack.NewAdapter(adapter, dir, ""); err != nil {
		return err
	}
	sections := fmt.Sprintf(enforcerSections, keys, filepath.Join(dir, "enforcer.snapshot"))
	if p.enforcer, err = stack.NewEnforcer(enforcer, dir, []string{p.adapter.XDS}, sections); err != nil {
		return err
	}
	p.nginx, err = stack.NewNginx(dir, nginxExample, p.enforcer.ForwardAuth, strings.TrimPrefix(p.api.URL, "http://"))
	return err
}

// close ends all that was started.
func (p *path) close() (err error) {
	if p.nginx != nil {
		err = errors.Join(err, p.nginx.Stop())
	}
	if p.enforcer != nil {
		err = errors.Join(err, p.enforcer.Stop())
	}
	if p.adapter != nil {
		err = errors.Join(err, p.adapter.Stop())
	}
	p.api.Close()
	return err
}

// logs are what the parts printed.
func (p *path) logs() string {
	return "the adapter:\n" + p.adapter.Log() + "the enforcer:\n" + p.enforcer.Log() + "nginx:\n" + p.nginx.Log()
}

// rejected is the body of every rejected call.
const rejected = `{"error_message":"Invalid Credentials","code":"900901","error_description":"Invalid JWT token. Make sure you have provided the correct security credentials"}`

// call calls the API through nginx, and returns the status.
func (p *path) call(ctx context.Context, at, header, value string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.nginx.Address+at, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set(header, value)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	if resp.StatusCode == http.StatusUnauthorized && string(body) != rejected {
		return 0, fmt.Errorf("a rejected call gets %q", body)
	}
	return resp.StatusCode, nil
}

// expect calls once, and fails on another status.
func (p *path) expect(ctx context.Context, what string, c call, status int) error {
	got, err := p.call(ctx, c.at, c.header, c.value)
	if err != nil {
		return err
	}
	if got != status {
		return fmt.Errorf("%s: got %d, must be %d", what, got, status)
	}
	fmt.Printf("  %-58s %d\n", what, got)
	return nil
}

// become calls until the status is as it must be, and tells how long that took
// after what came before had returned.
func (p *path) become(ctx context.Context, what string, c call, status int) error {
	begin := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for late := time.After(10 * time.Second); ; {
		got, err := p.call(ctx, c.at, c.header, c.value)
		if err != nil {
			return err
		}
		if got == status {
			fmt.Printf("  %-58s %d after %s\n", what, got, time.Since(begin).Round(100*time.Microsecond))
			return nil
		}
		select {
		case <-tick.C:
		case <-late:
			return fmt.Errorf("%s: still %d after %s, must be %d", what, got, time.Since(begin), status)
		}
	}
}

// call is a call with a token.
type call struct{ at, header, value string }

func bearer(token string) call { return call{"/", "Authorization", "Bearer " + token} }

// jti is one that was not used before.
func (p *path) jti() string {
	p.tokens++
	return fmt.Sprintf("%08x-0000-4000-8000-%012x", os.Getpid(), p.tokens)
}

func (p *path) token(others map[string]any) (string, error) {
	return p.issuer.AccessToken(p.jti(), others)
}
