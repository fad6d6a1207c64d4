package page

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"revocation-adapter/adapter/receipts"
	"revocation-adapter/revocation"
)

// How long a receipt is watched, and how many gateways it names.
const (
	receiptAtMost = 60 * time.Second
	maxNamed      = 50
)

// receiptNews is how a receipt stands. The shape is the control API's.
type receiptNews struct {
	Version  uint64         `json:"version"`
	Gateways receiptFigures `json:"gateways"`
	Took     float64        `json:"took_ms"`
	Done     bool           `json:"done"` // nothing is pending, or nobody waits any longer
}

type receiptFigures struct {
	Enforced         int      `json:"enforced"`
	Pending          []string `json:"pending"` // the first of them
	PendingCount     int      `json:"pending_count"`
	Unreachable      []string `json:"unreachable"`
	UnreachableCount int      `json:"unreachable_count"`
	NotConcerned     int      `json:"not_concerned"`
	Cannot           int      `json:"cannot"`
}

// followReceipt streams how a version arrives at the gateways, until nothing is pending
// or a minute has passed.
func (p *Page) followReceipt(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r.URL.Query())
	if err != nil {
		p.refuse(w, problem{http.StatusBadRequest, "There is no such receipt", err.Error()})
		return
	}
	st, done := p.open(w, r)
	if st == nil {
		return
	}
	defer done()
	ctx, cancel := context.WithTimeout(r.Context(), receiptAtMost)
	defer cancel()
	if err := p.tellReceipt(ctx, st, q); err != nil {
		p.cfg.Log.WithError(err).Debug("A receipt could not be told")
	}
}

func (p *Page) tellReceipt(ctx context.Context, st *stream, q receipts.Query) error {
	began, wait := p.cfg.Now(), time.Duration(0) // the first news is how it stands
	for {
		r, err := p.cfg.Await(ctx, q, wait)
		if ctx.Err() != nil {
			return st.send("timeout", nil)
		}
		if err != nil {
			_ = st.send("failed", nil) // the first error is the one to report
			return err
		}
		news := newsOf(r, p.cfg.Now().Sub(began))
		if err := st.send("", news); err != nil || news.Done {
			return err
		}
		wait = tick
		select {
		case <-st.session.ended:
			st.bye()
			return nil
		case <-p.stopped:
			return nil
		case <-time.After(tick / 4): // should Await not wait
		}
	}
}

func newsOf(r receipts.Receipt, took time.Duration) receiptNews {
	return receiptNews{
		Version: r.Version, Took: float64(took.Microseconds()) / 1000, Done: len(r.Pending) == 0,
		Gateways: receiptFigures{
			Enforced: r.Enforced, NotConcerned: r.NotConcerned, Cannot: r.Cannot,
			Pending: named(r.Pending), PendingCount: len(r.Pending),
			Unreachable: named(r.Unreachable), UnreachableCount: len(r.Unreachable),
		},
	}
}

func named(all []string) []string {
	all = slices.Sorted(slices.Values(all))
	return append([]string{}, all[:min(len(all), maxNamed)]...)
}

var errQuery = errors.New("version must be a number, series tokens or rules, state revoked or approved")

// parseQuery reads version, and series, state and tenant of one part.
func parseQuery(form url.Values) (q receipts.Query, err error) {
	if q.Version, err = strconv.ParseUint(form.Get("version"), 10, 64); err != nil {
		return q, errQuery
	}
	if !form.Has("series") && !form.Has("state") {
		return q, nil
	}
	part := receipts.Part{Tenants: form["tenant"]}
	switch form.Get("series") {
	case "tokens":
		part.Series = revocation.Tokens
	case "rules":
		part.Series = revocation.Rules
	default:
		return q, errQuery
	}
	switch form.Get("state") {
	case revocation.Revoked.String():
		part.State = revocation.Revoked
	case revocation.Approved.String():
		part.State = revocation.Approved
	default:
		return q, errQuery
	}
	q.Parts = []receipts.Part{part}
	return q, nil
}
