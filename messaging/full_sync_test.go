package messaging_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// plane plays the control plane: it answers as it is told.
type plane struct {
	*httptest.Server
	asked  atomic.Int64
	mu     sync.Mutex
	answer http.HandlerFunc
}

func startPlane(t *testing.T, answer http.HandlerFunc) *plane {
	t.Helper()
	p := &plane{answer: answer}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		user, password, _ := r.BasicAuth()
		if r.URL.Path != "/internal/data/v1/revokedjwt" || r.Method != http.MethodGet {
			http.NotFound(w, r)
			return
		}
		if user != "admin" || password != "hunter2" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		p.mu.Lock()
		answer := p.answer
		p.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *plane) set(answer http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }
}

// half says how long it is, and ends early.
func half(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		_, _ = w.Write([]byte(text[:len(text)/2]))
	}
}

func zipped(text string, keep int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.WriteHeader(http.StatusNotAcceptable)
			return
		}
		var buf bytes.Buffer
		z := gzip.NewWriter(&buf)
		_, _ = z.Write([]byte(text))
		_ = z.Close()
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(buf.Bytes()[:buf.Len()*keep/100])
	}
}

func older(jtis ...string) string {
	var entries []string
	for _, jti := range jtis {
		entries = append(entries, fmt.Sprintf(`{"jwt_signature":%q,"expiry_time":%d}`, jti, inAnHour()))
	}
	return "[" + strings.Join(entries, ",") + "]"
}

// reads starts a replica that reads a control plane.
func reads(t *testing.T, p *plane, change func(*messaging.FullSyncConfig)) (*replica, *messaging.FullSync, *messaging.Report) {
	t.Helper()
	r := start(t, embedded(t))
	cfg := messaging.FullSyncConfig{URL: p.URL, Username: "admin", Password: "hunter2", Interval: time.Hour, Workers: 2}
	if change != nil {
		change(&cfg)
	}
	report := messaging.NewSources(time.Now).Add(messaging.SourceFullSync)
	s, err := messaging.NewFullSync(cfg, r.intake, report, messaging.NewSyncMetrics(r.reg))
	fatal(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the full sync ended with: %v", err)
		}
		if text := r.book.text(); strings.Contains(text, "hunter2") {
			t.Error("the password is in the log")
		}
	})
	return r, s, report
}

const syncs = "full_syncs_total"

func (r *replica) awaitSync(t *testing.T, outcome string, n float64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%v reads are %s", n, outcome), func() bool { return r.metric(t, syncs, "outcome", outcome) >= n })
}

func TestFullSyncShapes(t *testing.T) {
	seconds := fmt.Sprint(inAnHour() / 1000)
	watermark := time.Now().Add(-time.Minute).UnixMilli()
	newer := fmt.Sprintf(`{"other":[{"x":[1,2]}],"revokedJWTList":[{"jwt_signature":"a","expiry_time":%d},{"jwt_signature":"b","expiry_time":"%s"}],`+
		`"revokedJWTConsumerKeyList":[{"consumer_key":"client-1","revocation_time":%d,"organization":"org-1"}],`+
		`"revokedJWTSubjectEntityList":[{"entity_id":"user-1","entity_type":"USER_ID","revocation_time":"%d","organization":"org-2"}]}`,
		inAnHour(), seconds, watermark, watermark+1)
	cases := map[string]struct {
		answer http.HandlerFunc
		rules  bool
	}{
		"older":             {answer: says(older("a", "b"))},
		"older, seconds":    {answer: says(`[{"jwt_signature":"a","expiry_time":` + seconds + `}, {"jwt_signature":"b","expiry_time":0} ]` + "\n")},
		"older, null":       {answer: says(`[{"jwt_signature":"a","expiry_time":null}, {"jwt_signature":"b"} ]`)},
		"newer":             {answer: says(newer), rules: true},
		"newer, compressed": {answer: zipped(newer, 100), rules: true},
		"newer, null":       {answer: says(`{"revokedJWTConsumerKeyList":null,"revokedJWTList":` + older("a", "b") + `}`)},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			r, s, report := reads(t, startPlane(t, tc.answer), nil)
			eventually(t, "the list is read", func() bool { return s.NotReady() == "" })
			held := r.held()
			if held["a"] != revocation.Revoked || held["b"] != revocation.Revoked {
				t.Errorf("held %v", held)
			}
			if st := report.Status(); !st.Connected || st.Errors != 0 || st.Server == "" {
				t.Errorf("reported %+v", st)
			}
			eventually(t, "one summary line is logged", func() bool {
				return len(r.book.find(logrus.InfoLevel, "The full sync is done")) == 1
			})
			if rec, _ := r.record(t, revocation.DomainToken, "a"); rec.GetTimeMicros() != 0 || rec.GetSource() != "full-sync" {
				t.Errorf("recorded %v", rec)
			}
			if !tc.rules {
				return
			}
			client, _ := r.record(t, revocation.DomainRule, "azp=client-1")
			user, _ := r.record(t, revocation.DomainRule, "sub=user-1")
			if client.GetIssuedBeforeMillis() != watermark || client.GetTenant() != "org-1" || client.GetTimeMicros() != 0 {
				t.Errorf("client: %v", client)
			}
			if user.GetIssuedBeforeMillis() != watermark+1 || user.GetTenant() != "org-2" {
				t.Errorf("user: %v", user)
			}
		})
	}
}

