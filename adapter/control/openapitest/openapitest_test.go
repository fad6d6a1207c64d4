package openapitest_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"revocation-adapter/adapter/control"
	"revocation-adapter/adapter/control/openapitest"
)

const (
	form    = "application/x-www-form-urlencoded"
	asJSON  = "application/json"
	problem = "application/problem+json"
)

// exchange is a request and its answer.
type exchange struct {
	operation       string // method and path
	requestType     string
	request         string
	status          int
	headers         map[string]string
	answerType, got string
}

func (e exchange) of(t *testing.T, d *openapitest.Document) error {
	t.Helper()
	method, path, _ := strings.Cut(e.operation, " ")
	req, err := http.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:9843"+path, strings.NewReader(e.request))
	if err != nil {
		t.Fatal(err)
	}
	if e.requestType != "" {
		req.Header.Set("Content-Type", e.requestType)
	}
	resp := &http.Response{StatusCode: e.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(e.got))}
	for name, value := range e.headers {
		resp.Header.Set(name, value)
	}
	if e.answerType != "" {
		resp.Header.Set("Content-Type", e.answerType)
	}
	err = d.Exchange(req, resp)
	if left, readErr := io.ReadAll(resp.Body); readErr != nil || string(left) != e.got {
		t.Errorf("the answer cannot be read again: %q, %v", left, readErr)
	}
	return err
}

