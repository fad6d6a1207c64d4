// Package enforcer is the gateway's side: it knows what is revoked, and says of
// each call's token whether it may pass.
//
// An Enforcer follows one of several adapters and keeps the set of what is
// revoked, by digest. Check takes no lock and makes no call. The set is replaced
// and extended as a whole: at no moment does a revoked token pass because of an
// update. It says how fresh it is, and what is to be done when it is not is the
// configuration's to say: part of a set, or an empty one, is never taken for the
// truth.
package enforcer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"revocation-adapter/revocation"
)

// Policy is what becomes of a token that is not known to be revoked while the
// set is stale, or was never complete.
type Policy uint8

// The policies. A token that is known to be revoked is refused by both.
const (
	Deny Policy = iota
	Allow
)

// Config says whom an Enforcer follows, and what it does when it is stale. Only
// Adapters must be given.
type Config struct {
	Adapters []string    // host:port of their xDS ports; one is followed at a time
	TLS      *tls.Config // nil: plaintext
	Instance string      // name of this gateway, node metadata instanceIdentifier
	Tenants  []string    // node metadata tenants; empty: all

	// Grace is added to every expiry, of tokens and of revocations, against clocks
	// that differ. It must not be more than the adapters': they would have forgotten
	// the revocation of a token that has not expired here.
	Grace        time.Duration
	MaxStaleness time.Duration // the set is stale when it was complete longer ago; 0: never, once it was
	OnStale      Policy

	SnapshotFile  string        // keeps the set over a restart; "": it is not kept
	SnapshotEvery time.Duration // between two writings of it; 0: 30 s

	Log     logrus.FieldLogger    // nil: nothing is logged
	Metrics prometheus.Registerer // nil: they are not told
	Now     func() time.Time      // time.Now, unless a test says otherwise
}

// Enforcer knows what is revoked. Any number of goroutines may use it.
type Enforcer struct {
	cfg    Config
	log    logrus.FieldLogger
	now    func() time.Time
	grace  int64 // milliseconds
	pace   pace
	links  links
	view   atomic.Pointer[view] // any reader, any time
	recent *recent              // any reader, any time
	*metrics

	running  atomic.Bool
	mu       sync.Mutex // held by whoever changes the view
	progress progress

	saved saved // New's, then tend's, then Run's
}

// New returns an Enforcer that knows nothing before Run, or what its snapshot
// file says. It starts nothing.
func New(cfg Config) (*Enforcer, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg = cfg.completed()
	e := &Enforcer{cfg: cfg, log: cfg.Log, now: cfg.Now, grace: cfg.Grace.Milliseconds(), pace: steady(), recent: newRecent()}
	e.links.init(cfg, e.pace)
	e.view.Store(&view{set: &set{}})
	e.metrics = newMetrics(e)
	if err := e.register(cfg.Metrics); err != nil {
		return nil, fmt.Errorf("register the metrics of the enforcer: %w", err)
	}
	e.load()
	return e, nil
}

// check reports all that is wrong with cfg.
func (cfg Config) check() error {
	var faults []error
	if len(cfg.Adapters) == 0 {
		faults = append(faults, errors.New("no adapter is named"))
	}
	for _, address := range cfg.Adapters {
		if _, _, err := net.SplitHostPort(address); err != nil {
			faults = append(faults, fmt.Errorf("adapter %q: %w", address, err))
		}
	}
	if cfg.Grace < 0 || cfg.MaxStaleness < 0 || cfg.SnapshotEvery < 0 {
		faults = append(faults, errors.New("a duration is negative"))
	}
	if cfg.OnStale > Allow {
		faults = append(faults, fmt.Errorf("policy %d does not exist", cfg.OnStale))
	}
	return errors.Join(faults...)
}

// completed fills in what may be left out.
func (cfg Config) completed() Config {
	cfg.Adapters, cfg.Tenants = slices.Clone(cfg.Adapters), slices.Clone(cfg.Tenants)
	if cfg.SnapshotEvery == 0 {
		cfg.SnapshotEvery = 30 * time.Second
	}
	if cfg.Log == nil {
		silent := logrus.New()
		silent.Out = io.Discard
		cfg.Log = silent
	}
	if cfg.Metrics == nil {
		cfg.Metrics = prometheus.NewRegistry()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return cfg
}

// errRunning means that Run was called while it ran.
var errRunning = errors.New("the enforcer runs already")

// Run follows the adapters until ctx ends, writes the snapshot file and returns why
// ctx ended. Nothing that it started is left then.
func (e *Enforcer) Run(ctx context.Context) error {
	if !e.running.CompareAndSwap(false, true) {
		return errRunning
	}
	defer e.running.Store(false)
	e.links.open()
	defer e.links.close()
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { return e.follow(inner, rand.IntN(len(e.cfg.Adapters))) })
	group.Go(func() error { return e.tend(inner) })
	err := group.Wait()
	e.save()
	return err
}

