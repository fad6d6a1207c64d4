package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// row is one line of the table.
type row struct {
	Figure   string `json:"figure"`
	Measured string `json:"measured"`
	Target   string `json:"target"`
	Verdict  string `json:"verdict"` // "ok", "missed", or "" without a target
}

type bench struct {
	binary string // of the adapter
	rounds int
	rows   []row
}

// orchestrate runs the measurements and prints the table.
func orchestrate(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	rounds := flags.Int("rounds", 5, "how often what is compared is measured in turns")
	out := flags.String("json", "bench.json", "file for the table as JSON")
	only := flags.String("only", "", "run only the measurements whose name contains this")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	b := &bench{rounds: *rounds}
	if b.binary, err = buildAdapter(ctx, dir); err != nil {
		return err
	}
	for _, m := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"log", b.log},
		{"delivery", b.delivery},
		{"linear", b.linear},
		{"flat", b.flat},
		{"full set", b.fullSet},
		{"packed set", b.packedSet},
		{"library", b.library},
		{"checks", b.checks},
		{"rejections", b.rejections},
		{"events", b.events},
		{"lines", b.lines},
		{"batches", b.batches},
		{"receipts", b.receipts},
		{"burst", b.burst},
		{"claims", b.claims},
		{"revocations", b.revocations},
		{"waits", b.waits},
		{"page", b.page},
		{"amqp", b.amqp},
		{"full sync", b.fullSync},
		{"full sync memory", b.fullSyncMemory},
		{"restart", b.restart},
	} {
		if !strings.Contains(m.name, *only) {
			continue
		}
		begin := time.Now()
		if err := m.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		fmt.Fprintf(os.Stderr, "%-10s %s\n", m.name, time.Since(begin).Round(time.Second))
	}
	return b.finish(*out)
}

func (b *bench) add(figure, measured, target string, ok bool) {
	verdict := "ok"
	switch {
	case target == "":
		verdict = ""
	case !ok:
		verdict = "missed"
	}
	b.rows = append(b.rows, row{figure, measured, target, verdict})
}

func (b *bench) log(context.Context) error {
	bytes, since, err := measureLog(1_000_000)
	b.add("revocation.Log, 1,000,000 UUID tokens: memory per token", fmt.Sprintf("%.1f B", bytes), "≤ 64 B", bytes <= 64)
	b.add("revocation.Log, 1,000,000 UUID tokens: Since of 100 changes", micros(since), "< 20 µs", since < 20*time.Microsecond)
	return err
}

func (b *bench) delivery(ctx context.Context) error {
	d := delivery{tokens: 0, streams: 1000, perConnection: 1, rate: 12, events: 60}
	ours, raw := d, d
	ours.backend, raw.backend = "ours", "raw"
	o, r, err := compareDelivery(ctx, b.rounds, ours, raw)
	if err != nil {
		return err
	}
	x := float64(o) / float64(r)
	b.add("server CPU per delivery, 1,000 streams, one per connection",
		fmt.Sprintf("%s, raw %s: %.2f×", micros(o), micros(r), x), "≤ 1.4× raw gRPC", x <= 1.4)
	return nil
}

func (b *bench) linear(ctx context.Context) error {
	o, l, err := compareDelivery(ctx, min(b.rounds, 3),
		delivery{backend: "ours", tokens: 10_000, streams: 100, perConnection: 100, rate: 50, events: 200},
		delivery{backend: "linear", tokens: 10_000, streams: 100, perConnection: 100, rate: 1, events: 4})
	if err != nil {
		return err
	}
	x := float64(l) / float64(o)
	b.add("server CPU per delivery, 100 streams, 10,000 tokens held",
		fmt.Sprintf("%s, LinearCache %s: %.0f× less", micros(o), micros(l), x), "≥ 50× less than LinearCache", x >= 50)
	return nil
}

func (b *bench) flat(ctx context.Context) error {
	d := delivery{backend: "ours", streams: 100, perConnection: 100, rate: 50, events: 250}
	few, many := d, d
	few.tokens, many.tokens = 1_000, 1_000_000
	f, m, err := compareDelivery(ctx, b.rounds, many, few)
	if err != nil {
		return err
	}
	x := float64(f) / float64(m)
	b.add("server CPU per delivery, 1,000,000 tokens held against 1,000",
		fmt.Sprintf("%s, %s: %.2f×", micros(f), micros(m), x), "≤ 1.2×", x <= 1.2)
	return nil
}

func (b *bench) fullSet(ctx context.Context) error {
	const tokens = 1_000_000
	var ours, raw []time.Duration
	var growth, largest int64
	for range b.rounds {
		o, err := loadFullSet(ctx, "ours", tokens)
		if err != nil {
			return err
		}
		r, err := loadFullSet(ctx, "raw", tokens)
		if err != nil {
			return err
		}
		ours, raw = append(ours, o.took), append(raw, r.took)
		growth, largest = max(growth, o.growth), max(largest, o.maxMessage)
	}
	o, r := median(ours), median(raw)
	x := float64(o) / float64(r)
	b.add("1,000,000 tokens to one new gateway", fmt.Sprintf("%s, raw %s: %.2f×", millis(o), millis(r), x), "≤ 3× raw gRPC", x <= 3)
	b.add("… its largest message", fmt.Sprintf("%.2f MB", float64(largest)/1e6), "≤ 2 MB", largest <= 2_000_000)
	b.add("… growth of the server's memory", fmt.Sprintf("%.0f MB", float64(growth)/1e6), "< 64 MB", growth < 64_000_000)
	return nil
}

