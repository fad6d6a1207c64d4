package messaging_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// planted is an opaque token that comes in every way in which it can.
const planted = secret + "-7f3c1b9e-opaque"

// unparsed is one in an event that does not parse, which operators alone see.
const unparsed = "5e21d07b-unparsed-opaque"

// opaqueEvents are events that hold the token, by what becomes of them.
func opaqueEvents() map[string]fields {
	list := func(tokenType string, more ...any) fields {
		return batchOf(fields{"tokenType": tokenType, "revokedTokensList": append([]any{planted}, more...)})
	}
	entries := func(more ...any) fields {
		return batchOf(fields{"revokedTokensList": append([]any{
			fields{"accessToken": planted, "tokenType": "Default"}, fields{"revokedToken": planted + "2"},
		}, more...)})
	}
	bad := fields{"accessToken": planted, "expiryTime": -1}
	return map[string]fields{
		"good":                             {"revokedToken": planted},
		"good, of blank type":              {"revokedToken": planted, "type": "", "expiryTime": inAnHour()},
		"good, of OAuth2":                  {"revokedToken": planted, "type": "OAuth2"},
		"good, expired":                    {"revokedToken": planted, "expiryTime": 1},
		"good, with more of it":            {"revokedToken": planted, "accessToken": planted, "refreshToken": planted},
		"good, like a rule":                {"revokedToken": inner(fields{"consumer_key": planted, "revocationTime": "1716000000000"}), "type": "Default"},
		"good list":                        list("Default"),
		"good list of objects":             entries(),
		"dead, its expiry":                 {"revokedToken": planted, "expiryTime": -1},
		"dead, its type":                   {"revokedToken": planted, "type": "x", "accessToken": planted},
		"dead, its type a list":            {"revokedToken": planted, "type": []string{planted}},
		"dead, its token a list":           {"revokedToken": []string{planted}, "type": "JWT"},
		"dead, its id an object":           {"revokedToken": planted, "eventId": fields{"a": planted}},
		"dead, its tenant a list":          {"revokedToken": planted, "tenantId": []string{planted}, "ttl": []string{planted}},
		"dead, a JWT without an id":        {"revokedToken": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0." + planted, "type": "JWT"},
		"dead, a rule that is none":        {"revokedToken": planted, "type": clientEvent},
		"dead, a rule of a list":           {"revokedToken": inner([]string{planted}), "type": entityEvent},
		"dead, a rule with more":           ruleOf(clientEvent, fields{"consumer_key": "app", "accessToken": planted}),
		"dead, a rule of objects":          ruleOf(claimEvent, fields{"claim": "sub", "value": []string{planted}}),
		"dead, a batch that is none":       {"revokedToken": planted, "type": batchEvent, "expiryTime": -1},
		"dead, a batch with more":          batchOf(fields{"accessToken": planted, "revokedTokensList": "x"}),
		"dead list":                        list("Default", ""),
		"dead list of unknown type":        list("x"),
		"dead list, its type a list":       batchOf(fields{"tokenType": []string{planted}, "revokedTokensList": []string{"a"}}),
		"dead list of objects":             entries(bad),
		"dead list of lists":               entries([]string{planted}),
		"dead list, beside the token":      {"type": batchEvent, "revokedTokensList": []any{bad, fields{"accessToken": planted, "more": planted}}},
		"dead list, no list":               {"type": batchEvent, "tokenRevocationEventList": planted},
		"dead list of whole JWTs":          batchOf(fields{"tokenType": "JWT", "revokedTokensList": []string{"eyJ." + planted + ".x"}}),
		"dead list of objects of JWTs":     entries(fields{"accessToken": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0." + planted}),
		"dead list of jtis that are JWTs":  entries(fields{"jti": "eyJ." + planted + ".x"}),
		"dead list of tokens without type": entries(fields{"accessToken": planted + "3"}, 17),
	}
}

// disguises are the token as it would be found: as it is, and where base64 holds
// it at any offset.
func disguises() []string {
	all := []string{planted, secret}
	for offset := range 3 {
		text := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat(" ", offset) + planted))
		all = append(all, text[4:len(text)-4], strings.NewReplacer("+", "-", "/", "_").Replace(text[4:len(text)-4]))
	}
	return all
}

// TestOpaqueTokenIsKeptNowhere looks everywhere after every event that holds one.
func TestOpaqueTokenIsKeptNowhere(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	r := start(t, cfg)
	dead := 0
	for name, e := range opaqueEvents() {
		r.publish(t, messaging.SubjectRevocation, e.event())
		r.publish(t, messaging.SubjectApproval, e.event())
		if strings.HasPrefix(name, "dead") {
			dead += 2
		}
	}
	for name, e := range issuedEvents() {
		r.publish(t, messaging.SubjectIssued, e.event())
		if strings.HasPrefix(name, "dead") {
			dead++
		}
	}
	for _, raw := range []string{`{"event":{"payloadData":{"refreshToken":"` + planted, `"` + planted + `"`, `{"event":{"payloadData":"` + planted + `"}}`} {
		r.publish(t, messaging.SubjectIssued, []byte(raw))
		dead++
	}
	r.publish(t, messaging.SubjectRevocation, fields{"revokedToken": planted, "type": batchEvent}.event()) // without a list
	r.publish(t, messaging.SubjectRevocation, []byte(`{"event":{"payloadData":{"revokedToken":"`+planted+`","revokedToken":"x","expiryTime":-1}}}`))
	r.publish(t, messaging.SubjectRevocation, []byte(`{"event":{"payloadData":{"revokedToken":"`+unparsed))
	r.settle(t)
	letters := r.deadLetters(t)
	if len(letters) != dead+2 {
		t.Errorf("%d dead letters, want %d", len(letters), dead+2)
	}
	places := map[string]string{"log": r.book.text(), "metrics": r.metricsText(t), "dead letters": texts(letters)}
	for _, stream := range []string{messaging.IngestStream, messaging.LogStream, messaging.DeadLetterStream, messaging.GrantsStream} {
		places[stream] = fmt.Sprint(r.content(t, stream))
	}
	r.close()
	for path, data := range storeFiles(t, filepath.Dir(cfg.Embedded.Store)) {
		places[path] = string(data)
	}
	for place, text := range places {
		operators := place == "dead letters" || place == messaging.DeadLetterStream
		if strings.Contains(text, unparsed) != operators {
			t.Errorf("what does not parse: it is in %s: %v", place, !operators)
		}
		for _, hidden := range disguises() {
			if i := strings.Index(text, hidden); i >= 0 {
				t.Errorf("the token is in %s: …%s…", place, text[max(0, i-300):min(len(text), i+100)])
			}
		}
	}
}

func texts(letters []messaging.DeadLetter) string {
	var all strings.Builder
	for _, d := range letters {
		fmt.Fprintln(&all, d.Reason, string(d.Event))
	}
	return all.String()
}

func (r *replica) metricsText(t *testing.T) string {
	t.Helper()
	page := httptest.NewRecorder()
	promhttp.HandlerFor(r.reg, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return page.Body.String()
}

func storeFiles(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	fatal(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files[path], err = os.ReadFile(path)
		return err
	}))
	if len(files) < 5 {
		t.Fatalf("the store has only %d files: this proves nothing", len(files))
	}
	return files
}

