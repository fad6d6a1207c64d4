// Package issuers verifies JWTs with the keys of whoever has issued them.
//
// A key counts for its own issuer alone. A token of the past, or of the future, is
// genuine all the same: whether it still counts is asked elsewhere.
package issuers

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/sirupsen/logrus"

	"revocation-adapter/config/jwks"
	"revocation-adapter/config/process"
	"revocation-adapter/revocation"
)

// Issuer signs tokens.
type Issuer struct {
	Name        string // the claim iss
	Files, URLs []string
	TLS         *tls.Config // of the URLs; nil: the system's authorities
	Refresh     time.Duration
}

// Config says whose tokens are verified.
type Config struct {
	Issuers []Issuer
	Log     logrus.FieldLogger
	Now     func() time.Time
}

// Set verifies the tokens of all issuers. Any number of goroutines may use it.
type Set struct{ byName map[string]*jwks.Keys }

// New returns a Set that verifies nothing before Run.
func New(cfg Config) (*Set, error) {
	s := &Set{byName: map[string]*jwks.Keys{}}
	for _, i := range cfg.Issuers {
		keys, err := jwks.New(jwks.Config{
			Files: i.Files, URLs: i.URLs, TLS: i.TLS, Issuers: []string{i.Name},
			Refresh: i.Refresh, Log: cfg.Log.WithField("issuer", i.Name), Now: cfg.Now,
		})
		if err != nil {
			return nil, fmt.Errorf("issuer %q: %w", i.Name, err)
		}
		s.byName[i.Name] = keys
	}
	return s, nil
}

// Run reads the keys and goes on to, until ctx ends.
func (s *Set) Run(ctx context.Context) error {
	parts := []func(context.Context) error{func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}}
	for _, keys := range s.byName {
		parts = append(parts, keys.Run)
	}
	return process.Together(ctx, parts...)
}

// Failed is how many sources of keys could not be used when they were read last.
func (s *Set) Failed() (n int) {
	for _, keys := range s.byName {
		n += keys.Failed()
	}
	return n
}

// Claims are those of a token, by their exact names: "JTI" is not jti, and gateways
// compare the latter. One that has another type than it should counts as missing,
// for the token is genuine all the same.
type Claims struct {
	Issuer      string
	Subject     string
	Audience    jwt.ClaimStrings
	ID          string
	NotBefore   *jwt.NumericDate
	Exp         json.RawMessage
	IssuedAt    json.RawMessage
	AZP         string
	ClientID    string
	Scope       any // words in a string, or a list of them
	TokenType   string
	KeyType     string
	Username    string
	Application application

	all map[string]json.RawMessage // the whole payload
}

type application struct{ UUID string }

// UnmarshalJSON reads the payload of a token. A time of another type is an error:
// nobody knows then when the token is in force.
func (c *Claims) UnmarshalJSON(text []byte) error {
	if err := json.Unmarshal(text, &c.all); err != nil {
		return err
	}
	c.Exp, c.IssuedAt = c.all["exp"], c.all["iat"]
	for name, into := range map[string]any{"exp": new(*jwt.NumericDate), "nbf": &c.NotBefore} {
		if raw, said := c.all[name]; said && json.Unmarshal(raw, into) != nil {
			return fmt.Errorf("the claim %s is no time", name)
		}
	}
	var of map[string]json.RawMessage
	readClaims(c.all, map[string]any{
		"iss": &c.Issuer, "sub": &c.Subject, "aud": &c.Audience, "jti": &c.ID,
		"azp": &c.AZP, "client_id": &c.ClientID, "scope": &c.Scope, "token_type": &c.TokenType, "keytype": &c.KeyType,
		"username": &c.Username, "application": &of,
	})
	readClaims(of, map[string]any{"uuid": &c.Application.UUID})
	return nil
}

// readClaims fills in those of a type that fits.
func readClaims(from map[string]json.RawMessage, into map[string]any) {
	for name, claim := range into {
		if raw, said := from[name]; said {
			_ = json.Unmarshal(raw, claim) // as if it were missing
		}
	}
}

// Texts are the claims of these names that are texts and not empty.
func (c *Claims) Texts(names []string) map[string]string {
	texts := map[string]string{}
	for _, name := range names {
		var text string
		if json.Unmarshal(c.all[name], &text) == nil && text != "" {
			texts[name] = text
		}
	}
	return texts
}

// What package jwt asks of claims. When a token is in force is asked elsewhere.

// GetExpirationTime implements jwt.Claims.
func (c *Claims) GetExpirationTime() (*jwt.NumericDate, error) { return nil, nil } //nolint:nilnil // as the interface has it

