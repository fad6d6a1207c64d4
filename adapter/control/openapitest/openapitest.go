// Package openapitest holds what the control port answers to its OpenAPI
// document. A test gives it every exchange, and fails where either side of one
// is not as the document says.
//
// A request that the document does not allow must not be answered with success;
// what the server refuses may be wrong on purpose. An answer must have a status,
// headers and a body that the document names, and no member more: clients may
// ignore what they do not know, but nothing leaves the server undescribed.
package openapitest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

// Document is an OpenAPI document to which exchanges are held.
type Document struct {
	doc    *openapi3.T
	router routers.Router
}

// Parse reads a document of OpenAPI 3.1 and validates it, its examples too.
func Parse(text []byte) (*Document, error) {
	loader := openapi3.NewLoader()
	doc, err := loader.LoadFromData(text)
	if err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	closeObjects(doc)
	if err := doc.Validate(loader.Context, openapi3.EnableExamplesValidation()); err != nil {
		return nil, fmt.Errorf("validate the OpenAPI document: %w", err)
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		return nil, fmt.Errorf("read the paths of the OpenAPI document: %w", err)
	}
	return &Document{doc, router}, nil
}

// Check fails the test if an exchange is not as the document says. The answer's
// body can be read again afterwards. The request's is taken from GetBody, which
// http.NewRequest sets.
func (d *Document) Check(tb testing.TB, req *http.Request, resp *http.Response) {
	tb.Helper()
	if err := d.Exchange(req, resp); err != nil {
		tb.Errorf("%s %s: %v", req.Method, req.URL.Path, err)
	}
}

// Exchange says what of an exchange is not as the document says.
func (d *Document) Exchange(req *http.Request, resp *http.Response) error {
	route, params, err := d.router.FindRoute(req)
	if err != nil && (resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed) {
		return nil // neither has it
	}
	if err != nil {
		return fmt.Errorf("the document has no such operation: %w", err)
	}
	copied, err := again(req)
	if err != nil {
		return err
	}
	input := &openapi3filter.RequestValidationInput{
		Request: copied, PathParams: params, Route: route, Options: options(),
	}
	return errors.Join(checkRequest(input, resp.StatusCode), checkResponse(input, resp))
}

// options are strict; credentials are the server's to judge.
func options() *openapi3filter.Options {
	return &openapi3filter.Options{
		IncludeResponseStatus: true, RejectWhenRequestBodyNotSpecified: true, MultiError: true,
		SkipSettingDefaults: true, AuthenticationFunc: openapi3filter.NoopAuthenticationFunc,
	}
}

// again is the request with its body unread.
func again(req *http.Request) (*http.Request, error) {
	copied := req.Clone(req.Context())
	if req.GetBody == nil {
		copied.Body = http.NoBody
		return copied, nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, fmt.Errorf("read the request's body again: %w", err)
	}
	copied.Body = body
	return copied, nil
}

// checkRequest holds against the server that it accepted what the document does
// not allow.
func checkRequest(input *openapi3filter.RequestValidationInput, status int) error {
	if status >= http.StatusBadRequest {
		return nil
	}
	if err := openapi3filter.ValidateRequest(input.Request.Context(), input); err != nil {
		return fmt.Errorf("it is answered with %d, though the document does not allow the request: %w", status, err)
	}
	return nil
}

func checkResponse(input *openapi3filter.RequestValidationInput, resp *http.Response) error {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	described := describedResponse(input.Route.Operation, resp.StatusCode)
	answer := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: resp.StatusCode, Header: resp.Header,
		Body: io.NopCloser(bytes.NewReader(body)), Options: options(),
	}
	answer.Options.ExcludeResponseBody = len(body) == 0 && mayBeEmpty(described)
	if err := openapi3filter.ValidateResponse(input.Request.Context(), answer); err != nil {
		return fmt.Errorf("status %d: %w", resp.StatusCode, err)
	}
	return undescribed(described, resp, body)
}

// describedResponse is nil where the document does not name the status.
func describedResponse(op *openapi3.Operation, status int) *openapi3.Response {
	for _, ref := range []*openapi3.ResponseRef{op.Responses.Status(status), op.Responses.Default()} {
		if ref != nil {
			return ref.Value
		}
	}
	return nil
}

// emptyBody marks an answer that may have a body, or none: OpenAPI cannot say so.
const emptyBody = "x-empty"

func mayBeEmpty(described *openapi3.Response) bool {
	return described != nil && described.Extensions[emptyBody] == true
}

// undescribed says what an answer has that the document does not name.
func undescribed(described *openapi3.Response, resp *http.Response, body []byte) error {
	if len(described.Content) == 0 && len(body) > 0 {
		return fmt.Errorf("status %d: it has a body, which the document does not", resp.StatusCode)
	}
	for name := range resp.Header {
		if !slices.Contains(everywhere(), name) && !hasHeader(described.Headers, name) {
			return fmt.Errorf("status %d: the document does not name the header %s", resp.StatusCode, name)
		}
	}
	return nil
}

func hasHeader(headers openapi3.Headers, name string) bool {
	for described := range headers {
		if strings.EqualFold(described, name) {
			return true
		}
	}
	return false
}

// everywhere are headers of HTTP itself, and those that guard every answer.
func everywhere() []string {
	return []string{
		"Allow", "Cache-Control", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Date", "Etag", "Pragma",
		"Transfer-Encoding", "Vary", "Content-Security-Policy", "Referrer-Policy", "X-Content-Type-Options", "X-Frame-Options",
		"X-Xss-Protection", "Strict-Transport-Security", "Cross-Origin-Opener-Policy", "Cross-Origin-Resource-Policy",
	}
}

// Operations are the statuses that each operation may answer with, by its method
// and path.
func (d *Document) Operations() map[string][]string {
	all := map[string][]string{}
	for path, item := range d.doc.Paths.Map() {
		for method, op := range item.Operations() {
			all[method+" "+path] = slices.Sorted(maps.Keys(op.Responses.Map()))
		}
	}
	return all
}
