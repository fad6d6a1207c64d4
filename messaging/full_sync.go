package messaging

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"revocation-adapter/revocation"
)

// FullSyncConfig says where the control plane is.
type FullSyncConfig struct {
	URL      string // without the path of the list
	Username string // empty: nobody
	Password string
	TLS      *tls.Config   // nil: the system's authorities
	Interval time.Duration // between two reads without another reason
	Workers  int           // batches written at the same time
}

// FullSync reads everything that the control plane has revoked. What it reads is
// only ever added: an answer that is empty, short or broken un-revokes nothing.
type FullSync struct {
	cfg     FullSyncConfig
	list    string
	client  *http.Client
	intake  *Intake
	report  *Report
	log     logrus.FieldLogger
	metrics *syncMetrics

	wanted   chan string // the reason of a read that waits
	complete atomic.Bool // one was read to its end
	last     int         // entries of the read before; of Run
}

// How the control plane is read.
const (
	listPath = "/internal/data/v1/revokedjwt"

	syncDialTimeout   = 10 * time.Second
	syncHeaderTimeout = time.Minute      // to begin with the answer
	syncStall         = 30 * time.Second // without a byte of it
	syncBuffer        = 64 << 10
	syncValue         = 1 << 20 // bytes of one value of the list, and what is read ahead
	syncFirstPause    = time.Second
	syncMaxPause      = time.Minute
)

