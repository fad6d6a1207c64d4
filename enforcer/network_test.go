package enforcer_test

import (
	"io"
	"net"
	"sync"
	"testing"

	"revocation-adapter/enforcer"
)

// network passes bytes on between an enforcer and an adapter, until it is frozen:
// then what is open stays so, and nothing comes of it any more.
type network struct {
	lis    net.Listener
	target string

	mu     sync.Mutex
	frozen chan struct{} // closed when what is open now freezes
	wires  sync.WaitGroup
}

func networkTo(t *testing.T, target string) *network {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &network{lis: lis, target: target, frozen: make(chan struct{})}
	ended := make(chan struct{})
	n.wires.Go(func() { n.accept(ended) })
	t.Cleanup(func() {
		close(ended)
		_ = lis.Close() // it fails only where it is closed already
		n.wires.Wait()
	})
	return n
}

// freeze stops all that is open. What is opened from now on passes.
func (n *network) freeze() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.frozen)
	n.frozen = make(chan struct{})
}

func (n *network) accept(ended <-chan struct{}) {
	for {
		from, err := n.lis.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", n.target)
		if err != nil {
			_ = from.Close() // the enforcer sees that
			continue
		}
		n.mu.Lock()
		frozen := n.frozen
		n.mu.Unlock()
		n.wires.Go(func() { pass(frozen, from, to, ended) })
		n.wires.Go(func() { pass(frozen, to, from, ended) })
	}
}

// pass passes bytes until it is frozen; then it swallows them, until what it reads
// is closed, or all is ended.
func pass(frozen <-chan struct{}, from, to net.Conn, ended <-chan struct{}) {
	stopped := make(chan struct{})
	var closer sync.WaitGroup
	closer.Go(func() {
		select {
		case <-ended:
		case <-stopped:
		}
		_ = from.Close() // both are closed twice: by this, and by the other way
	})
	_, _ = io.Copy(wire{to, frozen}, from) // whatever ends it
	select {
	case <-frozen:
	default:
		_ = to.Close() // the end is passed on
	}
	close(stopped)
	closer.Wait()
}

// wire swallows what is written when it is frozen.
type wire struct {
	io.Writer
	frozen <-chan struct{}
}

func (w wire) Write(b []byte) (int, error) {
	select {
	case <-w.frozen:
		return len(b), nil
	default:
		return w.Writer.Write(b)
	}
}

// A network that falls silent without a word is noticed by pings, although there
// is no other adapter.
func TestFrozenNetwork(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a ping and its answer's time, 15 s")
	}
	t.Parallel()
	h := newHub()
	h.completeAt(epoch)
	a := serve(t, h)
	n := networkTo(t, a.address)
	e := start(t, configOf(clockAt(epoch), &adapter{address: n.lis.Addr().String()}))
	reaches(t, e, h.revoke("one"))
	n.freeze()
	version := h.revoke("two")
	reaches(t, e, version)
	wantVerdict(t, e, jwtOf("two"), enforcer.Revoked)
	a.look(func(a *adapter) {
		if a.resets != 1 {
			t.Errorf("%d whole sets, want one", a.resets)
		}
	})
}
