package bulk_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"revocation-adapter/adapter/bulk"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// A JWT with jti j1 and exp 2000000000, and one without a jti.
const (
	jwt     = "eyJhbGciOiJub25lIn0.eyJqdGkiOiJqMSIsImV4cCI6MjAwMDAwMDAwMH0.c2ln"
	without = "eyJhbGciOiJub25lIn0.eyJleHAiOjIwMDAwMDAwMDB9.c2ln"
	opaque  = "s3cr3t-opaque-token"
)

func format(typ string) bulk.Format {
	return bulk.Format{Type: typ, ParseTime: func(text string) (int64, error) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n <= 0 { // as the command line reads times
			return 0, errors.New("a number")
		}
		return n, nil
	}}
}

// hub keeps what is published, and fails from some event on.
type hub struct {
	events []messaging.Announcement
	fails  int // how many are stored before it fails; -1: it never does
	lost   bool
}

var errAway = errors.New("the hub is away")

// publish stores an event. The one that fails is stored too where its answer is
// lost.
func (h *hub) publish(_ context.Context, a messaging.Announcement) error {
	fail := h.fails >= 0 && len(h.events) >= h.fails
	if !fail || h.lost {
		h.events = append(h.events, a)
	}
	if fail {
		return errAway
	}
	return nil
}

// tokens are those of all events, by event id, as the adapter reads them.
func (h *hub) tokens(t *testing.T) map[string][]messaging.Event {
	t.Helper()
	all := map[string][]messaging.Event{}
	for _, a := range h.events {
		text, err := json.Marshal(map[string]any{"event": map[string]any{"payloadData": a}})
		if err != nil {
			t.Fatal(err)
		}
		call, err := messaging.DecodeEvent(text, messaging.StatusRevoked, messaging.Rules{})
		if err != nil {
			t.Fatalf("%s is not understood: %v", a.EventID, err)
		}
		if before, ok := all[a.EventID]; ok && fmt.Sprint(before) != fmt.Sprint(call.Events) {
			t.Errorf("%s came twice, and differs", a.EventID)
		}
		all[a.EventID] = call.Events
	}
	return all
}

func job(h *hub, text string, f bulk.Format) *bulk.Job {
	return &bulk.Job{
		Source: strings.NewReader(text), Format: f, Subject: messaging.SubjectRevocation,
		Publish: h.publish, Progress: func(bulk.Position) {},
	}
}

func TestLines(t *testing.T) {
	dated := format(messaging.TypeJWT)
	dated.Expiry = 1_900_000_000_000
	tests := []struct {
		name, text string
		format     bulk.Format
		key        string
		expiry     int64
		kind       revocation.Kind
	}{
		{"a jti", "a\n", format(messaging.TypeJWT), "a", 0, revocation.KindJWT},
		{"without an end", "a", format(messaging.TypeJWT), "a", 0, revocation.KindJWT},
		{"of Windows, with a mark at its beginning", "\ufeffa\r\n", format(messaging.TypeJWT), "a", 0, revocation.KindJWT},
		{"blank lines", "\n  \r\na\n\n", format(messaging.TypeJWT), "a", 0, revocation.KindJWT},
		{"an API key", "a", format(messaging.TypeAPIKey), "a", 0, revocation.KindAPIKey},
		{"with a time", "a,1800000000000", dated, "a", 1_800_000_000_000, revocation.KindJWT},
		{"with a time after a tab", "a\t 1800000000000 ", format(messaging.TypeJWT), "a", 1_800_000_000_000, revocation.KindJWT},
		{"for ever", "a never", dated, "a", revocation.Never, revocation.KindJWT},
		{"the time of all", "a", dated, "a", 1_900_000_000_000, revocation.KindJWT},
		{"a JWT", jwt, format(messaging.TypeJWT), "j1", 2_000_000_000_000, revocation.KindJWT},
		{"the time of all, of a JWT", jwt, dated, "j1", 1_900_000_000_000, revocation.KindJWT},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := &hub{fails: -1}
			totals, err := job(h, tt.text, tt.format).Run(t.Context())
			if err != nil || totals.Tokens != 1 || len(h.events) != 1 {
				t.Fatalf("%+v, %v, %d events", totals, err, len(h.events))
			}
			for _, events := range h.tokens(t) {
				if e := events[0]; len(events) != 1 || e.Key != tt.key || e.Expiry != tt.expiry || e.Kind != tt.kind {
					t.Errorf("got %+v", events)
				}
			}
		})
	}
}