// NewFullSync returns a source that hands what it reads to intake.
func NewFullSync(cfg FullSyncConfig, intake *Intake, report *Report, m *SyncMetrics) (*FullSync, error) {
	list, err := url.JoinPath(cfg.URL, listPath)
	if err != nil {
		return nil, fmt.Errorf("%w: the control plane's URL", ErrConfig)
	}
	cfg.Workers = max(cfg.Workers, 1)
	return &FullSync{
		cfg: cfg, list: list, intake: intake, report: report, log: intake.log, metrics: (*syncMetrics)(m),
		wanted: make(chan string, 1), last: -1,
		client: &http.Client{
			Transport: &http.Transport{
				Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: syncDialTimeout}).DialContext,
				TLSClientConfig: cfg.TLS, TLSHandshakeTimeout: syncDialTimeout, ResponseHeaderTimeout: syncHeaderTimeout,
				DisableKeepAlives: true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Request asks for a read. Those that are asked for while one runs become one.
func (s *FullSync) Request(reason string) {
	select {
	case s.wanted <- reason:
	default: // one waits already
	}
}

// NotReady says why the control plane's revocations may not be known; "": they
// were read to their end.
func (s *FullSync) NotReady() string {
	if s.complete.Load() {
		return ""
	}
	return "the control plane was not read to its end yet"
}

// Run reads at once, when asked to, and at every interval, until ctx ends.
func (s *FullSync) Run(ctx context.Context) error {
	interval := time.NewTicker(s.cfg.Interval)
	defer interval.Stop()
	for reason := "start"; ; {
		took, err := s.until(ctx, reason)
		if err != nil {
			return err
		}
		// Whoever may publish may ask for it: it never takes more than half the time.
		if err := rest(ctx, max(took, syncFirstPause)); err != nil {
			return err
		}
		select {
		case reason = <-s.wanted:
		case <-interval.C:
			reason = "interval"
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func rest(ctx context.Context, pause time.Duration) error {
	select {
	case <-time.After(pause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// until reads again and again until it succeeds, or ctx ends.
func (s *FullSync) until(ctx context.Context, reason string) (took time.Duration, err error) {
	for failures := 0; ; failures++ {
		began := time.Now()
		r := &reading{reason: reason, outcome: syncUnreachable}
		err := s.once(ctx, r)
		took := time.Since(began)
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		s.tell(r, took, err)
		if err == nil {
			return took, nil
		}
		if err := rest(ctx, min(pauseAfter(failures, syncFirstPause), syncMaxPause)); err != nil {
			return 0, err
		}
	}
}

// reading is one read of the list.
type reading struct {
	reason  string
	outcome string
	entries int // that were read, known ones too

	known, refused atomic.Int64
	stored, old    atomic.Int64
}

// once reads the list and stores what is new.
func (s *FullSync) once(ctx context.Context, r *reading) error {
	asking, giveUp := context.WithCancel(ctx)
	defer giveUp()
	body, err := s.get(asking, r)
	if err != nil {
		return err
	}
	defer body.Close()
	stored := s.report.Begin(time.Now())
	defer func() { stored(int(r.stored.Load() + r.known.Load())) }()
	if err := s.readAll(ctx, &patient{body: body, giveUp: giveUp}, r); err != nil {
		return err
	}
	switch {
	case r.entries == 0:
		r.outcome = syncEmpty
	case r.entries < s.last:
		r.outcome = syncShorter
	default:
		r.outcome = syncDone
	}
	s.last = r.entries
	if err := s.applied(ctx); err != nil {
		r.outcome = syncNotStored
		return err
	}
	return nil
}

// applied waits until this replica knows what was stored.
func (s *FullSync) applied(ctx context.Context) error {
	last, err := s.intake.hub.LastVersion(ctx)
	if err != nil {
		return fmt.Errorf("ask the hub for its last version: %w", err)
	}
	for {
		head := s.intake.writer.log.Snapshot()
		if head.Version() >= last {
			return nil
		}
		select {
		case <-head.Next():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// get asks the control plane. An answer that is compressed is decompressed while
// it is read.
func (s *FullSync) get(ctx context.Context, r *reading) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.list, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if s.cfg.Username != "" {
		req.SetBasicAuth(s.cfg.Username, s.cfg.Password)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close() // it is not read
		r.outcome = syncRefused
		return nil, fmt.Errorf("the control plane answers %s", resp.Status)
	}
	return resp.Body, nil
}

// readAll reads the list to its end, and stores it in chunks at the same time.
func (s *FullSync) readAll(ctx context.Context, body *patient, r *reading) error {
	workers, ctx := errgroup.WithContext(ctx)
	workers.SetLimit(s.cfg.Workers)
	now := s.intake.hub.cfg.Now()
	var chunk []Event
	flush := func() {
		events := chunk
		chunk = make([]Event, 0, MaxBatch)
		workers.Go(func() error { return s.store(ctx, events, now, r) })
	}
	list := &revokedList{
		dec: json.NewDecoder(bufio.NewReaderSize(body, syncBuffer)), rules: s.intake.hub.cfg.Rules, goesOn: body.goesOn,
		refused: func(error) { r.entries++; r.refused.Add(1) },
		take: func(e Event) error {
			r.entries++
			if chunk = append(chunk, e); len(chunk) == MaxBatch {
				flush()
			}
			return ctx.Err()
		},
	}
	err := list.read()
	if len(chunk) > 0 {
		flush() // also of an answer that is broken: it adds
	}
	if failed := workers.Wait(); failed != nil {
		r.outcome = syncNotStored
		return failed
	}
	if errors.Is(err, errList) {
		r.outcome = syncBroken
	}
	return err
}

// store stores what the log does not know of a chunk.
func (s *FullSync) store(ctx context.Context, events []Event, now time.Time, r *reading) error {
	unknown := events[:0]
	for _, e := range events {
		switch {
		case e.Check(now) != nil:
			r.refused.Add(1)
		case s.known(e, now):
			r.known.Add(1)
		default:
			unknown = append(unknown, e)
		}
	}
	tally, err := s.intake.Store(ctx, Decoded{Source: SourceFullSync, State: revocation.Revoked, Events: unknown, At: now})
	r.stored.Add(int64(tally.Stored))
	r.known.Add(int64(tally.Duplicate))
	r.old.Add(int64(tally.Expired))
	return err
}

// known says whether the log says all of an entry: what has no time of its own
// can only create and extend. What has no known expiry is extended when half of
// its time has passed.
func (s *FullSync) known(e Event, now time.Time) bool {
	if e.Domain != revocation.DomainToken {
		return false
	}
	c, found := s.intake.writer.log.Lookup(e.Key)
	if !found {
		return false
	}
	if e.Lifetime == revocation.Unknown {
		return c.Expiry > now.Add(s.intake.hub.cfg.UnknownLife/2).UnixMilli()
	}
	return c.Lifetime >= e.Lifetime && c.Expiry >= e.Expiry
}

// patient reads a body that may be as long as it likes and take its time, but not
// stand still, nor say one thing without end: the decoder would hold all of it.
type patient struct {
	body   io.Reader
	giveUp context.CancelFunc
	read   int // bytes since it went on
}

func (p *patient) Read(b []byte) (int, error) {
	if p.read > syncValue {
		return 0, errLongValue
	}
	late := time.AfterFunc(syncStall, p.giveUp)
	defer late.Stop()
	n, err := p.body.Read(b)
	p.read += n
	return n, err
}

// goesOn says that a value of the list was read to its end.
func (p *patient) goesOn() { p.read = 0 }

var errLongValue = fmt.Errorf("%w: one value of it is longer than %d bytes", errList, syncValue)
