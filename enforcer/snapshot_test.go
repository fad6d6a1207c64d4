package enforcer_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"revocation-adapter/enforcer"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// withFile is a configuration with a snapshot file, and what is logged.
func withFile(t *testing.T, c *clock, adapters ...*adapter) (enforcer.Config, *bytes.Buffer) {
	t.Helper()
	cfg := configOf(c, adapters...)
	cfg.SnapshotFile = filepath.Join(t.TempDir(), "made", "set")
	log, text := logrus.New(), &bytes.Buffer{}
	log.Out = text
	cfg.Log = log
	return cfg, text
}

func again(cfg enforcer.Config) enforcer.Config {
	cfg.Metrics = nil
	return cfg
}

func TestSnapshotOverARestart(t *testing.T) {
	h, c := newHub(), clockAt(epoch)
	h.completeAt(epoch)
	a := serve(t, h)
	for _, id := range []string{"one", "two", "three"} {
		h.revoke(id)
	}
	h.put(tokenDigest("dated"), item{revoked: true, seconds: epoch.Unix() + 5})
	h.rule("azp", "client", epoch.Add(time.Hour))
	cfg, _ := withFile(t, c, a)
	cfg.Tenants = []string{"b", " a", "b"}
	e := build(t, cfg)
	stop := run(t, e)
	reaches(t, e, h.version)
	eventually(t, "the set is complete", func() bool { return !e.Freshness().Stale })
	before := e.Freshness()
	stop()
	if info, err := os.Stat(cfg.SnapshotFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}

	cfg.Tenants = []string{"a", "b"} // the same
	c.advance(20 * time.Second)
	e = build(t, again(cfg))
	if f := e.Freshness(); f != before || e.NotReady() != "" {
		t.Errorf("%+v, want %+v; %s", f, before, e.NotReady())
	}
	for _, id := range []string{"one", "two", "three", "dated"} {
		wantVerdict(t, e, jwtOf(id), enforcer.Revoked)
	}
	token := jwtOf("other")
	wantVerdict(t, e, token, enforcer.Pass)
	token.Claims = map[string][]string{"azp": {"client"}}
	wantVerdict(t, e, token, enforcer.Revoked)

	h.approve("two")
	stop = run(t, e)
	reaches(t, e, h.revoke("four"))
	wantVerdict(t, e, jwtOf("two"), enforcer.Pass)
	wantVerdict(t, e, jwtOf("four"), enforcer.Revoked)
	a.look(func(a *adapter) {
		if a.resets != 1 {
			t.Errorf("%d whole sets, want one", a.resets)
		}
	})
	stop()

	c.advance(grace)
	e = build(t, again(cfg))
	if got := e.Held(); got != 4 {
		t.Errorf("%d tokens, want what has expired by this clock alone, too", got)
	}
	wantVerdict(t, e, jwtOf("dated"), enforcer.Stale)
	if e.NotReady() == "" {
		t.Error("ready with a snapshot that is too old")
	}
	wantVerdict(t, e, jwtOf("other"), enforcer.Stale)
	wantVerdict(t, e, jwtOf("one"), enforcer.Revoked)
	run(t, e)
	h.completeAt(c.now())
	reaches(t, e, h.revoke("five"))
	if reason := e.NotReady(); reason != "" {
		t.Error(reason)
	}
	eventually(t, "what has expired is dropped", func() bool { return e.Held() == 4 })
}