func (b *bench) packedSet(ctx context.Context) error {
	const tokens, enforcers = 1_000_000, 100
	var ours, raw []time.Duration
	var growth, largest int64
	for range b.rounds {
		o, err := loadFullSets(ctx, "ours", tokens, load{Streams: enforcers, Batches: true})
		if err != nil {
			return err
		}
		r, err := loadFullSets(ctx, "packed", tokens, load{Streams: enforcers, Batches: true})
		if err != nil {
			return err
		}
		ours, raw = append(ours, o.took), append(raw, r.took)
		growth, largest = max(growth, o.growth), max(largest, o.maxMessage)
	}
	o, r := median(ours), median(raw)
	x := float64(o) / float64(r)
	b.add("1,000,000 tokens to 100 enforcers at once", fmt.Sprintf("%s, raw %s: %.2f×", millis(o), millis(r), x), "≤ 2× raw gRPC with the same bytes", x <= 2)
	b.add("… growth of the server's memory", fmt.Sprintf("%.0f MB", float64(growth)/1e6), "< 64 MB", growth < 64_000_000)
	perToken := float64(largest) / rawPacked
	b.add("… bytes per token on the wire", fmt.Sprintf("%.1f B", perToken), "≤ 20 B", perToken <= 20)
	return nil
}

func (b *bench) events(ctx context.Context) error {
	worst, n, err := manyEvents(ctx, b.binary, 1000, 1000, 10)
	if err != nil {
		return err
	}
	b.add("1,000 events/s to 1,000 gateways for 10 s: the furthest that one was behind",
		fmt.Sprintf("%s (%.1f M deliveries)", millis(worst), float64(n)/1e6), "≤ 500 ms", worst <= 500*time.Millisecond)
	return nil
}

func (b *bench) lines(ctx context.Context) error {
	const events = 20_000
	var with, without []float64
	for range min(b.rounds, 3) {
		w, err := ingestRate(ctx, b.binary, "info", events)
		if err != nil {
			return err
		}
		wo, err := ingestRate(ctx, b.binary, "error", events)
		if err != nil {
			return err
		}
		with, without = append(with, w), append(without, wo)
	}
	w, wo := median(with), median(without)
	b.add("plain publishes into the log, synced, with the log lines", fmt.Sprintf("%.0f/s", w), "", true)
	b.add("… and without them", fmt.Sprintf("%.0f/s: %.2f× with", wo, w/wo), "≥ 0.9× with", w/wo >= 0.9)
	return nil
}

func (b *bench) batches(ctx context.Context) error {
	var rates []float64
	for range min(b.rounds, 3) {
		rate, err := batchRate(ctx, 300_000)
		if err != nil {
			return err
		}
		rates = append(rates, rate)
	}
	rate := median(rates)
	b.add("from sources that hold many at a time into the log, synced, encrypted", fmt.Sprintf("%.0f/s", rate), "≥ 50,000/s", rate >= 50_000)
	return nil
}

// burst publishes as fast as a client can, waiting for nothing.
func (b *bench) burst(ctx context.Context) error {
	const events = 300_000
	rate, err := ingestRate(ctx, b.binary, "info", events)
	if err != nil {
		return err
	}
	b.add("300,000 plain publishes at once: all are in the log after",
		fmt.Sprintf("%.0f s (%.0f/s), none lost", events/rate, rate), "none lost", true)
	return nil
}

func (b *bench) restart(ctx context.Context) error {
	const revocations = 1_000_000
	embedded := func(end func(*adapterProcess) error) func() (time.Duration, error) {
		return func() (time.Duration, error) { return restart(ctx, b.binary, revocations, "", "", end) }
	}
	for _, m := range []struct {
		after  string
		target time.Duration
		run    func() (time.Duration, error)
	}{
		{"a clean stop, its hub included, encrypted", 4 * time.Second, embedded((*adapterProcess).stop)},
		{"kill -9, its hub included, encrypted", 8 * time.Second, embedded(func(a *adapterProcess) error {
			a.kill()
			return nil
		})},
		{"a clean stop, external hub", 3 * time.Second, func() (time.Duration, error) {
			return restartAtExternalHub(ctx, b.binary, revocations)
		}},
	} {
		took, err := m.run()
		if err != nil {
			return err
		}
		b.add("1,000,000 revocations: ready after "+m.after, millis(took), fmt.Sprintf("≤ %.0f s", m.target.Seconds()), took <= m.target)
	}
	return nil
}

// finish prints the table and writes it.
func (b *bench) finish(path string) error {
	fmt.Println("| figure | measured | target | verdict |")
	fmt.Println("| --- | --- | --- | --- |")
	missed := 0
	for _, r := range b.rows {
		fmt.Printf("| %s | %s | %s | %s |\n", r.Figure, r.Measured, r.Target, r.Verdict)
		if r.Verdict == "missed" {
			missed++
		}
	}
	data, err := json.MarshalIndent(b.rows, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Clean(path), append(data, '\n'), 0o600); err != nil {
		return err
	}
	if missed > 0 {
		return errors.New("a target was missed")
	}
	return nil
}

func micros(d time.Duration) string { return fmt.Sprintf("%.1f µs", float64(d.Nanoseconds())/1e3) }
func millis(d time.Duration) string { return fmt.Sprintf("%.0f ms", float64(d.Microseconds())/1e3) }
