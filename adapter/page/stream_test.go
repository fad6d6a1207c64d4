package page_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"revocation-adapter/adapter/receipts"
	"revocation-adapter/revocation"
)

// update is what a stream says of the things that tests look at.
type update struct {
	Whole  bool
	Values struct {
		Log struct {
			Version uint64
			Revoked int
			Rate    float64
		}
	}
	Changes    []struct{ Name, State string }
	Deliveries []struct {
		Version           uint64
		Enforced, Pending int
		Took              float64 `json:"took_ms"`
	}
	Gateways struct {
		Whole bool
		Set   []struct{ Key, Name string }
		Moved []struct {
			Key     string
			Version uint64
		}
		Gone []string
	}
}

func (st *stream) update(t *testing.T) (u update, size int) {
	t.Helper()
	name, data, ok := st.next()
	if !ok || name != "" {
		t.Fatalf("the stream ended, or says %s", name)
	}
	if err := json.Unmarshal([]byte(data), &u); err != nil {
		t.Fatal(err)
	}
	return u, len(data)
}

// until reads updates until one is as wanted.
func (st *stream) until(t *testing.T, wanted func(update) bool) update {
	t.Helper()
	for {
		if u, _ := st.update(t); wanted(u) {
			return u
		}
	}
}

// A stream begins with everything and goes on with what is different. It outlives
// the time that the server allows for a request.
func TestPageStreamsDifferences(t *testing.T) {
	s := newStage(t)
	s.fleet.join(500, s.version.Load())
	for i := range 80 {
		s.change(t, fmt.Sprintf("early-%02d", i), revocation.Revoked)
	}
	v := s.signIn(t)
	v.stream("/page/events").until(t, func(u update) bool { return u.Values.Log.Revoked == 80 })
	st := v.stream("/page/events")
	first := st.until(t, func(u update) bool { return u.Whole })
	if n := len(first.Changes); n != 50 || first.Changes[49].Name != "early-79" || first.Values.Log.Revoked != 80 {
		t.Errorf("it begins with %d changes of %d: %+v", n, first.Values.Log.Revoked, first.Changes)
	}
	all := first.Gateways
	for len(all.Set) == 0 {
		u, _ := st.update(t)
		all = u.Gateways
	}
	if len(all.Set) != 500 {
		t.Fatalf("%d gateways", len(all.Set))
	}
	<-time.After(3 * time.Second) // the server allows two
	version := s.change(t, "late", revocation.Approved)
	u := st.until(t, func(u update) bool { return len(u.Changes) > 0 })
	if len(u.Changes) != 1 || u.Changes[0].Name != "late" || u.Changes[0].State != "approved" || u.Whole {
		t.Errorf("then comes %+v", u)
	}
	s.fleet.edit(func(all []receipts.Gateway) { all[3].Version = version })
	u = st.until(t, func(u update) bool { return len(u.Gateways.Moved)+len(u.Gateways.Set) > 0 })
	if len(u.Gateways.Moved) != 1 || u.Gateways.Moved[0].Version != version || len(u.Gateways.Set) != 0 || u.Gateways.Whole {
		t.Errorf("of one gateway that moved, it says %+v", u.Gateways)
	}
	s.fleet.mu.Lock()
	s.fleet.all = s.fleet.all[1:]
	s.fleet.mu.Unlock()
	u = st.until(t, func(u update) bool { return len(u.Gateways.Gone) > 0 })
	if len(u.Gateways.Gone) != 1 || !strings.HasPrefix(u.Gateways.Gone[0], "gw-0001") {
		t.Errorf("of one that left, it says %+v", u.Gateways.Gone)
	}
}

