package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"

	"revocation-adapter/integration/rabbitmq"
	"revocation-adapter/integration/stack"
)

// amqp publishes to a broker as fast as a client can.
func (b *bench) amqp(ctx context.Context) error {
	const events = 400_000
	rate, cost, err := amqpRate(ctx, b.binary, events)
	if errors.Is(err, rabbitmq.ErrMissing) {
		b.add("AMQP into the log", err.Error(), "", true)
		return nil
	}
	if err != nil {
		return err
	}
	b.add("400,000 events from a RabbitMQ beside it into the log, acknowledged",
		fmt.Sprintf("%.0f/s", rate), "≥ 20,000/s", rate >= 20_000)
	b.add("… processor time of the adapter per event, its hub included", micros(cost), "≤ 100 µs, two cores at 20,000/s", cost <= 100*time.Microsecond)
	return nil
}

// amqpRate is how many events per second come through the real adapter from a
// broker on the same machine, until its log holds all of them, and what one costs.
func amqpRate(ctx context.Context, binary string, events int) (perSecond float64, cost time.Duration, err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	broker, err := rabbitmq.Start(ctx, rabbitmq.Options{Dir: dir})
	if err != nil {
		return 0, 0, err
	}
	defer broker.Close()
	a, err := startWith(ctx, binary, dir, fmt.Sprintf("[amqp]\nbrokers = [\"amqp://guest:guest@%s\"]\n", broker.Address))
	if err != nil {
		return 0, 0, err
	}
	defer a.kill()
	if err := a.await(ctx, time.Minute, func(r readiness) bool { return r.Ready }); err != nil {
		return 0, 0, err
	}
	if err := a.awaitMetric(ctx, `source_connected{source="amqp"} 1`); err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	if err := publishAMQP(ctx, broker, events); err != nil {
		return 0, 0, err
	}
	if err := a.await(ctx, time.Minute, func(r readiness) bool { return r.Revoked >= events }); err != nil {
		return 0, 0, err
	}
	perSecond = float64(events) / time.Since(begin).Seconds()
	if err := a.stop(); err != nil {
		return 0, 0, err
	}
	used := a.cmd.ProcessState.UserTime() + a.cmd.ProcessState.SystemTime()
	return perSecond, used / time.Duration(events), nil
}

