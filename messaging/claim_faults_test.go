package messaging_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// relay stands between a replica and its hub. What the hub answers can be held
// back, or lost with the connection.
type relay struct {
	net.Listener
	to string

	mu   sync.Mutex
	held chan struct{} // nil: answers pass; they wait until it is closed
	both []net.Conn
}

func newRelay(t *testing.T, s *server.Server) *relay {
	t.Helper()
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	fatal(t, err)
	r := &relay{Listener: lis, to: strings.TrimPrefix(s.ClientURL(), "nats://")}
	var pipes sync.WaitGroup
	pipes.Go(func() {
		for {
			in, err := lis.Accept()
			if err != nil {
				return
			}
			out, err := new(net.Dialer).DialContext(context.WithoutCancel(t.Context()), "tcp", r.to)
			if err != nil {
				_ = in.Close()
				continue
			}
			r.mu.Lock()
			r.both = append(r.both, in, out)
			r.mu.Unlock()
			pipes.Go(func() { r.copy(out, in, func() {}) })
			pipes.Go(func() { r.copy(in, out, r.pass) })
		}
	})
	t.Cleanup(func() {
		_ = lis.Close()
		r.release()
		r.cut()
		pipes.Wait()
	})
	return r
}

func (r *relay) copy(to io.WriteCloser, from io.ReadCloser, pass func()) {
	defer func() { _, _ = to.Close(), from.Close() }() // cut, or over
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		pass()
		if _, failed := to.Write(buffer[:n]); err != nil || failed != nil {
			return
		}
	}
}

// pass waits while answers are held.
func (r *relay) pass() {
	r.mu.Lock()
	held := r.held
	r.mu.Unlock()
	if held != nil {
		<-held
	}
}

func (r *relay) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = make(chan struct{})
}

func (r *relay) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held != nil {
		close(r.held)
		r.held = nil
	}
}

// cut closes every connection, with what was on its way.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.both {
		_ = c.Close() // closed already, perhaps
	}
	r.both = nil
}

// through configures a replica whose connection goes over the relay.
func (r *relay) through() messaging.Config {
	cfg := config()
	cfg.External = messaging.ExternalConfig{URLs: []string{"nats://" + r.Addr().String()}, Replicas: 1}
	return cfg
}

// The record is stored, and the answer is late: it is found there.
func TestAClaimWhoseAnswerIsLate(t *testing.T) {
	t.Parallel()
	for range 5 {
		if foundLate(t) {
			return
		}
	}
	t.Error("it is never answered in time")
}

// foundLate returns false where the claim ended before its answer could be found:
// the machine was busy.
func foundLate(t *testing.T) bool {
	t.Helper()
	s := standalone(t, t.TempDir(), -1)
	way := newRelay(t, s)
	r, other := decide(t, way.through()), decide(t, external(s))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := claimOf("jti")
	way.hold()
	began := time.Now()
	var outcome revocation.ClaimOutcome
	var failed error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		outcome, failed = r.claims.Claim(t.Context(), c)
	}()
	stored := func() bool { return other.state(t, messaging.LogStream).Msgs == 1 }
	eventually(t, "it is stored", func() bool { return stored() || time.Since(began) > 10*time.Second })
	if !stored() {
		<-ended
		return false
	}
	if got, err := claim(ctx, claimOf("jti"), other); got != revocation.ClaimRevoked || err != nil {
		t.Errorf("another claim is %s, %v", got, err)
	}
	if got, err := claim(ctx, c, other); got != revocation.ClaimGranted || err != nil { // the same claim, asked of another replica
		t.Errorf("there it is %s, %v", got, err)
	}
	select {
	case <-ended:
		if failed == nil {
			t.Errorf("it is %s, though nobody could know", outcome)
		}
	case <-time.After(2100 * time.Millisecond): // longer than the replica waits for an answer
	}
	way.release()
	<-ended
	if failed != nil && time.Since(began) >= 5*time.Second {
		return false
	}
	if outcome != revocation.ClaimGranted || failed != nil {
		t.Errorf("it is %s, %v", outcome, failed)
	}
	return true
}

// The record is stored, and the answer is lost: an error, and never "granted" by
// guess; who asks again is granted it.
func TestAClaimWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	s := standalone(t, t.TempDir(), -1)
	way := newRelay(t, s)
	r, other := decide(t, way.through()), decide(t, external(s))
	c := claimOf("jti")
	way.hold()
	failed := make(chan error, 1)
	go func() {
		_, err := r.claims.Claim(t.Context(), c)
		failed <- err
	}()
	eventually(t, "it is stored", func() bool { return other.state(t, messaging.LogStream).Msgs == 1 })
	if err := <-failed; err == nil {
		t.Error("it is answered, though nobody could know")
	}
	way.cut()
	way.release()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if outcome, err := claim(ctx, c, r); outcome != revocation.ClaimGranted || err != nil {
		t.Errorf("it is %s, %v", outcome, err)
	}
	other.expect(t, claimOf("jti"), revocation.ClaimRevoked)
}

