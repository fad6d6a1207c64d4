package control

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"revocation-adapter/adapter/receipts"
)

// maxWait bounds how long a caller may have us wait for gateways.
const maxWait = 60 * time.Second

// prefersWait reads Prefer: wait=5 (RFC 7240, 4.3), in seconds.
func prefersWait(h http.Header) (wait time.Duration, asked bool) {
	for _, line := range h.Values("Prefer") {
		for preference := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(preference, "=")
			if !strings.EqualFold(strings.TrimSpace(name), "wait") {
				continue
			}
			value, _, _ = strings.Cut(value, ";")
			seconds, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 32)
			if err == nil {
				return min(time.Duration(seconds)*time.Second, maxWait), true
			}
		}
	}
	return 0, false
}

// figures are how gateways stand to a version. Who is not an operator is told how
// many, and no names.
type figures struct {
	Enforced     int `json:"enforced"`
	Pending      any `json:"pending"`
	Unreachable  any `json:"unreachable"`
	NotConcerned int `json:"not_concerned"`
	Cannot       int `json:"cannot"`
}

func (c *call) figures(r receipts.Receipt) *figures {
	f := &figures{Enforced: r.Enforced, NotConcerned: r.NotConcerned, Cannot: r.Cannot}
	if c.operator() {
		f.Pending, f.Unreachable = named(r.Pending), named(r.Unreachable)
	} else {
		f.Pending, f.Unreachable = len(r.Pending), len(r.Unreachable)
	}
	return f
}

// named is a list that is never null.
func named(names []string) []string { return append([]string{}, names...) }

// receipt is what a caller is told that waits.
type receipt struct {
	Version  uint64   `json:"version"`
	Gateways *figures `json:"gateways"`
	TookMS   int64    `json:"took_ms"` // since the call came
}

// query asks for all that an effect concerns.
func (e effect) query() receipts.Query {
	q := receipts.Query{Version: e.version}
	for i, of := range e.series {
		at := slices.IndexFunc(q.Parts, func(p receipts.Part) bool { return p.Series == of })
		if at < 0 {
			q.Parts = append(q.Parts, receipts.Part{Series: of, State: e.state})
			at = len(q.Parts) - 1
		}
		if part := &q.Parts[at]; !slices.Contains(part.Tenants, e.tenants[i]) {
			part.Tenants = append(part.Tenants, e.tenants[i])
		}
	}
	return q
}

// await asks all replicas how gateways stand to what was changed.
func (c *call) await(ctx context.Context, q receipts.Query, wait time.Duration) (receipts.Receipt, error) {
	if len(q.Parts) == 0 || q.Version == 0 {
		return receipts.Receipt{Version: q.Version}, nil // no gateway is told of it
	}
	r, err := c.core.Receipts.Await(ctx, q, wait)
	if errors.Is(err, receipts.ErrNotReady) {
		return r, unavailable("it is stored; which gateways there are is not known yet")
	}
	return r, err
}

// waited is await for who prefers to wait. Where too many calls of the client do, it
// is told at once how things stand.
func (c *call) waited(q receipts.Query, wait time.Duration) (receipts.Receipt, error) {
	done, ok := c.client.Wait()
	defer done()
	if !ok {
		wait = 0
	}
	r, err := c.await(c.r.Context(), q, wait)
	if err == nil {
		c.w.Header().Set("Preference-Applied", "wait="+strconv.Itoa(int(wait/time.Second)))
	}
	return r, err
}

func (c *call) tellReceipt(e effect, wait time.Duration) error {
	r, err := c.waited(e.query(), wait)
	if err != nil {
		return err
	}
	return c.json(receipt{Version: r.Version, Gateways: c.figures(r), TookMS: c.took()})
}

func (c *call) took() int64 { return c.cfg.Now().Sub(c.began).Milliseconds() }
