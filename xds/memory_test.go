package xds_test

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"revocation-adapter/xds"
)

// Nothing of what it does not read is kept for it, and nobody waits for it.
func TestGatewayThatStopsReading(t *testing.T) {
	w := start(t)
	w.revoke(fortyThousand()...)
	for range 5 {
		stall(t, w, true)
		stall(t, w, false)
	}
	other, another := w.subscribe(t, streamTokens, w.head()), w.delta(t)
	other.accept()
	another.follow(number(t, w.head()))
	before := heap()
	slow := 0
	for i := range 2000 {
		began := time.Now()
		head := w.revoke(fmt.Sprint("new ", i))
		other.follow(head)
		another.follow(head)
		if time.Since(began) > 2*time.Second {
			slow++
		}
	}
	if slow > 5 { // a busy machine; who waited for them would be late with each
		t.Errorf("%d of 2,000 changes took more than two seconds", slow)
	}
	// 10 streams, one response of up to 2 MB each, are there before.
	if grown := heap() - before; grown > 12<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
}

// head is the log's version as clients see it.
func (w *world) head() string { return text(w.log.Snapshot().Version()) }

// stall opens a stream that is never read. If it lies, it ACKs the first chunk
// all the same, so that the second blocks the server's side, and goes on.
func stall(t *testing.T, w *world, lies bool) sotwStream {
	t.Helper()
	stream, err := streamTokens.open(t.Context(), w.stalled())
	if err != nil {
		t.Fatal(err)
	}
	before := w.metric("revocation_adapter_xds_responses_total", "sotw")
	send(t, stream.Send(&discovery.DiscoveryRequest{Node: node("stalled")}))
	sent := func(n float64) {
		until(t, "it is sent", func() bool { return w.metric("revocation_adapter_xds_responses_total", "sotw") >= before+n })
	}
	sent(1)
	if !lies {
		return stream
	}
	send(t, stream.Send(&discovery.DiscoveryRequest{VersionInfo: "1000", ResponseNonce: "1"}))
	sent(2)
	go func() {
		for range 2_000 { // as far as the window reaches
			if stream.Send(&discovery.DiscoveryRequest{VersionInfo: "1001", ResponseNonce: "2"}) != nil {
				return // the stream is over
			}
		}
	}()
	return stream
}

func heap() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// A stream is one position: what it was sent is not remembered.
func TestStreamRemembersNoNames(t *testing.T) {
	w := start(t)
	const held = 20_000
	head := w.revoke(fortyThousand()[:held]...)
	cases := []struct {
		name string
		open func() (take func() (version, nonce string), ack func(version, nonce string))
	}{
		{"state of the world", func() (func() (string, string), func(string, string)) {
			stream, err := aggregated.open(t.Context(), w.dial())
			if err != nil {
				t.Fatal(err)
			}
			ack := func(version, nonce string) {
				send(t, stream.Send(&discovery.DiscoveryRequest{TypeUrl: xds.TypeURL, VersionInfo: version, ResponseNonce: nonce}))
			}
			return func() (string, string) {
				resp, err := stream.Recv()
				send(t, err)
				return resp.GetVersionInfo(), resp.GetNonce()
			}, ack
		}},
		{"delta", func() (func() (string, string), func(string, string)) {
			return deltaPosition(t, w, nil)
		}},
		{"delta that held all before", func() (func() (string, string), func(string, string)) {
			return deltaPosition(t, w, versionsOf(w))
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			sync := func() {
				take, ack := c.open()
				for ack("", ""); ; {
					version, nonce := take()
					ack(version, nonce)
					if version == text(head) {
						return
					}
				}
			}
			sync() // what one needs, all share
			before := heap()
			const streams = 4
			for range streams {
				sync()
			}
			if each := (heap() - before) / streams; each > 300<<10 {
				t.Errorf("a stream that holds %d tokens costs %d bytes", held, each)
			}
		})
	}
}

// deltaPosition opens an incremental stream that keeps nothing of what it gets.
func deltaPosition(t *testing.T, w *world, held map[string]string) (take func() (version, nonce string), ack func(version, nonce string)) {
	t.Helper()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(w.dial()).DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ack = func(_, nonce string) {
		req := &discovery.DeltaDiscoveryRequest{TypeUrl: xds.TypeURL, ResponseNonce: nonce}
		if nonce == "" {
			req.InitialResourceVersions = held
		}
		send(t, stream.Send(req))
	}
	take = func() (string, string) {
		resp, err := stream.Recv()
		send(t, err)
		return resp.GetSystemVersionInfo(), resp.GetNonce()
	}
	return take, ack
}

// versionsOf is what a client that holds everything says.
func versionsOf(w *world) map[string]string {
	versions := map[string]string{}
	for c := range w.log.Snapshot().Since(0, w.clock.Now()) {
		versions[c.Name()] = text(c.Version)
	}
	return versions
}

func send(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}
