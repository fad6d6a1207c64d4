package main

import (
	"sync"
	"time"

	"revocation-adapter/integration/chaos/history"
)

// recorder writes the history of a run. Any number of goroutines may use it.
type recorder struct {
	began time.Time

	mu        sync.Mutex // held to change what follows
	events    []history.Event
	responses []history.Response
	faults    []history.Fault
	retries   int // publishes that were not acknowledged and were tried again
	failovers int // streams that ended
}

func (r *recorder) now() time.Duration { return time.Since(r.began) }

func (r *recorder) event(e history.Event, retries int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	r.retries += retries
}

func (r *recorder) response(resp history.Response) {
	resp.At = r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.responses = append(r.responses, resp)
}

func (r *recorder) fault(f history.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, f)
}

func (r *recorder) failover() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failovers++
}
