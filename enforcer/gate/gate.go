// Package gate decides on one call: it finds every token that the call carries,
// has each verified and looked up, and uses up those that are for one time.
//
// A call passes if nothing is held against any of its tokens. Whatever cannot be
// read, verified or told is held against it. Nothing is used up for a call that is
// refused for another reason. The package does no I/O and knows neither gRPC nor
// HTTP.
package gate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"revocation-adapter/enforcer"
)

// Enforcer is what is asked about tokens: *enforcer.Enforcer.
type Enforcer interface {
	// Parse reads a token as it came.
	Parse(raw string) (enforcer.Token, error)
	Check(t enforcer.Token) enforcer.Decision
	Claim(ctx context.Context, t enforcer.Token) (enforcer.Decision, error)
}

// Verifier says whether a JWT is genuine: nil, or why not. An error that wraps
// ErrUndecided means that nobody can tell now.
type Verifier interface {
	Verify(ctx context.Context, raw string) error
}

// ErrUndecided means that a token can be neither verified nor refuted.
var ErrUndecided = errors.New("the token cannot be verified now")

// Policy is what becomes of a call.
type Policy bool

// The policies.
const (
	Refuse Policy = false
	Admit  Policy = true
)

// Config says how calls are decided.
type Config struct {
	Enforcer Enforcer
	Verifier Verifier // nil: the gateway verifies JWTs before it asks

	Places  Places
	Missing Policy // of a call without a token
	Opaque  Policy // of an opaque token that is not revoked

	OneTime      []Route
	Unreachable  Policy        // of a call whose claim nobody answers
	ClaimTimeout time.Duration // of all claims of a call
}

// Gate decides on calls. Any number of goroutines may use it.
type Gate struct {
	cfg    Config
	routes []route
}

// New checks cfg.
func New(cfg Config) (*Gate, error) {
	if cfg.Enforcer == nil {
		return nil, errors.New("a gate needs an enforcer to ask")
	}
	if len(cfg.OneTime) > 0 && cfg.ClaimTimeout <= 0 {
		return nil, errors.New("one-time routes need a timeout for claims")
	}
	g := &Gate{cfg: cfg}
	for _, r := range cfg.OneTime {
		compiled, err := r.compile()
		if err != nil {
			return nil, fmt.Errorf("one-time route %q: %w", r.Path, err)
		}
		g.routes = append(g.routes, compiled)
	}
	g.cfg.Places = cfg.Places.canonical()
	return g, nil
}

// Request is one call.
type Request struct {
	// Lines are what the call may be for: one where the gateway's word can be
	// taken for it, more where it is in doubt. Without one it may be anything.
	Lines []Line
	// Header returns all values of a header by its name in lower case, as Headers
	// does.
	Header func(name string) []string
	// Malformed refuses the call: what was told of it cannot be made sense of.
	Malformed bool
}

// Line is a method, "" for any, and a target: a path with its query, as it came.
type Line struct{ Method, Target string }

// credential is one token of a call.
type credential struct {
	raw   string
	token enforcer.Token
}

// Decide answers a call. ctx bounds claims alone.
func (g *Gate) Decide(ctx context.Context, r Request) Answer {
	tokens, err := g.cfg.Places.find(r)
	if err != nil || r.Malformed {
		return answerOf(Malformed)
	}
	if len(tokens) == 0 {
		return g.without()
	}
	credentials, verdict := g.examine(ctx, tokens)
	if verdict != Passed {
		return answerOf(verdict)
	}
	return answerOf(g.useUp(ctx, r, credentials))
}

// without answers a call that carries no token.
func (g *Gate) without() Answer {
	if g.cfg.Missing == Admit {
		return answerOf(Public)
	}
	return answerOf(Missing)
}

// examine looks at every token. Of several faults, one that is sure comes before
// one that may pass.
func (g *Gate) examine(ctx context.Context, tokens []string) ([]credential, Verdict) {
	worst := Passed
	credentials := make([]credential, 0, len(tokens))
	for _, raw := range tokens {
		token, verdict := g.one(ctx, raw)
		switch {
		case verdict == Passed:
			credentials = append(credentials, credential{raw, token})
		case worst == Passed || worst.passing() && !verdict.passing():
			worst = verdict
		}
	}
	return credentials, worst
}

// one says what is held against a token. What is revoked is told of before it is
// verified: then neither the keys nor the time to compute can be in the way.
func (g *Gate) one(ctx context.Context, raw string) (enforcer.Token, Verdict) {
	token, err := g.cfg.Enforcer.Parse(raw)
	if err != nil {
		return token, Malformed
	}
	verdict := verdictOf(g.cfg.Enforcer.Check(token).Verdict)
	switch {
	case verdict != Passed && !verdict.passing():
		return token, verdict
	case token.Opaque != "" && !g.mayBeJWT(raw):
		if g.cfg.Opaque == Refuse {
			verdict = Opaque
		}
	default:
		if genuine := g.verify(ctx, raw); genuine != Passed {
			return token, genuine
		}
	}
	return token, verdict
}

// mayBeJWT says whether somebody may take an opaque token for a JWT, and rely on us
// to have verified it: three segments are refused unless they are genuine.
func (g *Gate) mayBeJWT(raw string) bool {
	return g.cfg.Verifier != nil && strings.Count(raw, ".") == 2
}

func (g *Gate) verify(ctx context.Context, raw string) Verdict {
	if g.cfg.Verifier == nil {
		return Passed
	}
	switch err := g.cfg.Verifier.Verify(ctx, raw); {
	case err == nil:
		return Passed
	case errors.Is(err, ErrUndecided):
		return Undecided
	}
	return NotGenuine
}