// A delivery takes from when the hub stored it, or where its clock is another from
// when it was published, until the last gateway has confirmed.
func TestPageMeasuresDeliveries(t *testing.T) {
	s := newStage(t)
	s.fleet.join(3, s.version.Load())
	st := s.signIn(t).stream("/page/events")
	st.until(t, func(u update) bool { return u.Whole })
	for name, within := range map[string][2]float64{"b6f9": {5900, 15_000}, "of-a-clock-ahead": {0, 5800}} {
		version := s.change(t, name, revocation.Revoked)
		s.fleet.confirm(version)
		u := st.until(t, func(u update) bool { return len(u.Deliveries) > 0 })
		d := u.Deliveries[0]
		if len(u.Deliveries) != 1 || d.Version != version || d.Enforced != 3 || d.Pending != 0 || d.Took < within[0] || d.Took > within[1] {
			t.Errorf("%s: %+v", name, u.Deliveries)
		}
	}
}

// Who opens the page is not told that there is no gateway before one was looked for,
// and does not wait for the next second.
func TestPageAsksForGatewaysAtOnce(t *testing.T) {
	quickest := time.Minute
	for range 3 { // the machine may be busy
		quickest = min(quickest, firstGateways(t))
	}
	if quickest > 500*time.Millisecond { // those who wait for the next second wait 650
		t.Errorf("they come after %s", quickest)
	}
}

// firstGateways opens the page with three gateways, and says how long it waits for them.
func firstGateways(t *testing.T) time.Duration {
	t.Helper()
	s := newStage(t)
	v := s.signIn(t)
	resp, _ := v.ask("GET", "/page/session", nil, nil) // nobody looks, and nobody asks
	if <-time.After(300 * time.Millisecond); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	s.fleet.join(3, s.version.Load())
	began := time.Now()
	u := v.stream("/page/events").until(t, func(u update) bool { return u.Gateways.Whole || len(u.Gateways.Set) > 0 })
	if len(u.Gateways.Set) != 3 {
		t.Errorf("it says %+v", u.Gateways)
	}
	return time.Since(began)
}

// However many events there are, a stream has four updates a second at most, of a
// size that does not depend on them.
func TestPageStreamIsCoalesced(t *testing.T) {
	s := newStage(t)
	st := s.signIn(t).stream("/page/events")
	began := time.Now()
	go func() {
		for i := range 5000 {
			version := s.version.Add(1)
			_ = s.log.Append(version, tokenOf(fmt.Sprintf("token-%05d", i))) // in order: one writer
			s.log.Publish(version)
			if i%10 == 9 {
				<-time.After(time.Millisecond)
			}
		}
	}()
	updates, largest := 0, 0
	for revoked := 0; revoked < 5000; updates++ {
		u, size := st.update(t)
		largest = max(largest, size)
		revoked = max(revoked, u.Values.Log.Revoked)
	}
	if most := 4*time.Since(began).Seconds() + 2; float64(updates) > most {
		t.Errorf("%d updates in %s", updates, time.Since(began))
	}
	if largest > 16<<10 {
		t.Errorf("an update has %d bytes", largest)
	}
}

func tokenOf(jti string) revocation.Revocation {
	return revocation.Revocation{
		Domain: revocation.DomainToken, Key: jti, Digest: revocation.DigestOf(revocation.DomainToken, jti),
		State: revocation.Revoked, Expiry: revocation.Never, Lifetime: revocation.Forever,
	}
}

// A stream says that the session is over, and ends.
func TestPageStreamEndsWithTheSession(t *testing.T) {
	s := newStage(t)
	v := s.signIn(t)
	events, receipt := v.stream("/page/events"), v.stream(fmt.Sprintf("/page/receipts?version=%d", s.version.Load()))
	if _, _, ok := receipt.next(); !ok {
		t.Fatal("no receipt")
	}
	events.update(t)
	resp, _ := v.ask("DELETE", "/page/session", nil, map[string]string{"Origin": s.url, "X-CSRF-Token": v.token})
	if resp.StatusCode != http.StatusNoContent {
		t.Fatal(resp.Status)
	}
	for {
		name, _, ok := events.next()
		if !ok {
			t.Fatal("the stream ended without a word")
		}
		if name == "ended" {
			break
		}
	}
	if _, _, ok := events.next(); ok {
		t.Error("it goes on")
	}
	if resp, _ := v.ask("GET", "/page/events", nil, nil); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a new stream: %s", resp.Status)
	}
}