// snapshotOf writes a file with the token "one" and a rule.
func snapshotOf(t *testing.T, cfg enforcer.Config, complete time.Time) []byte {
	t.Helper()
	h := newHub()
	h.revoke("one")
	h.rule("azp", "client", epoch)
	h.completeAt(complete)
	a := serve(t, h)
	cfg.Adapters = []string{a.address}
	e := build(t, again(cfg))
	stop := run(t, e)
	reaches(t, e, h.version)
	stop()
	a.stop()
	file, err := os.ReadFile(cfg.SnapshotFile)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestSnapshotsThatAreRefused(t *testing.T) {
	tests := []struct {
		name   string
		change func(file []byte, cfg *enforcer.Config) []byte
		want   string
	}{
		{"empty", func([]byte, *enforcer.Config) []byte { return nil }, "no snapshot"},
		{"of something else", func([]byte, *enforcer.Config) []byte { return []byte("#!/bin/sh\nexit 1\n") }, "no snapshot"},
		{"of another format", func(file []byte, _ *enforcer.Config) []byte { file[7]++; return file }, "no snapshot"},
		{"of other tenants", func(file []byte, cfg *enforcer.Config) []byte { cfg.Tenants = []string{"a"}; return file }, "other tenants"},
		{"cut", func(file []byte, _ *enforcer.Config) []byte { return file[:len(file)-1] }, "damaged"},
		{"cut early", func(file []byte, _ *enforcer.Config) []byte { return file[:12] }, "no snapshot"},
		{"with more after it", func(file []byte, _ *enforcer.Config) []byte { return append(file, 0) }, "damaged"},
		{"with a bit changed in the middle", func(file []byte, _ *enforcer.Config) []byte { file[len(file)/2] ^= 1; return file }, "damaged"},
		{"with a bit changed in the sum", func(file []byte, _ *enforcer.Config) []byte { file[len(file)-1] ^= 1; return file }, "damaged"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, text := withFile(t, clockAt(epoch), &adapter{address: "127.0.0.1:1"})
			file := tt.change(snapshotOf(t, cfg, epoch), &cfg)
			if err := os.WriteFile(cfg.SnapshotFile, file, 0o600); err != nil {
				t.Fatal(err)
			}
			e := build(t, again(cfg))
			if e.NotReady() == "" || e.Held() != 0 || !e.Freshness().Stale {
				t.Errorf("%d tokens, %+v", e.Held(), e.Freshness())
			}
			if line := text.String(); !strings.Contains(line, "level=warning") || !strings.Contains(line, tt.want) {
				t.Errorf("logged %q, want %q", line, tt.want)
			}
		})
	}
}

// A file from the future is as fresh as now, not fresher.
func TestSnapshotFromTheFuture(t *testing.T) {
	c := clockAt(epoch.Add(time.Hour))
	cfg, _ := withFile(t, c, &adapter{address: "127.0.0.1:1"})
	snapshotOf(t, cfg, epoch.Add(time.Hour))
	c.micros.Store(epoch.UnixMicro())
	e := build(t, again(cfg))
	if f := e.Freshness(); !f.Complete.Equal(epoch) || f.Stale {
		t.Errorf("%+v", f)
	}
}

// What is known of the hub outlives a restart, even if nothing goes on from it: a
// replica that lags does not bring back what passed.
func TestSnapshotThatNothingGoesOnFrom(t *testing.T) {
	whole := step{reset: true, to: 20, head: 20, revoke: "a b", version: 20}
	lagging := step{reset: true, to: 10, head: 10, at: time.Second, revoke: "a", revoked: "a b c", version: 20}
	tests := []struct {
		name  string
		last  step // before the restart
		after []step
	}{
		{
			"after a gap",
			step{from: 30, to: 40, head: 40, revoke: "c", refused: "never reached", version: 20},
			[]step{lagging, {from: 10, to: 39, head: 39, revoked: "a b c", version: 20}, {from: 39, to: 40, head: 40, revoke: "c", revoked: "a c", passes: "b", version: 40}},
		},
		{
			"while a set is loaded",
			step{reset: true, to: 30, head: 40, revoke: "c", version: 20},
			[]step{lagging, {from: 10, to: 29, head: 29, revoked: "a b c", version: 20}, {from: 29, to: 30, head: 30, revoke: "c", revoked: "a c", passes: "b", version: 30}},
		},
		{
			"while a set of another hub is loaded",
			step{proof: "new", reset: true, to: 3, head: 4, revoke: "c", version: 20},
			[]step{lagging, {from: 10, to: 20, head: 20, revoked: "a", passes: "b c", version: 20}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, _ := withFile(t, clockAt(epoch), &adapter{address: "127.0.0.1:1"})
			e := build(t, cfg)
			whole.check(t, e)
			e.Save()
			tt.last.check(t, e)
			e.Save()
			e = build(t, again(cfg))
			for i, s := range tt.after {
				t.Run(fmt.Sprint(i), func(t *testing.T) { s.check(t, e) })
			}
		})
	}
}

