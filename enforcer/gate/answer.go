package gate

import (
	"net/http"

	"revocation-adapter/enforcer"
)

// Verdict is why a call passes or is refused. It is a label of metrics.
type Verdict string

// The verdicts. Three let a call pass.
const (
	Passed    Verdict = "passed"    // nothing is held against its tokens
	Public    Verdict = "public"    // it carries none, and need not
	Unclaimed Verdict = "unclaimed" // nobody answered its claim, which is allowed

	Missing    Verdict = "missing"     // it carries no token
	Malformed  Verdict = "malformed"   // something that should be a token cannot be read
	NotGenuine Verdict = "not_genuine" // a JWT is not verified
	Revoked    Verdict = "revoked"
	Expired    Verdict = "expired"
	Opaque     Verdict = "opaque"    // an opaque token, which is not accepted
	Used       Verdict = "used"      // a one-time token was used before
	Unusable   Verdict = "unusable"  // a token without jti, where it must be used up
	Stale      Verdict = "stale"     // it is not known whether a token is revoked
	Undecided  Verdict = "undecided" // there are no keys to verify a JWT
	NoClaim    Verdict = "no_claim"  // nobody answered its claim
)

// Verdicts returns all of them.
func Verdicts() []Verdict {
	return []Verdict{
		Passed, Public, Unclaimed, Missing, Malformed, NotGenuine, Revoked, Expired,
		Opaque, Used, Unusable, Stale, Undecided, NoClaim,
	}
}

// Pass says whether the call may go on.
func (v Verdict) Pass() bool { return v == Passed || v == Public || v == Unclaimed }

// passing says whether the reason may be gone at the next try.
func (v Verdict) passing() bool { return v == Stale || v == Undecided || v == NoClaim }

// verdictOf translates what the enforcer says. What it does not know is refused.
func verdictOf(v enforcer.Verdict) Verdict {
	switch v {
	case enforcer.Pass:
		return Passed
	case enforcer.Expired:
		return Expired
	case enforcer.Stale:
		return Stale
	case enforcer.Revoked:
	}
	return Revoked
}

// Header is one header of an Answer.
type Header struct{ Name, Value string }

// Answer is what the gateway is told. One that passes has status 200 and nothing
// else.
type Answer struct {
	Verdict Verdict
	Status  int
	Headers []Header
	Body    string
}

// The bodies, as clients of Choreo Connect know them.
const (
	invalidCredentials = `{"error_message":"Invalid Credentials","code":"900901","error_description":"Invalid JWT token. Make sure you have provided the correct security credentials"}`
	cannotTell         = `{"error_message":"Service Unavailable","code":"503","error_description":"It cannot be told now whether the token is valid. Try again later"}`
)

// retryAfter is when a client may try again what could not be told, in seconds.
const retryAfter = "2"

// answerOf is the answer of a verdict. What cannot be told is 503: with 401 a
// client would throw away a token that is good.
func answerOf(v Verdict) Answer {
	json := Header{"Content-Type", "application/json"}
	switch {
	case v.Pass():
		return Answer{Verdict: v, Status: http.StatusOK}
	case v.passing():
		return Answer{v, http.StatusServiceUnavailable, []Header{json, {"Retry-After", retryAfter}}, cannotTell}
	case v == Missing:
		return Answer{v, http.StatusUnauthorized, []Header{json, {"WWW-Authenticate", "Bearer"}}, invalidCredentials}
	}
	return Answer{v, http.StatusUnauthorized, []Header{json, {"WWW-Authenticate", `Bearer error="invalid_token"`}}, invalidCredentials}
}
