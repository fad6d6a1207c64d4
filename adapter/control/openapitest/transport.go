package openapitest

import (
	"bytes"
	"io"
	"net/http"
	"testing"
)

// Transport checks every exchange of an http.Client, over base.
func (d *Document) Transport(tb testing.TB, base http.RoundTripper) http.RoundTripper {
	tb.Helper()
	return &transport{tb: tb, document: d, base: base}
}

type transport struct {
	tb       testing.TB
	document *Document
	base     http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (c *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	c.tb.Helper()
	sent, err := keepBody(req)
	if err != nil {
		return nil, err
	}
	resp, err := c.base.RoundTrip(sent)
	if err == nil {
		c.document.Check(c.tb, sent, resp)
	}
	return resp, err
}

// keepBody is the request, with a body that can be read again.
func keepBody(req *http.Request) (*http.Request, error) {
	if req.Body == nil || req.Body == http.NoBody || req.GetBody != nil {
		return req, nil
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	_ = req.Body.Close() // read to its end
	kept := req.Clone(req.Context())
	kept.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	kept.Body, err = kept.GetBody()
	return kept, err
}