// tend purges and saves now and then.
func (e *Enforcer) tend(ctx context.Context) error {
	purge, save := time.NewTicker(e.pace.purge), time.NewTicker(e.cfg.SnapshotEvery)
	defer purge.Stop()
	defer save.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-purge.C:
			e.purge()
		case <-save.C:
			e.save()
		}
	}
}

// Verdict is what to do with a call.
type Verdict uint8

// The verdicts. Only Pass lets the call through.
const (
	Pass    Verdict = iota
	Revoked         // the token, or what a rule names, is revoked
	Expired         // exp and grace have passed
	Stale           // nothing is known against the token, but the set is too old, and OnStale is Deny
)

// Decision is what Check says of a token.
type Decision struct {
	Verdict Verdict
	Stale   bool   // the set was stale, whatever the verdict
	Rule    string // of Revoked: the claim of the rule that matched; "": the token itself
	Version uint64 // of the set
}

// Check says whether a token may pass now. It takes no lock, and under 300 ns
// with a million revoked tokens.
func (e *Enforcer) Check(t Token) Decision {
	v, now := e.look()
	d := Decision{Version: v.version, Stale: e.stale(v, now)}
	d.Verdict, d.Rule = e.judge(v.set, &t, now.UnixMilli())
	if d.Verdict == Pass && d.Stale && e.cfg.OnStale == Deny {
		d.Verdict = Stale
	}
	return d
}

// judge says what is known against a token. What has expired is refused first:
// its revocation may be forgotten already.
func (e *Enforcer) judge(s *set, t *Token, now int64) (Verdict, string) {
	if t.expired(now, e.grace) {
		return Expired, ""
	}
	if e.named(s, t, now) {
		return Revoked, ""
	}
	if claim := s.ruleOn(t, now, e.grace); claim != "" {
		return Revoked, claim
	}
	return Pass, ""
}

// named says whether a token is revoked itself.
func (e *Enforcer) named(s *set, t *Token, now int64) bool {
	revoked := func(d revocation.Digest) bool { return s.revokes(d, now, e.grace) }
	switch {
	case s.tokens.count == 0:
		return false
	case t.read.knows(t):
		return slices.ContainsFunc(t.read.digests, revoked)
	case t.Opaque != "":
		return revoked(revocation.DigestOf(revocation.DomainOpaque, t.Opaque)) || revoked(revocation.DigestOf(revocation.DomainToken, t.Opaque))
	case t.ID != "" && revoked(revocation.DigestOf(revocation.DomainToken, t.ID)):
		return true
	case t.Signature == "":
		return false
	}
	bare, padded := revocation.SignatureDigests(t.Signature)
	return revoked(bare) || revoked(padded) || revoked(revocation.DigestOf(revocation.DomainOpaque, t.Signature))
}

// Freshness is how much of the adapters' log the set is known to hold.
type Freshness struct {
	Version  uint64    // of the set
	Complete time.Time // everything that the hub had stored by then is in the set; zero: it is not known
	Stale    bool
}

// Freshness says how fresh the set is. Complete goes back only where it was not to
// be relied on: it is not known when a set of another hub comes, and not later than
// the clock when that was set back.
func (e *Enforcer) Freshness() Freshness {
	v, now := e.look()
	f := Freshness{Version: v.version, Stale: e.stale(v, now)}
	if v.complete > 0 {
		f.Complete = time.UnixMicro(v.complete)
	}
	return f
}

// NotReady says why calls should not be sent here yet, "" when they may: until
// the first complete set, or a snapshot within MaxStaleness.
func (e *Enforcer) NotReady() string {
	v, now := e.look()
	switch {
	case v.synced && (v.complete > 0 || e.cfg.MaxStaleness == 0):
		return ""
	case v.synced:
		return "the adapter has not said yet as of when the set is complete"
	case !v.whole:
		return "no complete set of revocations has come yet"
	case e.stale(v, now):
		return "the set of the snapshot file is too old, and no newer one has come yet"
	}
	return ""
}