// Whatever goes wrong, what is revoked stays so, a person learns of what is
// broken, and the next good answer is read.
func TestFullSyncUnrevokesNothing(t *testing.T) {
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	whole := older("kept", "x", "y", "z")
	cases := map[string]struct {
		answer  http.HandlerFunc
		outcome string
		level   logrus.Level
	}{
		"401":                   {status(401), "refused", logrus.ErrorLevel},
		"404":                   {status(404), "refused", logrus.ErrorLevel},
		"500":                   {status(500), "refused", logrus.ErrorLevel},
		"a redirect":            {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) }, "refused", logrus.ErrorLevel},
		"half a body":           {half(whole), "broken", logrus.ErrorLevel},
		"half of compressed":    {zipped(whole, 60), "broken", logrus.ErrorLevel},
		"nothing":               {says(""), "broken", logrus.ErrorLevel},
		"text":                  {says("Service Unavailable s3cr3t"), "broken", logrus.ErrorLevel},
		"an error object":       {says(`{"error":"s3cr3t"}`), "broken", logrus.ErrorLevel},
		"an empty object":       {says(`{}`), "broken", logrus.ErrorLevel},
		"a list that is none":   {says(`{"revokedJWTList":{"a":1}}`), "broken", logrus.ErrorLevel},
		"null":                  {says(`null`), "broken", logrus.ErrorLevel},
		"more after it":         {says(`[] []`), "broken", logrus.ErrorLevel},
		"a value without end":   {says(`{"revokedJWTList":[{"jwt_signature":"s3cr3t` + strings.Repeat("x", 8<<20) + `"}]}`), "broken", logrus.ErrorLevel},
		"a field without end":   {says(`{"about":"s3cr3t` + strings.Repeat("x", 8<<20) + `","revokedJWTList":[]}`), "broken", logrus.ErrorLevel},
		"much beside the list":  {says(`{"about":[` + strings.Repeat(`"x",`, 1<<20) + `"x"],"revokedJWTList":[]}`), "empty", logrus.InfoLevel},
		"an empty list":         {says(`[]`), "empty", logrus.InfoLevel},
		"empty lists":           {says(`{"revokedJWTList":[],"revokedJWTConsumerKeyList":[],"revokedJWTSubjectEntityList":null}`), "empty", logrus.InfoLevel},
		"a shorter list":        {says(older("kept")), "shorter", logrus.InfoLevel},
		"entries that are none": {says(`[1,"x",null,{"jwt_signature":{}},{"jwt_signature":""},{"jwt_signature":"eyJ.s3cr3t.x"},{"jwt_signature":"n","expiry_time":-1}]`), "done", logrus.ErrorLevel},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startPlane(t, says(older("kept", "also")))
			r, s, _ := reads(t, p, nil)
			r.awaitSync(t, "done", 1)
			p.set(tc.answer)
			s.Request("test")
			want := 1.0
			if tc.outcome == "done" {
				want = 2
			}
			r.awaitSync(t, tc.outcome, want)
			p.set(says(older("kept", "also", "new", "newer", "a", "b", "c")))
			s.Request("test")
			eventually(t, "the next good answer is read", func() bool { return r.held()["new"] == revocation.Revoked })
			if held := r.held(); held["kept"] != revocation.Revoked || held["also"] != revocation.Revoked {
				t.Errorf("held %v", held)
			}
			if len(r.book.find(tc.level, "The full sync ")) == 0 || strings.Contains(r.book.text(), secret) {
				t.Errorf("logged:\n%s", r.book.text())
			}
		})
	}
}

// What the answer said before it broke counts, and the log tells it from all.
func TestFullSyncBrokenAddsWhatItSaid(t *testing.T) {
	p := startPlane(t, half(older("first", "second", "third", "fourth")))
	r, s, report := reads(t, p, nil)
	r.awaitSync(t, "broken", 1)
	eventually(t, "the first is revoked", func() bool { return r.held()["first"] == revocation.Revoked })
	if s.NotReady() == "" || report.Status().Connected || report.Status().LastError == "" {
		t.Errorf("ready, or %+v", report.Status())
	}
}