func TestOpaqueTokensGoByDigest(t *testing.T) {
	h, path := &hub{fails: 1}, filepath.Join(t.TempDir(), "state")
	j := job(h, opaque+"\n"+strings.Repeat("y\n", 1500), format(messaging.TypeDefault))
	j.State = path
	if _, err := j.Run(t.Context()); !errors.Is(err, errAway) {
		t.Fatal(err)
	}
	list, err := base64.StdEncoding.DecodeString(h.events[0].RevokedToken)
	if err != nil || strings.Contains(string(list), opaque) {
		t.Errorf("the event holds the token: %v", err)
	}
	if state, err := os.ReadFile(path); err != nil || strings.Contains(string(state), opaque) {
		t.Errorf("the state holds the token: %s, %v", state, err)
	}
	for _, events := range h.tokens(t) {
		if events[0].Digest != messaging.OpaqueDigest(opaque) {
			t.Errorf("got %+v", events[0])
		}
	}
}

func TestBadLines(t *testing.T) {
	for name, text := range map[string]string{
		"three columns": "s3cr3t 1800000000000 x", "no time": "s3cr3t s3cr3t", "a JWT without jti": without, "half a JWT": "s3cr3t.s3cr3t.s3cr3t",
		"a name of a digest": "sha256:s3cr3t", "a long jti": "s3cr3t" + strings.Repeat("x", 3000),
		"a line without end": strings.Repeat("s3cr3t", 40_000), "not UTF-8": "s3cr3t\xff", "quoted": `"s3cr3t"`,
	} {
		t.Run(name, func(t *testing.T) {
			file := "good-1\n" + text + "\ngood-2\n"
			report, err := bulk.Check(strings.NewReader(file), format(messaging.TypeJWT), time.Now())
			if err != nil || report.Lines != 3 || report.Tokens != 2 || report.Bad != 1 || len(report.Faults) != 1 || !strings.HasPrefix(report.Faults[0], "line 2: ") {
				t.Fatalf("%+v, %v", report, err)
			}
			if strings.Contains(report.Faults[0], "s3cr3t") {
				t.Errorf("it shows the token: %s", report.Faults[0])
			}
			h := &hub{fails: -1}
			totals, err := job(h, file, format(messaging.TypeJWT)).Run(t.Context())
			if err != nil || totals.Tokens != 2 {
				t.Errorf("%+v, %v", totals, err)
			}
		})
	}
}

func TestCheckCounts(t *testing.T) {
	text := "old 1000000000000\nnew 1900000000000\nunknown\n" + strings.Repeat("a b c\n", 25)
	report, err := bulk.Check(strings.NewReader(text), format(messaging.TypeJWT), time.UnixMilli(1_500_000_000_000))
	if err != nil || report.Lines != 28 || report.Tokens != 3 || report.Expired != 1 || report.Bad != 25 || len(report.Faults) != 20 {
		t.Errorf("%+v, %v", report, err)
	}
}

// many are lines of which some are blank, bad or long.
func many(n int) string {
	var b strings.Builder
	for i := range n {
		switch {
		case i%97 == 0:
			b.WriteString("\n")
		case i%101 == 0:
			b.WriteString("a bad line\n")
		case i%103 == 0:
			fmt.Fprintf(&b, "long-%d-%s\n", i, strings.Repeat("x", 1900))
		default:
			fmt.Fprintf(&b, "jti-%d %d\n", i, 1_900_000_000_000+i)
		}
	}
	return b.String()
}