func publishAMQP(ctx context.Context, broker *rabbitmq.Server, events int) error {
	const publishers = 2
	group, ctx := errgroup.WithContext(ctx)
	for p := range publishers {
		group.Go(func() error {
			conn, err := broker.Dial()
			if err != nil {
				return err
			}
			defer conn.Close() //nolint:errcheck // all is sent
			channel, err := conn.Channel()
			if err != nil {
				return err
			}
			expiry := time.Now().Add(time.Hour).UnixMilli()
			for i := p; i < events; i += publishers {
				id := jti("amqp", i)
				body := fmt.Appendf(nil, `{"event":{"payloadData":{"eventId":%q,"revokedToken":%q,"ttl":"5000","expiryTime":%d,"type":"JWT","tenantId":-1234}}}`,
					id, id, expiry)
				if err := channel.PublishWithContext(ctx, "amq.topic", "tokenRevocation", false, false, amqp091.Publishing{Body: body}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// fullSync reads a million entries, at first and when all are known.
func (b *bench) fullSync(ctx context.Context) error {
	f, err := loadFullSync(ctx, b.binary, fullSyncEntries, startWith)
	if err != nil {
		return err
	}
	b.add("full sync of 1,000,000 entries, all new", millis(f.new), "< 30 s", f.new < 30*time.Second)
	b.add("full sync of 1,000,000 entries, all known", millis(f.known), "< 10 s", f.known < 10*time.Second)
	b.add("… memory at the peak of the first, its hub included, above an adapter with none", megabytes(f.peak-f.empty), "< 200 MB", f.peak-f.empty < 200e6)
	b.add("… and of the second, above one that holds them", megabytes(f.peakKnown-f.settled), "< 200 MB", f.peakKnown-f.settled < 200e6)
	return nil
}

// fullSyncMemory is the adapter's own, with the hub elsewhere.
func (b *bench) fullSyncMemory(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	hub, err := stack.Free()
	if err != nil {
		return err
	}
	nats, err := start(ctx, "nats", hub, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, nats.stop()) }()
	f, err := loadFullSync(ctx, b.binary, fullSyncEntries, func(ctx context.Context, binary, dir, sections string) (*adapterProcess, error) {
		settings := fmt.Sprintf("mode = \"external\"\nreplicas = 1\nurls = [\"nats://%s\"]\n%s", hub, sections)
		return startAdapterAt(ctx, binary, dir, "info", hub, settings)
	})
	if err != nil {
		return err
	}
	b.add("full sync of 1,000,000 entries, all new, external hub", millis(f.new), "", true)
	b.add("… memory at its peak, above an adapter with none", megabytes(f.peak-f.empty), "< 200 MB", f.peak-f.empty < 200e6)
	return nil
}

const fullSyncEntries = 1_000_000

func megabytes(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }

type fullSyncCost struct {
	new, known                      time.Duration
	empty, peak, settled, peakKnown int64 // bytes
}

// starter starts an adapter with other sections.
type starter func(ctx context.Context, binary, dir, sections string) (*adapterProcess, error)

func loadFullSync(ctx context.Context, binary string, entries int, start starter) (f fullSyncCost, err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return f, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	asked, goOn := make(chan time.Time, 100), make(chan struct{})
	plane := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		<-goOn
		asked <- time.Now()
		_ = writeList(w, entries) // the adapter would tell
	}))
	defer plane.Close()
	a, err := start(ctx, binary, dir, fmt.Sprintf("[control_plane]\nurl = %q\ninterval = \"15s\"\n", plane.URL))
	if err != nil {
		return f, err
	}
	defer a.kill()
	if err := a.await(ctx, time.Minute, func(r readiness) bool { return r.Ready }); err != nil {
		return f, err
	}
	if f.empty, err = memoryOf(a.cmd.Process.Pid, "VmRSS"); err != nil {
		return f, err
	}
	close(goOn)
	if f.new, f.peak, err = a.reads(ctx, <-asked, 1); err != nil {
		return f, err
	}
	begin := <-asked
	if f.settled, err = memoryOf(a.cmd.Process.Pid, "VmRSS"); err != nil {
		return f, err
	}
	f.known, f.peakKnown, err = a.reads(ctx, begin, 2)
	return f, err
}

// reads waits until so many reads are done, and returns how long the last took
// and the adapter's memory at its peak.
func (a *adapterProcess) reads(ctx context.Context, begin time.Time, n int) (took time.Duration, highest int64, err error) {
	peak := watchPeak(a.cmd.Process.Pid)
	err = a.awaitMetric(ctx, fmt.Sprintf(`full_syncs_total{outcome="done"} %d`, n))
	return time.Since(begin), peak(), err
}

func writeList(w io.Writer, entries int) error {
	out := bufio.NewWriterSize(w, 64<<10)
	expiry := time.Now().Add(24 * time.Hour).UnixMilli()
	expiry -= expiry % int64(24*time.Hour/time.Millisecond) // the same each time
	separator := "["
	for i := range entries {
		if _, err := fmt.Fprintf(out, `%s{"jwt_signature":%q,"expiry_time":%d}`, separator, jti("sync", i), expiry+86_400_000); err != nil {
			return err
		}
		separator = ","
	}
	_, err := out.WriteString("]")
	return errors.Join(err, out.Flush())
}

// startWith starts the adapter with an embedded hub and other sections.
func startWith(ctx context.Context, binary, dir, sections string) (*adapterProcess, error) {
	hub, err := stack.Free()
	if err != nil {
		return nil, err
	}
	return startAdapterAt(ctx, binary, dir, "info", hub, fmt.Sprintf("listen = %q\n%s", hub, sections))
}

// awaitMetric polls until /metrics has a line that ends so.
func (a *adapterProcess) awaitMetric(ctx context.Context, line string) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	late := time.After(time.Minute)
	for {
		if ok, err := a.hasMetric(ctx, "revocation_adapter_"+line); err == nil && ok {
			return nil
		}
		select {
		case <-tick.C:
		case <-late:
			return fmt.Errorf("not within a minute: %s", line)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (a *adapterProcess) hasMetric(ctx context.Context, line string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.control+"/metrics", nil)
	if err != nil {
		return false, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if lines.Text() == line {
			return true, nil
		}
	}
	return false, lines.Err()
}