func TestPageStreamsAreBounded(t *testing.T) {
	s := newStage(t)
	v := s.signIn(t)
	var open []*stream
	for range 32 {
		st := v.stream("/page/events")
		if st.resp.StatusCode != http.StatusOK {
			t.Fatal(st.resp.Status)
		}
		open = append(open, st)
	}
	over := v.stream("/page/events")
	if over.resp.StatusCode != http.StatusServiceUnavailable || over.resp.Header.Get("Retry-After") == "" {
		t.Fatalf("one more: %s", over.resp.Status)
	}
	open[0].close()
	for { // its place is free once the server has noticed
		st := v.stream("/page/events")
		if st.resp.StatusCode == http.StatusOK {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("its place stays taken")
		}
	}
}

// Who does not read is dropped, and holds no place.
func TestPageDropsSlowReaders(t *testing.T) {
	s := newStage(t)
	s.fleet.join(1000, s.version.Load())
	v := s.signIn(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() }) //nolint:errcheck // nothing is written to it
	if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	request := fmt.Sprintf("GET /page/events HTTP/1.1\r\nHost: %s\r\nCookie: %s=%s\r\n\r\n", strings.TrimPrefix(s.url, "http://"), v.cookie.Name, v.cookie.Value)
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	over := time.After(45 * time.Second)
	for round := 0; !strings.Contains(s.out.String(), "A page has lost its stream"); round++ {
		s.fleet.edit(func(all []receipts.Gateway) {
			for i := range all { // half a megabyte a second
				all[i].LastNACK = strings.Repeat("x", 400) + fmt.Sprint(round)
			}
		})
		select {
		case <-time.After(time.Second):
		case <-over:
			t.Fatal("a reader that reads nothing is served for ever")
		}
	}
}

// The receipt says how it stands at once, and ends when nothing is pending.
func TestPageReceiptStream(t *testing.T) {
	s := newStage(t)
	s.fleet.join(3, s.version.Load())
	s.fleet.edit(func(all []receipts.Gateway) { all[2].Connected = false })
	v := s.signIn(t)
	for _, query := range []string{"", "?version=x", "?version=1&series=none&state=revoked", "?version=1&series=tokens&state=gone"} {
		if resp, _ := v.ask("GET", "/page/receipts"+query, nil, nil); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: %s", query, resp.Status)
		}
	}
	version := s.change(t, "b6f9", revocation.Revoked)
	st := v.stream(fmt.Sprintf("/page/receipts?version=%d&series=tokens&state=revoked&tenant=a&tenant=b", version))
	read := func() (news struct {
		Version  uint64
		Done     bool
		Gateways struct {
			Enforced             int
			Pending, Unreachable []string
		}
	},
	) {
		_, data, _ := st.next()
		if err := json.Unmarshal([]byte(data), &news); err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		return news
	}
	if news := read(); news.Done || news.Version != version || len(news.Gateways.Pending) != 2 || len(news.Gateways.Unreachable) != 1 {
		t.Errorf("at first %+v", news)
	}
	s.fleet.confirm(version)
	news := read()
	for !news.Done {
		news = read()
	}
	if news.Gateways.Enforced != 2 || len(news.Gateways.Pending) != 0 {
		t.Errorf("in the end %+v", news)
	}
	if _, _, ok := st.next(); ok {
		t.Error("it goes on")
	}
	want := receipts.Part{Series: revocation.Tokens, State: revocation.Revoked, Tenants: []string{"a", "b"}}
	if asked := s.fleet.lastQuery(); len(asked.Parts) != 1 || fmt.Sprint(asked.Parts[0]) != fmt.Sprint(want) {
		t.Errorf("asked for %+v", asked)
	}
}