// GetIssuedAt implements jwt.Claims.
func (c *Claims) GetIssuedAt() (*jwt.NumericDate, error) { return nil, nil } //nolint:nilnil // as the interface has it

// GetNotBefore implements jwt.Claims.
func (c *Claims) GetNotBefore() (*jwt.NumericDate, error) { return c.NotBefore, nil }

// GetIssuer implements jwt.Claims.
func (c *Claims) GetIssuer() (string, error) { return c.Issuer, nil }

// GetSubject implements jwt.Claims.
func (c *Claims) GetSubject() (string, error) { return c.Subject, nil }

// GetAudience implements jwt.Claims.
func (c *Claims) GetAudience() (jwt.ClaimStrings, error) { return c.Audience, nil }

// Client is whom the token was issued to, "" if it does not say.
func (c *Claims) Client() string {
	if c.AZP != "" {
		return c.AZP
	}
	return c.ClientID
}

// Scopes are the words of scope.
func (c *Claims) Scopes() (words []string) {
	switch scope := c.Scope.(type) {
	case string:
		return strings.Fields(scope)
	case []any:
		for _, word := range scope {
			if text, ok := word.(string); ok {
				words = append(words, text)
			}
		}
	}
	return words
}

// HasScope says whether scope is one of Scopes.
func (c *Claims) HasScope(scope string) bool { return slices.Contains(c.Scopes(), scope) }

// Expiry is when the token expires, as package revocation has it.
func (c *Claims) Expiry() (int64, revocation.Lifetime, error) {
	return revocation.ReadExpiry(c.Exp)
}

// IssuedBefore says whether the token was issued before a time in milliseconds
// since the epoch. What does not say when it was issued cannot be shown to be newer.
func (c *Claims) IssuedBefore(before int64) bool {
	var issued float64 // seconds
	if json.Unmarshal(c.IssuedAt, &issued) != nil {
		issued = 0
	}
	return float64(before) > issued*1000
}

// The reasons for which nothing is known of a token. Their texts quote nothing of
// it.
var (
	// ErrNotJWT means that it is no JWT at all.
	ErrNotJWT = errors.New("it is no JWT")
	// ErrUnknownIssuer means that it is of an issuer that is not configured.
	ErrUnknownIssuer = errors.New("its issuer is not configured")
	// ErrNotGenuine means that nobody who may has signed it.
	ErrNotGenuine = errors.New("it is not genuine")
	// ErrUndecided means that the keys of its issuer are out of reach.
	ErrUndecided = errors.New("the keys of its issuer cannot be read now")
)

// Read verifies a JWT and returns what it says. With ErrUnknownIssuer and
// ErrUndecided the claims are returned too, unverified.
func (s *Set) Read(ctx context.Context, raw string) (*Claims, error) {
	keys := s.byName[issuerOf(raw)]
	if keys == nil {
		unverified, err := Parse(raw)
		if err == nil {
			err = ErrUnknownIssuer
		}
		return unverified, err
	}
	verified := &Claims{}
	err := keys.Read(ctx, raw, verified)
	switch {
	case err == nil:
		return verified, nil
	case !errors.Is(err, jwks.ErrUndecided):
		return nil, fmt.Errorf("%w: %w", ErrNotGenuine, err)
	}
	unverified, other := Parse(raw)
	if other != nil {
		return nil, other
	}
	return unverified, fmt.Errorf("%w: %w", ErrUndecided, err)
}

// issuerOf is the claim iss of what looks like a JWT, "" of anything else. It is
// read before everything else is: the whole is parsed once.
func issuerOf(raw string) string {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	var claims map[string]json.RawMessage
	var issuer string
	if err != nil || json.Unmarshal(payload, &claims) != nil || json.Unmarshal(claims["iss"], &issuer) != nil {
		return ""
	}
	return issuer
}

// Parse reads a JWT without looking at its signature. One that is not signed at
// all is not genuine, whoever shows it.
func Parse(raw string) (*Claims, error) {
	if strings.Count(raw, ".") != 2 {
		return nil, ErrNotJWT
	}
	claims := &Claims{}
	token, parts, err := jwt.NewParser(jwt.WithPaddingAllowed()).ParseUnverified(raw, claims)
	switch {
	case err != nil && (token == nil || token.Header == nil):
		return nil, ErrNotJWT
	case err != nil:
		return nil, fmt.Errorf("%w: its algorithm is not known, or its claims cannot be read", ErrNotGenuine)
	case token.Method.Alg() == "none" || strings.Trim(parts[2], "=") == "":
		return nil, fmt.Errorf("%w: it is not signed", ErrNotGenuine)
	}
	return claims, nil
}