// A part of a set is never written, nor is a set that has not changed.
func TestWhatIsNotWritten(t *testing.T) {
	h, c := newHub(), clockAt(epoch)
	h.completeAt(epoch)
	a := serve(t, h)
	for _, id := range []string{"one", "two", "three"} {
		h.revoke(id)
	}
	a.set(func(a *adapter) { a.page, a.limit, a.refuse = 1, 1, nil })
	cfg, _ := withFile(t, c, a)
	e := build(t, cfg)
	e.Save()
	stop := run(t, e)
	eventually(t, "a part has come", func() bool { return e.Held() >= 1 })
	a.set(func(a *adapter) { a.mute = true })
	stop()
	if e.Held() < 3 {
		if _, err := os.Stat(cfg.SnapshotFile); err == nil {
			t.Errorf("%d of 3 tokens were written", e.Held())
		}
	}
	a.set(func(a *adapter) { a.mute, a.limit = false, 0 })
	stop = run(t, e)
	reaches(t, e, h.version)
	stop()
	if err := os.Remove(cfg.SnapshotFile); err != nil {
		t.Fatal(err)
	}
	e.Save()
	if _, err := os.Stat(cfg.SnapshotFile); err == nil {
		t.Error("the same was written again")
	}
	stop = run(t, e)
	reaches(t, e, h.approve("one"))
	stop()
	if _, err := os.Stat(cfg.SnapshotFile); err != nil {
		t.Error(err)
	}
}