// The hub goes away and comes back, and connections break, while thousands claim
// and ask again: of each token one is granted.
func TestClaimedOnceThroughOutages(t *testing.T) {
	t.Parallel()
	store := t.TempDir()
	s := standalone(t, store, -1)
	way := newRelay(t, s)
	a, b, c := decide(t, external(s)), decide(t, external(s)), decide(t, way.through())
	all := tokens("jti", 800)
	won := make(chan map[string][]revocation.TokenClaim, 1)
	go func() { won <- contend(t, all, 8, a, b, c) }()
	eventually(t, "some are used", func() bool { return a.log.Keys() > 30 })
	way.cut()
	shutdown(s)
	<-time.After(100 * time.Millisecond)
	standalone(t, store, portOf(t, s))
	eventually(t, "more are used", func() bool { return a.log.Keys() > len(all)/2 })
	way.cut()
	granted := <-won
	for _, jti := range all {
		if len(granted[jti]) != 1 {
			t.Errorf("%s is granted %d times", jti, len(granted[jti]))
			continue
		}
		if outcome, err := claim(t.Context(), granted[jti][0], a, b); outcome != revocation.ClaimGranted || err != nil {
			t.Errorf("%s is granted, and then %s, %v", jti, outcome, err)
		}
	}
	failed := 0.0
	for _, r := range []claiming{a, b, c} {
		failed += r.metric(t, "claims_total", "outcome", "failed")
	}
	if failed == 0 {
		t.Error("no claim met an outage")
	}
}

// A backup is restored, or another log is in the place of the hub's, in which the
// used tokens are not: nobody is granted one, from the first claim on.
func TestClaimsInAnotherLog(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]func(version uint64) uint64{
		"a few behind":  func(version uint64) uint64 { return version - 3 },
		"far behind":    func(version uint64) uint64 { return version - 1_000_000 },
		"created later": func(uint64) uint64 { return uint64(time.Now().Add(time.Minute).UnixMicro()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := decide(t, external(standalone(t, t.TempDir(), -1)))
			all := tokens("jti", 10)
			contend(t, all, 2, r)
			r.settle(t)
			r.recreate(t, first(r.version()))
			for _, jti := range append(tokens("new", 10), all...) {
				r.refuses(t, claimOf(jti), messaging.ErrClaimsNotReady)
			}
		})
	}
}

// A record that cannot be understood is no approval.
func TestClaimOfAnUndecodableRecord(t *testing.T) {
	t.Parallel()
	r := decide(t, external(standalone(t, t.TempDir(), -1)))
	_, err := r.js.Publish(t.Context(), subject(revocation.DomainToken, "jti"), []byte("not a record"))
	fatal(t, err)
	for range 3 {
		r.refuses(t, claimOf("jti"), messaging.ErrRecord)
	}
}

// The hub lost a record that this replica knows.
func TestClaimOfALostRecord(t *testing.T) {
	t.Parallel()
	r := decide(t, external(standalone(t, t.TempDir(), -1)))
	r.expect(t, claimOf("jti"), revocation.ClaimGranted)
	r.settle(t)
	r.recreate(t, r.version()+1)
	r.refuses(t, claimOf("jti"), messaging.ErrClaimsNotReady)
}

func TestClaimsOfAFullLog(t *testing.T) {
	t.Parallel()
	now := &clock{}
	cfg := embedded(t)
	cfg.Now, cfg.Limits.MaxLive, cfg.PurgeInterval = now.Now, 3, time.Second
	r := decide(t, cfg)
	contend(t, tokens("jti", 3), 1, r)
	r.settle(t)
	before := r.state(t, messaging.LogStream).LastSeq
	r.refuses(t, claimOf("one-more"), messaging.ErrFull)
	if full := r.metric(t, "log_full"); full != 1 {
		t.Errorf("log_full is %v", full)
	}
	r.expect(t, claimOf("jti-1"), revocation.ClaimRevoked)
	if last := r.state(t, messaging.LogStream).LastSeq; last != before {
		t.Errorf("it was written at %d", last)
	}
	now.advance(365 * 24 * time.Hour)
	eventually(t, "there is room, though nobody asks for it", func() bool { return r.metric(t, "log_full") == 0 })
}

// What is not ready grants nothing, though its hub would.
func TestClaimsBeforeTheLogIsComplete(t *testing.T) {
	t.Parallel()
	r := prepare(t, embedded(t))
	c := claiming{r, messaging.NewClaims(r.follower)}
	r.run(t, c.claims.Run)
	c.refuses(t, claimOf("jti"), messaging.ErrClaimsNotReady)
	if n := r.state(t, messaging.LogStream).Msgs; n != 0 {
		t.Error("it is written, and the token used up by nobody")
	}
}