// An entry has no time: it creates or extends, and overturns nothing.
func TestFullSyncOverturnsNoApproval(t *testing.T) {
	p := startPlane(t, says(`[]`))
	r, s, _ := reads(t, p, nil)
	r.publish(t, messaging.SubjectRevocation, jwtEvent("e-1", "approved"))
	r.settle(t)
	r.publish(t, messaging.SubjectApproval, jwtEvent("e-2", "approved"))
	r.settle(t)
	p.set(says(fmt.Sprintf(`[{"jwt_signature":"approved","expiry_time":%d},{"jwt_signature":"other","expiry_time":0}]`, inAnHour()+7_200_000)))
	s.Request("test")
	eventually(t, "the list is read", func() bool { return r.held()["other"] == revocation.Revoked })
	r.awaitSync(t, "done", 1)
	if held := r.held(); held["approved"] != revocation.Approved {
		t.Errorf("held %v", held)
	}
	if rec, _ := r.record(t, revocation.DomainToken, "approved"); rec.GetExpiryMillis() < inAnHour()+3_600_000 {
		t.Errorf("the tombstone is not extended: %v", rec)
	}
}

// What is known is not written again, and takes no version.
func TestFullSyncDropsWhatIsKnown(t *testing.T) {
	expiry := inAnHour()
	list := fmt.Sprintf(`[{"jwt_signature":"a","expiry_time":%d},{"jwt_signature":"b","expiry_time":%d},{"jwt_signature":"c","expiry_time":0},`+
		`{"jwt_signature":"old","expiry_time":1628175421481},{"jwt_signature":"for ever","expiry_time":9223372036854775807}]`, expiry, expiry/1000)
	p := startPlane(t, says(list))
	r, s, _ := reads(t, p, nil)
	r.awaitSync(t, "done", 1)
	r.settle(t)
	before := r.state(t, messaging.LogStream).LastSeq
	s.Request("test")
	r.awaitSync(t, "done", 2)
	if after := r.state(t, messaging.LogStream).LastSeq; after != before {
		t.Errorf("%d records were written again", after-before)
	}
	if held := r.held(); len(held) != 4 {
		t.Errorf("held %v", held)
	}
}

// Requests while one read runs become one more.
func TestFullSyncRequestsBecomeOne(t *testing.T) {
	running, goOn := make(chan struct{}), make(chan struct{})
	p := startPlane(t, func(w http.ResponseWriter, _ *http.Request) {
		running <- struct{}{}
		<-goOn
		_, _ = w.Write([]byte(`[]`))
	})
	r, s, _ := reads(t, p, nil)
	<-running
	for range 10 {
		s.Request("test")
	}
	close(goOn)
	<-running
	r.awaitSync(t, "empty", 2)
	p.set(says(`[]`))
	s.Request("test")
	r.awaitSync(t, "empty", 3)
	if n := p.asked.Load(); n != 3 {
		t.Errorf("asked %d times", n)
	}
}

func TestFullSyncByTime(t *testing.T) {
	r, _, _ := reads(t, startPlane(t, says(`[]`)), func(cfg *messaging.FullSyncConfig) { cfg.Interval = time.Second })
	r.awaitSync(t, "empty", 2)
	if !strings.Contains(r.book.text(), "reason:interval") {
		t.Errorf("logged:\n%s", r.book.text())
	}
}

func FuzzFullSyncList(f *testing.F) {
	f.Add([]byte(`[{"jwt_signature":"s3cr3t-a","expiry_time":1628175421481}]`))
	f.Add([]byte(`{"revokedJWTList":[{"jwt_signature":"eyJ.s3cr3t.x"}],"x":[[]],"revokedJWTConsumerKeyList":[{"consumer_key":"s3cr3t","revocation_time":"1716000000000"}]}`))
	f.Add([]byte(`{"revokedJWTSubjectEntityList":[{"entity_id":"s3cr3t","entity_type":"USER_ID","revocation_time":1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		err := messaging.ReadRevokedList(bytes.NewReader(data), rules(),
			func(e messaging.Event) error {
				if e.Key == "" || e.Digest != revocation.DigestOf(e.Domain, e.Key) {
					t.Fatalf("an event without its key: %+v", e)
				}
				return nil
			},
			func(refused error) {
				if !errors.Is(refused, messaging.ErrEvent) || strings.Contains(refused.Error(), secret) {
					t.Fatalf("the error is no ErrEvent, or quotes the entry: %v", refused)
				}
			})
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Fatalf("the error quotes the answer: %v", err)
		}
	})
}

// What was published while the hub was away is asked for when it is back.
func TestFullSyncIsAskedForWhenTheHubIsBack(t *testing.T) {
	store := t.TempDir()
	s := standalone(t, store, -1)
	port, back := portOf(t, s), make(chan struct{}, 10)
	cfg := external(s)
	cfg.Reconnected = func() { back <- struct{}{} }
	start(t, cfg)
	if len(back) != 0 {
		t.Error("the first connect is no reconnect")
	}
	shutdown(s)
	standalone(t, store, port)
	select {
	case <-back:
	case <-time.After(patience):
		t.Fatal("nobody was told")
	}
}