func document(t *testing.T) *openapitest.Document {
	t.Helper()
	d, err := openapitest.Parse(control.OpenAPI())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const (
	counts  = `{"version":7,"gateways":{"enforced":1,"pending":0,"unreachable":2,"not_concerned":0,"cannot":0},"took_ms":3}`
	names   = `{"version":7,"gateways":{"enforced":1,"pending":[],"unreachable":["gw-7"],"not_concerned":0,"cannot":0},"took_ms":3}`
	stored  = `{"version":7,"event_id":"e","new":1,"already":0,"expired":0,"took_ms":3}`
	tokens  = `{"tokens":[{"jti":"a","expires_at":"2031-02-06T20:17:01Z"}]}`
	refused = `{"type":"about:blank","title":"Bad Request","status":400,"detail":"no"}`
)

func TestOpenAPIExchanges(t *testing.T) {
	d := document(t)
	for name, e := range map[string]exchange{
		"an empty answer":         {"POST /oauth2/revoke", form, "token=a", 200, map[string]string{"Revocation-Effect": "revoked"}, "", ""},
		"a field to be ignored":   {"POST /oauth2/revoke", form, "token=a&other=b", 200, nil, "", ""},
		"a receipt with counts":   {"POST /oauth2/revoke", form, "token=a&cascade=true", 200, map[string]string{"Preference-Applied": "wait=5"}, asJSON, counts},
		"a receipt with names":    {"POST /oauth2/revoke", form, "token=a", 200, nil, asJSON, names},
		"an effect with a reason": {"POST /oauth2/approve", form, "claim=sub&value=alice", 200, map[string]string{"Revocation-Effect": `none; reason="expired"`}, "", ""},
		"an OAuth error":          {"POST /oauth2/revoke", form, "", 400, nil, asJSON, `{"error":"invalid_request","error_description":"token is missing"}`},
		"introspection":           {"POST /oauth2/introspect", form, "token=a", 200, nil, asJSON, `{"active":true,"aud":["a"],"azp":"client-1"}`},
		"many":                    {"POST /revocations", asJSON, tokens, 200, nil, asJSON, stored},
		"a dry run":               {"POST /revocations", asJSON, `{"rules":[{"claim":"sub","value":"alice","issued_before":1790000000000}],"dry_run":true}`, 200, nil, asJSON, `{"new":1,"already":0,"expired":0,"unknown_to_grants":0,"gateways_concerned":2}`},
		"a problem":               {"POST /revocations", asJSON, `{"tokens":[{}]}`, 400, nil, problem, refused},
		"a grant":                 {"POST /grants", asJSON, `{"access_token":"a","client_id":"c","refresh_token":"b","expires_at":1928175421000}`, 201, nil, "", ""},
		"a key with a slash":      {"GET /revocations/a%2Fb", "", "", 200, nil, asJSON, `{"key":"a/b","domain":"token","state":"none"}`},
		"an API key":              {"POST /api/am/devportal/v3/applications/x/api-keys/PRODUCTION/revoke", asJSON, `{"apikey":"x"}`, 200, nil, "", ""},
		"a dead letter is gone":   {"DELETE /deadletters/7", "", "", 204, nil, "", ""},
		"no such path":            {"GET /nowhere", "", "", 404, nil, "text/plain", "404"},
		"no such method":          {"PUT /grants", "", "", 405, nil, "text/plain", "405"},
	} {
		if err := e.of(t, d); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenAPIExchangesThatAreWrong(t *testing.T) {
	d := document(t)
	for name, tt := range map[string]struct {
		exchange
		want string
	}{
		"a request without a token is accepted":    {exchange{"POST /oauth2/revoke", form, "token_type_hint=x", 200, nil, "", ""}, "does not allow the request"},
		"a token and a claim":                      {exchange{"POST /oauth2/approve", form, "token=a&claim=sub&value=alice", 200, nil, "", ""}, "does not allow the request"},
		"two names of one token are accepted":      {exchange{"POST /revocations", asJSON, `{"tokens":[{"jti":"a","token":"b"}]}`, 200, nil, asJSON, stored}, "does not allow the request"},
		"an unknown state is accepted":             {exchange{"POST /revocations", asJSON, `{"tokens":[{"jti":"a"}],"state":"maybe"}`, 200, nil, asJSON, stored}, "does not allow the request"},
		"an unknown member is accepted":            {exchange{"POST /revocations", asJSON, `{"tokens":[{"jti":"a"}],"dryrun":true}`, 200, nil, asJSON, stored}, "does not allow the request"},
		"nothing to do is accepted":                {exchange{"POST /revocations", asJSON, `{"state":"revoked"}`, 200, nil, asJSON, stored}, "does not allow the request"},
		"a body of another type is accepted":       {exchange{"POST /revocations", form, tokens, 200, nil, asJSON, stored}, "does not allow the request"},
		"a number that is none is accepted":        {exchange{"DELETE /deadletters/x", "", "", 204, nil, "", ""}, "does not allow the request"},
		"no limit is accepted":                     {exchange{"GET /audit?limit=0", "", "", 200, nil, asJSON, `{"entries":[]}`}, "does not allow the request"},
		"a member is missing":                      {exchange{"POST /revocations", asJSON, tokens, 200, nil, asJSON, `{"version":7}`}, "doesn't match schema"},
		"a member is not described":                {exchange{"POST /revocations", asJSON, tokens, 200, nil, asJSON, strings.Replace(stored, "{", `{"secret":1,`, 1)}, "doesn't match schema"},
		"a member deep inside is not described":    {exchange{"GET /gateways", "", "", 200, nil, asJSON, `{"replicas":[],"gateways":[{"name":"a","address":"b","replica":"c","protocols":[],"version":1,"lag":0,"since":"2026-11-20T12:51:47Z","nacks":0,"connected":true,"more":1}]}`}, "doesn't match schema"},
		"a version that is text":                   {exchange{"POST /revocations", asJSON, tokens, 200, nil, asJSON, strings.Replace(stored, "7", `"7"`, 1)}, "doesn't match schema"},
		"a time that is none":                      {exchange{"GET /deadletters", "", "", 200, nil, asJSON, `{"dead_letters":[{"sequence":1,"time":"today","subject":"s","reason":"r"}]}`}, "doesn't match schema"},
		"a status that is not described":           {exchange{"POST /grants", asJSON, `{"access_token":"a","client_id":"c"}`, 202, nil, "", ""}, "status is not supported"},
		"a body that is not described":             {exchange{"DELETE /deadletters/7", "", "", 204, nil, "text/plain", "gone"}, "it has a body"},
		"an empty body where there must be one":    {exchange{"GET /gateways", "", "", 200, nil, asJSON, ""}, "body"},
		"a header that is not described":           {exchange{"POST /oauth2/revoke", form, "token=a", 200, map[string]string{"X-Token": "a"}, "", ""}, "X-Token"},
		"an effect that is none":                   {exchange{"POST /oauth2/revoke", form, "token=a", 200, map[string]string{"Revocation-Effect": "done"}, "", ""}, "Revocation-Effect"},
		"503 without Retry-After":                  {exchange{"POST /grants", asJSON, `{"access_token":"a","client_id":"c"}`, 503, nil, problem, strings.Replace(refused, "400", "503", 1)}, "Retry-After"},
		"a problem where OAuth has its own errors": {exchange{"POST /oauth2/revoke", form, "", 400, nil, problem, refused}, "Content-Type"},
		"an OAuth error where problems are told":   {exchange{"POST /grants", asJSON, "{}", 400, nil, asJSON, `{"error":"invalid_request"}`}, "Content-Type"},
		"a path that is not described":             {exchange{"GET /secrets", "", "", 200, nil, asJSON, "{}"}, "no such operation"},
		"a method that is not described":           {exchange{"PUT /grants", "", "", 200, nil, "", ""}, "no such operation"},
	} {
		if err := tt.of(t, d); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

func TestOpenAPIDocumentsThatAreWrong(t *testing.T) {
	for name, text := range map[string]string{
		"no YAML":          "a: [",
		"no version":       "info: {title: x, version: '1'}\npaths: {}",
		"a wrong example":  strings.Replace(string(control.OpenAPI()), "active: true, client_id", "active: maybe, client_id", 1),
		"a missing schema": strings.Replace(string(control.OpenAPI()), `schemas/Grant"`, `schemas/Grand"`, 1),
	} {
		if _, err := openapitest.Parse([]byte(text)); err == nil {
			t.Errorf("%s is valid", name)
		}
	}
}
