package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"

	"revocation-adapter/integration/stack"
)

// What a check by the enforcer's process costs, beside a server that always says
// yes.

// yesMan says yes to Envoy.
type yesMan struct {
	auth.UnimplementedAuthorizationServer
}

func (yesMan) Check(context.Context, *auth.CheckRequest) (*auth.CheckResponse, error) {
	return &auth.CheckResponse{
		Status:       &status.Status{},
		HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: &auth.OkHttpResponse{}},
	}, nil
}

// doors are where a server of checks listens.
type doors struct{ ExtAuthz, ForwardAuth string }

// yes is the role of a server that says yes to everybody.
func yes(context.Context) error {
	var d doors
	g := grpc.NewServer()
	auth.RegisterAuthorizationServer(g, yesMan{})
	h := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }),
		ReadHeaderTimeout: time.Minute,
	}
	served := make(chan error, 2)
	for at, serve := range map[*string]func(net.Listener) error{&d.ExtAuthz: g.Serve, &d.ForwardAuth: h.Serve} {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		*at = lis.Addr().String()
		go func() { served <- serve(lis) }()
	}
	err := answerAll(func(struct{}) (any, error) { return d, nil })
	g.Stop()
	err = errors.Join(err, h.Close())
	for range cap(served) {
		if e := <-served; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// checked is who is compared: a process and its doors.
type checked struct {
	doors
	pid int
}

// checks compares the enforcer with the one that says yes, in turns.
func (b *bench) checks(ctx context.Context) (err error) {
	c, err := b.openChecks(ctx)
	if err != nil {
		return errors.Join(err, c.close())
	}
	defer func() { err = errors.Join(err, c.close()) }()
	for _, front := range []struct {
		name  string
		grpc  bool
		calls int
	}{{"ext_authz, gRPC", true, 20_000}, {"forward auth, HTTP", false, 20_000}} {
		with, without, err := c.compare(max(b.rounds, 5), callersOrder{GRPC: front.grpc, Calls: front.calls, Tokens: c.tokens})
		if err != nil {
			return err
		}
		latency, cpu := with.median.ratio(without.median), with.cpu.ratio(without.cpu)
		b.add(front.name+": a check with 1,000,000 revoked tokens, median",
			fmt.Sprintf("%s, always yes %s: %.2f×", micros(time.Duration(with.median)), micros(time.Duration(without.median)), latency),
			"≤ 1.25×", latency <= 1.25)
		b.add("… processor time of the server",
			fmt.Sprintf("%s, always yes %s: %.2f×", micros(time.Duration(with.cpu)), micros(time.Duration(without.cpu)), cpu),
			"≤ 1.25×", cpu <= 1.25)
	}
	return nil
}

// perCheck is what one check took.
type perCheck struct{ median, cpu span }

type span time.Duration

func (s span) ratio(other span) float64 { return float64(s) / float64(other) }

// comparison is the processes that take part.
type comparison struct {
	adapter, yes, callers *child
	enforcer              *stack.Enforcer
	dir                   string
	tokens                []string
	ours, theirs          checked
}

// activeTokens is how many tokens the calls carry in turn.
const activeTokens = 500

// openChecks starts an enforcer of a million tokens, and the one that says yes.
func (b *bench) openChecks(ctx context.Context) (c *comparison, err error) {
	c = &comparison{}
	if c.dir, err = os.MkdirTemp("", "bench"); err != nil {
		return c, err
	}
	if c.adapter, err = start(ctx, "serve", "ours", "1000000"); err != nil {
		return c, err
	}
	at, err := ask[report](c.adapter, order{})
	if err != nil {
		return c, err
	}
	binary, err := stack.Build(ctx, c.dir, "enforcer", "revocation-adapter/enforcer/cmd")
	if err != nil {
		return c, err
	}
	if c.enforcer, err = stack.NewEnforcer(binary, c.dir, []string{at.Address}, "[log]\nlevel = \"warn\"\n[set]\nsnapshot_file = \"\"\n"); err != nil {
		return c, err
	}
	if err = c.enforcer.Start(); err == nil {
		err = c.enforcer.Ready(ctx)
	}
	if err != nil {
		return c, err
	}
	c.ours = checked{doors{c.enforcer.ExtAuthz, c.enforcer.ForwardAuth}, c.enforcer.PID()}
	if c.yes, err = start(ctx, "yes"); err != nil {
		return c, err
	}
	c.theirs.pid = c.yes.cmd.Process.Pid
	if c.theirs.doors, err = ask[doors](c.yes, struct{}{}); err != nil {
		return c, err
	}
	if c.callers, err = start(ctx, "callers"); err != nil {
		return c, err
	}
	issuer, err := stack.NewIssuer("bench")
	if err != nil {
		return c, err
	}
	for i := range activeTokens {
		token, err := issuer.AccessToken(jti("active", i), map[string]any{
			"application": map[string]any{"owner": "alice", "tier": "Unlimited", "name": "shop", "id": 17, "uuid": "b7a1c6a3-6e5c-4b6d-9d0f-2f2a4c9f1e10"},
			"keytype":     "PRODUCTION", "consumerKey": "nNzcR6N4pF7cbVgWvDcmWfZ5vrUa", "tierInfo": map[string]any{"Gold": map[string]any{"tierQuotaType": "requestCount"}},
		})
		if err != nil {
			return c, err
		}
		c.tokens = append(c.tokens, token)
	}
	return c, nil
}

// close ends all that was started.
func (c *comparison) close() (err error) {
	for _, p := range []*child{c.callers, c.yes, c.adapter} {
		if p != nil {
			err = errors.Join(err, p.stop())
		}
	}
	if c.enforcer != nil && c.enforcer.PID() != 0 {
		err = errors.Join(err, c.enforcer.Stop())
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}

// compare calls both in turns, the first round for nothing.
func (c *comparison) compare(rounds int, o callersOrder) (ours, theirs perCheck, err error) {
	var medians, cpus [2][]span
	for round := range rounds + 1 {
		for i, who := range []checked{c.ours, c.theirs} {
			one, err := c.measure(who, o)
			if err != nil {
				return ours, theirs, err
			}
			if round > 0 {
				medians[i], cpus[i] = append(medians[i], one.median), append(cpus[i], one.cpu)
			}
		}
	}
	return perCheck{median(medians[0]), median(cpus[0])}, perCheck{median(medians[1]), median(cpus[1])}, nil
}

func (c *comparison) measure(who checked, o callersOrder) (p perCheck, err error) {
	o.Address = who.ForwardAuth
	if o.GRPC {
		o.Address = who.ExtAuthz
	}
	before, err := processorTime(who.pid)
	if err != nil {
		return p, err
	}
	s, err := ask[callersReport](c.callers, o)
	if err != nil {
		return p, err
	}
	after, err := processorTime(who.pid)
	if err == nil && s.Passed != o.Calls {
		err = fmt.Errorf("%d of %d calls passed", s.Passed, o.Calls)
	}
	return perCheck{span(s.Median), span((after - before) / time.Duration(o.Calls))}, err
}

// ticks per second of the processor times under /proc.
const ticks = 100

// processorTime is what a process has used, user and system.
func processorTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // from the third on
	var total int64
	for _, i := range []int{14 - 3, 15 - 3} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return time.Duration(total) * time.Second / ticks, nil
}
