package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"revocation-adapter/enforcer"
)

// What the library costs a gateway that embeds it.

// embedded is what a process with one enforcer has measured.
type embedded struct {
	Heap   int64         // bytes of the set
	CPU    time.Duration // to load it, receiving and decoding included
	Check  time.Duration // of a jti that is not revoked, new to the processor's caches
	Signed time.Duration // of a jti and a signature
}

// library is the role of a process that embeds an enforcer.
func library(ctx context.Context) error {
	return answerAll(func(w watchFor) (any, error) { return embed(ctx, w.Adapter) })
}

func embed(ctx context.Context, adapter string) (m embedded, err error) {
	ctx, cancel := context.WithCancel(ctx)
	e, err := enforcer.New(enforcer.Config{Adapters: []string{adapter}, Grace: grace, MaxStaleness: time.Hour})
	if err != nil {
		cancel()
		return m, err
	}
	before, began := heap(), cpu()
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	_, err = await(ctx, []*enforcer.Enforcer{e}, "")
	m.CPU = cpu() - began
	m.Heap = heap() - before
	if err == nil {
		m.Check, m.Signed = perCall(e, false), perCall(e, true)
	}
	cancel()
	if e := <-ended; !errors.Is(e, context.Canceled) {
		err = errors.Join(err, e)
	}
	return m, err
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// perCall is how long a check takes, over many tokens. Their texts lie one after
// the other, as what was just read of a call is at hand: what is new to the
// processor's caches is the set.
func perCall(e *enforcer.Enforcer, signed bool) time.Duration {
	const tokens = 100_000
	var all strings.Builder
	for i := range tokens {
		all.WriteString(jti("free", i))
	}
	ids, expiry := all.String(), time.Now().Add(time.Hour).UnixMilli()
	var rounds []time.Duration
	for range 9 {
		begin := time.Now()
		for at := 0; at < len(ids); at += len(ids) / tokens {
			t := enforcer.Token{ID: ids[at : at+len(ids)/tokens], Expiry: expiry}
			if signed { // as long as ES256 makes them
				t.Signature = ids[max(0, at-86) : max(0, at-86)+86]
			}
			if e.Check(t).Verdict != enforcer.Pass {
				return 0
			}
		}
		rounds = append(rounds, time.Since(begin)/tokens)
	}
	return median(rounds)
}

func (b *bench) library(ctx context.Context) error {
	var all [3][]time.Duration
	heap := int64(0)
	for range max(3, b.rounds) {
		m, err := measureLibrary(ctx)
		if err != nil {
			return err
		}
		if m.Check == 0 || m.Signed == 0 {
			return errors.New("a token that is not revoked did not pass")
		}
		heap = max(heap, m.Heap)
		for i, d := range []time.Duration{m.CPU, m.Check, m.Signed} {
			all[i] = append(all[i], d)
		}
	}
	load, check, signed := median(all[0]), median(all[1]), median(all[2])
	nanos := func(d time.Duration) string { return fmt.Sprintf("%d ns", d.Nanoseconds()) }
	b.add("enforcer library, 1,000,000 revoked tokens: a check by jti", nanos(check), "≤ 300 ns", check <= 300*time.Nanosecond)
	b.add("… by jti and signature, both hashed anew", nanos(signed), "", true)
	b.add("… the set in memory", fmt.Sprintf("%.1f MB", float64(heap)/1e6), "≤ 32 MB", heap <= 32_000_000)
	b.add("… processor time to load it, receiving included", millis(load), "≤ 500 ms", load <= 500*time.Millisecond)
	return nil
}

func measureLibrary(ctx context.Context) (m embedded, err error) {
	adapter, err := start(ctx, "serve", "ours", "1000000")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, adapter.stop()) }()
	at, err := ask[report](adapter, order{})
	if err != nil {
		return m, err
	}
	gateway, err := start(ctx, "library")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, gateway.stop()) }()
	return ask[embedded](gateway, watchFor{Adapter: at.Address})
}
