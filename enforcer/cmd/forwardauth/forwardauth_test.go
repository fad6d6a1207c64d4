package forwardauth_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"revocation-adapter/enforcer/cmd/forwardauth"
	"revocation-adapter/enforcer/gate"
)

// asked is what a gate is asked when a gateway sends headers, as pairs.
func asked(t *testing.T, headers ...string) gate.Request {
	t.Helper()
	requests := make(chan gate.Request, 1)
	server := forwardauth.New(forwardauth.Config{
		Decide: func(_ context.Context, r gate.Request) gate.Answer {
			requests <- r
			return gate.Answer{Status: http.StatusOK}
		},
		OriginalURI: []string{"X-Original-URI", "X-Forwarded-Uri"}, OriginalMethod: []string{"X-Original-Method", "X-Forwarded-Method"},
		Drain: time.Second, Log: logrus.New(),
	})
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx, lis) }()
	defer func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+lis.Addr().String()+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close() // nothing is read
	return <-requests
}

func line(method, target string) gate.Line { return gate.Line{Method: method, Target: target} }

func TestLines(t *testing.T) {
	own := line("GET", "/")
	ids := "/x?ids=1" + strings.Repeat(",2", 40)
	for name, tc := range map[string]struct {
		headers []string
		want    []gate.Line
	}{
		"nothing is told of": {nil, []gate.Line{own}},
		"a URI":              {[]string{"X-Original-URI", "/a"}, []gate.Line{own, line("", "/a")}},
		"a URI and a method": {[]string{"X-Original-URI", "/a", "X-Original-Method", "PUT"}, []gate.Line{own, line("PUT", "/a")}},
		"both names": {
			[]string{"X-Original-URI", "/a", "X-Forwarded-Uri", "/b", "X-Original-Method", "PUT", "X-Forwarded-Method", "POST"},
			[]gate.Line{own, line("PUT", "/a"), line("POST", "/a"), line("PUT", "/b"), line("POST", "/b")},
		},
		"the same twice":  {[]string{"X-Original-URI", "/a", "X-Forwarded-Uri", "/a"}, []gate.Line{own, line("", "/a")}},
		"commas in a URI": {[]string{"X-Original-URI", ids}, []gate.Line{own, line("", ids)}},
		"two in one":      {[]string{"X-Original-URI", "/a, /b,c"}, []gate.Line{own, line("", "/a, /b,c"), line("", "/a"), line("", "/b,c")}},
		"a whole URL in one": {
			[]string{"X-Original-URI", "x,http://h/b,"},
			[]gate.Line{own, line("", "x,http://h/b,"), line("", "x"), line("", "http://h/b,")},
		},
		"methods in one": {
			[]string{"X-Original-URI", "/a", "X-Original-Method", "PUT, POST"},
			[]gate.Line{own, line("PUT, POST", "/a"), line("PUT", "/a"), line("POST", "/a")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := asked(t, tc.headers...)
			if got.Malformed || !slices.Equal(got.Lines, tc.want) {
				t.Errorf("got %v, %q\nwant %q", got.Malformed, got.Lines, tc.want)
			}
		})
	}
}

// A client that sends very many names makes no more lines of them than a few.
func TestTooManyLines(t *testing.T) {
	many := func(prefix string, n int) (list string) {
		for i := range n {
			list += fmt.Sprintf("%s%d,", prefix, i)
		}
		return list
	}
	for name, tc := range map[string]struct {
		headers   []string
		malformed bool
	}{
		"as many as are read": {[]string{"X-Original-URI", many("/", 15), "X-Original-Method", many("M", 15)}, false},
		"one URI more":        {[]string{"X-Original-URI", many("/", 16)}, true},
		"one method more":     {[]string{"X-Original-URI", "/", "X-Original-Method", many("M", 16)}, true},
		"in two headers":      {[]string{"X-Original-URI", many("/", 9), "X-Forwarded-Uri", many("/x", 9)}, true},
		"thousands":           {[]string{"X-Original-URI", many("/", 4<<10), "X-Original-Method", many("M", 4<<10)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			got := asked(t, tc.headers...)
			if got.Malformed != tc.malformed || len(got.Lines) > 1+16*16 {
				t.Errorf("malformed: %v, %d lines", got.Malformed, len(got.Lines))
			}
		})
	}
}
