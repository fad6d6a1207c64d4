package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"revocation-adapter/integration/chaos/history"
)

// fullNode is the node whose store is on a small disk.
const fullNode = 2

// recovery is how long all may take to be as before.
const recovery = 60 * time.Second

// storeOf is where the cluster keeps a node's store.
func storeOf(dir string, node int) string { return filepath.Join(dir, fmt.Sprint("n", node)) }

// disturb breaks and heals as planned.
func (w *world) disturb(ctx context.Context, steps []step) error {
	for _, s := range steps {
		select {
		case <-time.After(s.rest):
		case <-ctx.Done():
			return ctx.Err()
		}
		if s.faults = w.possible(s.faults); len(s.faults) == 0 {
			continue
		}
		if err := w.disturbOnce(ctx, s.faults); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) possible(faults []planned) (some []planned) {
	for _, f := range faults {
		if w.impossible[f.kind] == nil {
			some = append(some, f)
		}
	}
	return some
}

// disturbOnce breaks what belongs together, heals each after its time, and waits
// until all is as before.
func (w *world) disturbOnce(ctx context.Context, faults []planned) error {
	from := w.record.now()
	leaders := w.leaders(ctx)
	errs := make([]error, len(faults))
	var group sync.WaitGroup
	for i, f := range faults {
		group.Go(func() { errs[i] = w.breakAndHeal(ctx, f, leaders) })
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	w.recover(ctx, faults)
	var kinds []string
	for _, f := range faults {
		kinds = append(kinds, string(f.kind))
	}
	w.record.fault(history.Fault{Kind: strings.Join(kinds, " and "), From: from, To: w.record.now()})
	return ctx.Err()
}

func (w *world) breakAndHeal(ctx context.Context, f planned, leaders map[string][]string) error {
	note := ""
	if leads := leaders[fmt.Sprint("n", f.target)]; !f.kind.ofReplica() && len(leads) > 0 {
		note = ", which leads " + strings.Join(leads, ", ")
	}
	w.say("%s: %d for %s%s", f.kind, f.target, f.hold, note)
	if err := w.harm(f); err != nil {
		return fmt.Errorf("%s: %w", f.kind, err)
	}
	select {
	case <-time.After(f.hold):
	case <-ctx.Done():
	}
	if err := w.heal(ctx, f); err != nil {
		return fmt.Errorf("heal %s: %w", f.kind, err)
	}
	w.say("healed: %s: %d", f.kind, f.target)
	return nil
}

func (k kind) ofReplica() bool { return k == replicaKilled || k == replicaPaused || k == replicaSkewed }

func (w *world) harm(f planned) error {
	switch f.kind {
	case nodeKilled:
		return w.cluster.Kill(f.target)
	case nodePaused:
		return w.cluster.Pause(f.target)
	case nodeCut:
		return w.cutter.cut(w.cluster.Name(f.target))
	case nodeFull:
		return fill(filepath.Join(storeOf(w.dir, f.target), "filler"))
	case replicaKilled:
		return w.replicas[f.target].kill()
	case replicaPaused:
		return w.replicas[f.target].signal(syscall.SIGSTOP)
	case replicaSkewed:
		return errors.Join(w.replicas[f.target].kill(), w.replicas[f.target].start(f.skew))
	}
	return fmt.Errorf("nobody knows how to do %q", f.kind)
}

// heal undoes harm. A server whose disk was full has switched JetStream off: its
// operator makes room and starts it again.
func (w *world) heal(ctx context.Context, f planned) error {
	switch f.kind {
	case nodeKilled:
		return w.restart(ctx, f.target)
	case nodePaused:
		return w.cluster.Resume(f.target)
	case nodeCut:
		return w.cutter.uncut(w.cluster.Name(f.target))
	case nodeFull:
		return errors.Join(os.Remove(filepath.Join(storeOf(w.dir, f.target), "filler")),
			w.cluster.Kill(f.target), w.restart(ctx, f.target))
	case replicaKilled:
		return w.replicas[f.target].start(0)
	case replicaSkewed:
		return errors.Join(w.replicas[f.target].kill(), w.replicas[f.target].start(0))
	case replicaPaused:
		return w.replicas[f.target].signal(syscall.SIGCONT)
	}
	return nil
}

// restart starts a node and waits until it is in sync.
func (w *world) restart(ctx context.Context, node int) error {
	ctx, cancel := context.WithTimeout(ctx, recovery)
	defer cancel()
	err := w.cluster.Restart(ctx, node)
	if errors.Is(err, context.DeadlineExceeded) {
		w.incident("node %d was not in sync %s after its restart: %v", node, recovery, err)
		return nil
	}
	return err
}

// fill writes until there is no room.
func fill(path string) error {
	file, err := os.Create(filepath.Clean(path))
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for err == nil {
		_, err = file.Write(block)
	}
	if errors.Is(err, syscall.ENOSPC) {
		err = nil
	}
	return errors.Join(err, file.Close())
}

// recover waits until all is as before. What is not, in time, is an incident,
// and is started again, so that the run can go on.
func (w *world) recover(ctx context.Context, faults []planned) {
	limited, cancel := context.WithTimeout(ctx, recovery)
	err := w.cluster.Await(limited)
	cancel()
	if err != nil && ctx.Err() == nil {
		w.incident("after %s the hub was not in sync within %s: %v", faults[0].kind, recovery, err)
		if !faults[0].kind.ofReplica() {
			w.incidentIf(errors.Join(w.cluster.Kill(faults[0].target), w.restart(ctx, faults[0].target)))
		}
	}
	for i := range w.replicas {
		limited, cancel := context.WithTimeout(ctx, recovery)
		err := w.awaitReplica(limited, i)
		cancel()
		if err != nil && ctx.Err() == nil {
			w.incident("after %s replica %d was not ready within %s: %v", faults[0].kind, i, recovery, err)
			w.incidentIf(errors.Join(w.replicas[i].kill(), w.replicas[i].start(0)))
		}
	}
}

func (w *world) awaitReplica(ctx context.Context, number int) error {
	return w.replicas[number].await(ctx, func(why string) {
		w.incident("replica %d left by itself: %s", number, why)
	})
}
