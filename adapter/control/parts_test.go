package control_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/crypto/bcrypt"

	"revocation-adapter/adapter/clients"
	"revocation-adapter/adapter/control"
	"revocation-adapter/adapter/issuers"
	"revocation-adapter/integration/stack"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// client is one more client of a plane; its limit is in requests per second.
func client(id, role string, limit ...int) func(hash string) clients.Entry {
	return func(hash string) clients.Entry {
		e := clients.Entry{ID: id, SecretHash: hash, Roles: []string{role}}
		for _, n := range limit {
			e.RequestsPerSecond = n
		}
		return e
	}
}

// known adds clients to those of a plane.
func known(more ...func(hash string) clients.Entry) func(*clients.Config) {
	return func(c *clients.Config) {
		hash, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
		if err != nil {
			panic(err) // only with a cost that is none
		}
		for _, one := range more {
			c.Clients = append(c.Clients, one(string(hash)))
		}
	}
}

func allowQuery(a *control.API) { a.AllowQueryCredentials = true }

// sessionOf has every request without credentials carry a session of a client.
func sessionOf(id string) func(*control.API) {
	return func(a *control.API) {
		a.Session = func(*http.Request) (string, bool) { return id, true }
	}
}

// keysAt has the keys of every issuer read from a URL.
func keysAt(url string) func(*issuers.Config) {
	return func(c *issuers.Config) {
		for i := range c.Issuers {
			c.Issuers[i].Files, c.Issuers[i].URLs = nil, []string{url}
		}
	}
}

func newIssuer(t *testing.T, keyID string) *stack.Issuer {
	t.Helper()
	i, err := stack.NewIssuer(keyID)
	fatal(t, err)
	return i
}

// unsigned is a token with "alg": "none".
func unsigned(t *testing.T, issuer, jti string) string {
	t.Helper()
	raw, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{
		"iss": issuer, "azp": owner, "jti": jti, "exp": time.Now().Add(time.Hour).Unix(),
	}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	fatal(t, err)
	return raw
}

// publish publishes an event, as somebody with the hub's credentials does.
func (p *plane) publish(subject string, payload map[string]any) {
	p.t.Helper()
	data, err := json.Marshal(map[string]any{"event": map[string]any{"payloadData": payload}})
	fatal(p.t, err)
	js, err := jetstream.New(p.hub.Conn())
	fatal(p.t, err)
	_, err = js.Publish(p.t.Context(), subject, data)
	fatal(p.t, err)
}

// use uses a one-time token up.
func (p *plane) use(jti string) {
	p.t.Helper()
	claim := revocation.TokenClaim{ID: "0123456789abcdef", Key: jti, Kind: revocation.KindJWT, Expiry: time.Now().Add(time.Hour).UnixMilli()}
	for _, o := range messaging.NewWriter(p.hub, p.log).Put(p.t.Context(), claim.Use(time.Now())) {
		fatal(p.t, o.Err)
	}
}