// A file that cannot be written stops nothing.
func TestSnapshotThatCannotBeWritten(t *testing.T) {
	h := newHub()
	h.completeAt(epoch)
	a := serve(t, h)
	cfg, text := withFile(t, clockAt(epoch), a)
	cfg.SnapshotEvery = time.Millisecond
	if err := os.WriteFile(filepath.Dir(cfg.SnapshotFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e := build(t, cfg)
	stop := run(t, e)
	reaches(t, e, h.revoke("one"))
	reaches(t, e, h.revoke("two"))
	stop()
	if !strings.Contains(text.String(), "The snapshot file was not written") {
		t.Errorf("logged %q", text)
	}
}

// While a whole set is loaded, the file says nothing to go on from.
func TestSnapshotOfASetThatIsReplaced(t *testing.T) {
	cfg, _ := withFile(t, clockAt(epoch), &adapter{address: "127.0.0.1:1"})
	e := build(t, cfg)
	step{reset: true, to: 10, head: 10, revoke: "a", version: 10}.check(t, e)
	step{proof: "new", reset: true, to: 5, head: 20, revoke: "b", revoked: "a b", version: 10}.check(t, e)
	e.Save()
	e = build(t, again(cfg))
	wantVerdict(t, e, jwtOf("a"), enforcer.Revoked)
	wantVerdict(t, e, jwtOf("b"), enforcer.Revoked)
	step{from: 10, to: 11, head: 11, removed: "a", refused: "never reached", revoked: "a b", version: 10}.check(t, e)
	step{proof: "new", from: 5, to: 20, head: 20, removed: "a", refused: "never reached", revoked: "a b", version: 10}.check(t, e)
}

// Adapters that do not share a hub take turns in what they make a gateway forget.
func TestAnotherHubIsToldOf(t *testing.T) {
	cfg, text := withFile(t, clockAt(epoch), &adapter{address: "127.0.0.1:1"})
	e := build(t, cfg)
	const warning = "The set is of another hub than before"
	step{reset: true, to: 10, head: 10, revoke: "a", version: 10}.check(t, e)
	step{reset: true, to: 12, head: 12, revoke: "a", version: 12}.check(t, e)
	step{proof: "new", reset: true, to: 5, head: 20, revoke: "b", revoked: "a b", version: 12}.check(t, e)
	if strings.Contains(text.String(), warning) {
		t.Errorf("logged %q", text)
	}
	step{proof: "new", from: 5, to: 20, head: 20, revoked: "b", passes: "a", version: 20}.check(t, e)
	if strings.Count(text.String(), warning) != 1 {
		t.Errorf("logged %q", text)
	}
}

func FuzzSnapshot(f *testing.F) {
	cfg := configOf(clockAt(epoch), &adapter{address: "127.0.0.1:1"})
	f.Add(snapshotBytes(f, cfg, step{reset: true, to: 10, head: 10, revoke: "a b c"}.response().GetResources()[0].GetValue()))
	b, _ := func() (*revocationv1.Batch, <-chan struct{}) {
		h := newHub()
		h.rule("azp", "x", epoch)
		h.rule("sub", "y", epoch)
		h.revoke("one")
		return h.batch(0, h.version, true, 10)
	}()
	f.Add(snapshotBytes(f, cfg, respond(b, "hub").GetResources()[0].GetValue()))
	f.Add([]byte("revoked\x02\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, body []byte) {
		e := build(t, again(cfg))
		if err := e.ReadSnapshot(body); err != nil {
			if e.Held() != 0 || e.NotReady() == "" {
				t.Errorf("refused, but %d tokens", e.Held())
			}
			return
		}
		// What was read is written as it was, but for what has expired.
		var written bytes.Buffer
		if err := e.WriteSnapshot(&written); err != nil {
			t.Fatal(err)
		}
		other := build(t, again(cfg))
		if err := other.ReadSnapshot(written.Bytes()[:written.Len()-32]); err != nil || other.Held() != e.Held() {
			t.Errorf("written again: %v, %d tokens, want %d", err, other.Held(), e.Held())
		}
		e.Check(enforcer.Token{ID: "one", Expiry: revocation.Never, Claims: map[string][]string{"azp": {"x"}}})
	})
}

// snapshotBytes is a snapshot with what a batch says, without its sum.
func snapshotBytes(f *testing.F, cfg enforcer.Config, batch []byte) []byte {
	f.Helper()
	e := build(f, again(cfg))
	r := step{}.response()
	r.Resources[0].Value = batch
	if err := e.Take(r); err != nil {
		f.Fatal(err)
	}
	var written bytes.Buffer
	if err := e.WriteSnapshot(&written); err != nil {
		f.Fatal(err)
	}
	return slices.Clone(written.Bytes()[:written.Len()-32])
}

// What no Enforcer would have written is refused, even if its sum is right.
func TestSnapshotsThatMakeNoSense(t *testing.T) {
	cfg := configOf(clockAt(epoch), &adapter{address: "127.0.0.1:1"})
	h := newHub()
	for _, id := range []string{"one", "two"} {
		h.revoke(id)
	}
	h.rule("azp", "x", epoch)
	b, _ := h.batch(0, h.version, true, 10)
	e := build(t, again(cfg))
	if err := e.Take(respond(b, "hub")); err != nil {
		t.Fatal(err)
	}
	var written bytes.Buffer
	if err := e.WriteSnapshot(&written); err != nil {
		t.Fatal(err)
	}
	const token, rule = 16 + 4, 16 + 8 + 4 + 4
	body := written.Bytes()[:written.Len()-32]
	rules := len(body) - rule
	tokens := rules - 1 - 2*token
	proof := bytes.Index(body, []byte("-hub")) + len("-hub") + 1
	tests := []struct {
		name   string
		change func(body []byte)
		sound  bool
	}{
		{"as it was", func([]byte) {}, true},
		{"a rule on a claim that is not there", func(body []byte) { body[len(body)-4] = 1 }, false},
		{"a rule that never was", func(body []byte) { body[rules+16+7] = 0x80 }, false},
		{"tokens that are not in order", func(body []byte) {
			first := slices.Clone(body[tokens : tokens+token])
			copy(body[tokens:], body[tokens+token:tokens+2*token])
			copy(body[tokens+token:], first)
		}, false},
		{"a token twice", func(body []byte) { copy(body[tokens:], body[tokens+token:tokens+2*token]) }, false},
		{"more tokens than there are", func(body []byte) { body[tokens-1]++ }, false},
		{"of another hub than its version_info", func(body []byte) { body[proof]++ }, false},
		{"more in force than was seen", func(body []byte) { body[proof+len("hub")]-- }, false},
		{"fewer tokens than there are", func(body []byte) { body[tokens-1]-- }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			changed := slices.Clone(body)
			tt.change(changed)
			e := build(t, again(cfg))
			if err := e.ReadSnapshot(changed); (err == nil) != tt.sound || tt.sound != (e.Held() == 2) {
				t.Errorf("error %v, %d tokens", err, e.Held())
			}
		})
	}
}