// Of a batch that is dead every token can still be revoked: of a jti by itself,
// of an opaque token by its digest, and a replay of what is not understood stays
// so.
func TestOpaqueTokensOfADeadBatchAreReplayed(t *testing.T) {
	t.Parallel()
	r := startToBury(t)
	digest := revocation.NamePrefix + revocation.DigestOf(revocation.DomainOpaque, planted).String()
	rec := approvedRecord(revokedRecord("jti-1", inTwoHours()))
	event := batchOf(fields{"consumerKey": "app", "revokedTokensList": []any{
		"jti-1", fields{"accessToken": planted, "tokenType": "Default"}, fields{"accessToken": accessToken, "expiryTime": inAnHour()},
	}})
	r.buryUnder(t, rec, messaging.SubjectRevocation, event.event())
	r.replay(t)
	held := r.held()
	for _, name := range []string{"jti-1", digest, accessTokenID} {
		if held[name] != revocation.Revoked {
			t.Errorf("%s is %s", name, held[name])
		}
	}
	if letters := r.deadLetters(t); len(letters) != 0 || len(held) != 3 {
		t.Errorf("dead letters %v, held %v", letters, held)
	}
}

func TestOpaqueTokensDoNotReturnByReplay(t *testing.T) {
	t.Parallel()
	r := start(t, embedded(t))
	dead := 0
	for name, e := range opaqueEvents() {
		if strings.HasPrefix(name, "dead") {
			r.publish(t, messaging.SubjectRevocation, e.event())
			dead++
		}
	}
	r.settle(t)
	before := map[string]bool{}
	for _, d := range r.deadLetters(t) {
		before[string(d.Event)] = true
	}
	r.replay(t)
	after := r.deadLetters(t)
	if len(after) != dead || len(r.held()) != 0 {
		t.Errorf("%d of %d are dead letters again, held %v", len(after), dead, r.held())
	}
	for _, d := range after {
		if !before[string(d.Event)] {
			t.Errorf("it became another: %s", d.Event)
		}
	}
}

// FuzzRedact: nothing makes redact panic, and what it keeps it keeps again.
func FuzzRedact(f *testing.F) {
	for _, e := range opaqueEvents() {
		f.Add(e.event())
	}
	f.Fuzz(func(t *testing.T, event []byte) {
		once := messaging.Redact(event)
		if twice := messaging.Redact(once); !bytes.Equal(once, twice) {
			t.Fatalf("%s became %s and then %s", event, once, twice)
		}
	})
}