// A run that ends after any of its events, whether that was stored or not, is gone
// on with, and sends what one run would have sent.
func TestRunGoesOn(t *testing.T) {
	text := many(6_000)
	whole := &hub{fails: -1}
	want, err := job(whole, text, format(messaging.TypeJWT)).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := keys(whole.tokens(t))
	if want.Events < 6 || want.Tokens != len(all) || len(all) < 5_800 {
		t.Fatalf("%+v, %d keys", want, len(all))
	}
	for fails := range want.Events {
		for _, lost := range []bool{false, true} {
			h := &hub{fails: fails, lost: lost}
			j := job(h, text, format(messaging.TypeJWT))
			j.State = filepath.Join(t.TempDir(), "state")
			if _, err := j.Run(t.Context()); !errors.Is(err, errAway) {
				t.Fatal(err)
			}
			h.fails = -1
			j.Source = strings.NewReader(text)
			var from bulk.Position
			j.Progress = func(at bulk.Position) {
				if from.Lines == 0 {
					from = at
				}
			}
			got, err := j.Run(t.Context())
			if err != nil || got != want || fails > 0 && from.Lines < fails*100 {
				t.Fatalf("after %d: %+v, %v, from %+v, want %+v", fails, got, err, from, want)
			}
			if sent := keys(h.tokens(t)); !slices.Equal(sent, all) {
				t.Errorf("after %d (lost: %v) %d keys were sent, want %d", fails, lost, len(sent), len(all))
			}
			if _, err := os.Stat(j.State); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the state is left: %v", err)
			}
		}
	}
}

// keys are those of all events, in order.
func keys(events map[string][]messaging.Event) []string {
	var all []string
	for _, tokens := range events {
		for _, e := range tokens {
			all = append(all, e.Key)
		}
	}
	slices.Sort(all)
	return all
}

// What is not the same run is refused, and nothing is sent.
func TestRunOfAnotherFile(t *testing.T) {
	text := many(5_000)
	for name, change := range map[string]func(*bulk.Job){
		"another line":    func(j *bulk.Job) { j.Source = strings.NewReader(strings.Replace(text, "jti-5 ", "jti-6 ", 1)) },
		"a shorter file":  func(j *bulk.Job) { j.Source = strings.NewReader(text[:100]) },
		"another type":    func(j *bulk.Job) { j.Format.Type = messaging.TypeAPIKey },
		"another expiry":  func(j *bulk.Job) { j.Format.Expiry = 1_950_000_000_000 },
		"another tenant":  func(j *bulk.Job) { j.Format.Tenant = "carbon.super" },
		"another command": func(j *bulk.Job) { j.Subject = messaging.SubjectApproval },
		"half a state": func(j *bulk.Job) {
			if err := os.WriteFile(j.State, []byte(`{"format":1`), 0o600); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := &hub{fails: 2}
			j := job(h, text, format(messaging.TypeJWT))
			j.State = filepath.Join(t.TempDir(), "state")
			if _, err := j.Run(t.Context()); !errors.Is(err, errAway) {
				t.Fatal(err)
			}
			h.fails, j.Source = -1, strings.NewReader(text)
			change(j)
			if _, err := j.Run(t.Context()); !errors.Is(err, bulk.ErrOther) || len(h.events) != 2 {
				t.Errorf("%v, %d events", err, len(h.events))
			}
		})
	}
}

// What was added to the end of a file is sent too.
func TestRunGoesOnInALongerFile(t *testing.T) {
	h := &hub{fails: 1}
	j := job(h, many(3_000), format(messaging.TypeJWT))
	j.State = filepath.Join(t.TempDir(), "state")
	if _, err := j.Run(t.Context()); !errors.Is(err, errAway) {
		t.Fatal(err)
	}
	h.fails, j.Source = -1, strings.NewReader(many(3_000)+"added\n")
	if _, err := j.Run(t.Context()); err != nil || !slices.Contains(keys(h.tokens(t)), "added") {
		t.Error(err)
	}
}

func TestRunIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	h := &hub{fails: -1}
	j := job(h, many(5_000), format(messaging.TypeJWT))
	j.Publish = func(ctx context.Context, a messaging.Announcement) error {
		cancel()
		return errors.Join(ctx.Err(), h.publish(ctx, a))
	}
	if _, err := j.Run(ctx); !errors.Is(err, context.Canceled) || len(h.events) != 1 {
		t.Errorf("%v, %d events", err, len(h.events))
	}
}
