package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"revocation-adapter/integration/chaos/history"
)

// report is what came of a run.
type report struct {
	seed       uint64
	history    history.History
	verdict    history.Verdict
	incidents  []string
	impossible map[kind]error
	retries    int
	failovers  int
}

// What is described: how many faults of a sort, and events that took how long.
const (
	shownFaults = 10
	tellSlow    = 5 * time.Second
)

// print prints what is wrong, then the table, and returns an error if anything
// is wrong.
func (r report) print(out io.Writer) error {
	var text strings.Builder
	for _, sort := range []struct {
		name   string
		faults []string
	}{
		{"lost", r.verdict.Lost},
		{"false revocation", r.verdict.False},
		{"version regression", r.verdict.Regressions},
		{"diverged", r.verdict.Diverged},
		{"false receipt", r.verdict.Receipts},
		{"incident", r.incidents},
	} {
		for i, f := range sort.faults {
			if i == shownFaults {
				fmt.Fprintf(&text, "%s: … and %d more\n", sort.name, len(sort.faults)-i)
				break
			}
			fmt.Fprintf(&text, "%s: %s\n", sort.name, f)
		}
	}
	for _, d := range r.verdict.Delays {
		if d.Worst >= tellSlow {
			fmt.Fprintf(&text, "slowest, %s: %s\n", cmp.Or(d.Kind, "no fault"), d.Event)
		}
	}
	r.table(&text)
	if _, err := io.WriteString(out, text.String()); err != nil {
		return err
	}
	if !r.verdict.Passed() || len(r.incidents) > 0 {
		return fmt.Errorf("not all is well: SEED=%d repeats the schedule", r.seed)
	}
	return nil
}

func (r report) table(text *strings.Builder) {
	v := r.verdict
	row := func(figure string, value any) { fmt.Fprintf(text, "| %s | %v |\n", figure, value) }
	row("figure", fmt.Sprintf("seed %d, %s", r.seed, r.history.End.Round(time.Second)))
	row("---", "---")
	row("events acknowledged", fmt.Sprintf("%d, after %d more tries", len(r.history.Events)-v.Unacked, r.retries))
	row("never acknowledged", v.Unacked)
	row("gateways; responses; streams that ended", fmt.Sprintf("%d; %d; %d", len(r.history.Gateways), len(r.history.Responses), r.failovers))
	row("**lost**", len(v.Lost))
	row("**false revocations**", len(v.False))
	row("**version regressions**", len(v.Regressions))
	row("**diverged gateways**", len(v.Diverged))
	row("**false receipts**", fmt.Sprintf("%d of %d", len(v.Receipts), r.receipts()))
	row("not recovered, or not quiet in the end", len(r.incidents))
	for _, d := range v.Delays {
		name := "no fault"
		if d.Kind != "" {
			name = fmt.Sprintf("%s (%d×)", d.Kind, d.Faults)
		}
		row("longest to the last gateway, "+name, fmt.Sprintf("%.1f s, of %d events", d.Worst.Seconds(), d.Events))
	}
	for _, k := range []kind{nodeCut, nodeFull} {
		if why := r.impossible[k]; why != nil {
			row("left out: "+string(k), why)
		}
	}
}

// receipts counts those that name a gateway.
func (r report) receipts() (count int) {
	for _, e := range r.history.Events {
		if e.Enforced > 0 {
			count++
		}
	}
	return count
}

// history returns what was recorded.
func (r *recorder) history() history.History {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := history.History{
		Began: r.began, Grace: grace, Events: slices.Clone(r.events), Responses: slices.Clone(r.responses), Faults: slices.Clone(r.faults),
	}
	for i := range gateways {
		h.Gateways = append(h.Gateways, history.Gateway{Name: nameOf(i), Delta: protocolOf(i) == delta})
	}
	return h
}
