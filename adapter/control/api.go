package control

import (
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"

	"revocation-adapter/adapter/clients"
	"revocation-adapter/adapter/issuers"
	"revocation-adapter/adapter/receipts"
	"revocation-adapter/config"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// Core is what the control API does its work with. It is there once the hub is
// open.
type Core struct {
	Hub       *messaging.Hub
	Decisions *messaging.Decisions
	Grants    *messaging.Grants
	Audit     *messaging.Audit
	Answers   *messaging.Answers
	Receipts  *receipts.Receipts
}

// API says whom the control API serves, and how.
type API struct {
	Core        func() *Core // nil: the hub is not open yet
	Clients     *clients.Registry
	Issuers     *issuers.Set
	Revocations *revocation.Log
	Rules       messaging.Rules
	Grace       time.Duration // added to every expiry that is acted on
	UnknownLife time.Duration // how long what has no known expiry is kept

	AllowQueryCredentials bool

	// Session is the client of a request that carries a session in place of
	// credentials.
	Session func(*http.Request) (client string, ok bool)
	Replica string // what this one is called
	Metrics prometheus.Registerer
	Log     logrus.FieldLogger
	Now     func() time.Time
}

// ruleClaims are those that a rule may be on, each once.
func (a API) ruleClaims() []string {
	all := append([]string{a.Rules.ClientClaim, a.Rules.UserClaim}, a.Rules.Claims...)
	slices.Sort(all)
	return slices.Compact(all)
}

// api serves API.
type api struct {
	cfg       API
	strangers *rate.Limiter // how many refusals of callers who are not known are audited
	leftOut   rate.Sometimes
	unserved  rate.Sometimes // bounds the lines about calls of theirs that fail

	crossOrigin *http.CrossOriginProtection
}

func newAPI(cfg API) *api {
	return &api{
		cfg: cfg, strangers: rate.NewLimiter(strangersPerSecond, strangersAtOnce), leftOut: rate.Sometimes{Interval: time.Minute},
		unserved:    rate.Sometimes{Interval: 10 * time.Second},
		crossOrigin: http.NewCrossOriginProtection(),
	}
}

// How many refusals of callers who are not known are audited: what somebody without
// rights sends must not push the entries of others out of the audit.
const (
	strangersPerSecond = 1
	strangersAtOnce    = 200
)

// routes are the endpoints of the control API, by their patterns.
func (a *api) routes() map[string]http.Handler {
	operator := []string{config.RoleOperator}
	all := map[string]endpoint{
		"POST /oauth2/revoke": {
			action: "revoke", form: true, writes: true, do: (*call).revokeToken,
			roles: []string{config.RoleRevoke, config.RoleRevokeAny},
		},
		"POST /oauth2/approve":    {action: "approve", form: true, writes: true, do: (*call).approveToken, roles: []string{config.RoleApprove}},
		"POST /oauth2/introspect": {action: "introspect", form: true, do: (*call).introspectToken},
		"POST /grants":            {action: "grant", writes: true, do: (*call).addGrant, roles: []string{config.RoleGrants}},
		"POST /revocations": {
			action: "revoke_list", writes: true, do: (*call).revokeList,
			roles: []string{config.RoleRevokeAny, config.RoleApprove},
		},
		"POST /revocations/explain":           {action: "explain", do: (*call).explainPosted, roles: operator},
		"GET /revocations/{key...}":           {action: "explain", do: (*call).explainPath, roles: operator},
		"GET /gateways":                       {action: "gateways", do: (*call).listGateways, roles: operator},
		"GET /audit":                          {action: "audit", do: (*call).listAudit, roles: operator},
		"GET /deadletters":                    {action: "deadletters", do: (*call).listLetters, roles: operator},
		"GET /deadletters/{sequence}":         {action: "deadletter", do: (*call).showLetter, roles: operator},
		"POST /deadletters/{sequence}/replay": {action: "replay", writes: true, do: (*call).replayLetter, roles: operator},
		"DELETE /deadletters/{sequence}":      {action: "remove_deadletter", writes: true, do: (*call).removeLetter, roles: operator},
	}
	m := newMeasures(a.cfg.Metrics)
	handlers := map[string]http.Handler{"POST " + pathAPIKey: m.measured(revokeAPIKey, a.serveAPIKey)}
	for pattern, e := range all {
		handlers[pattern] = m.measured(e.action, a.serve(e))
	}
	return handlers
}

// guarded sets what every answer carries.
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Pragma", "no-cache")
		h.Set("X-Frame-Options", "DENY")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-XSS-Protection", "1; mode=block")
		next.ServeHTTP(w, r)
	})
}
