package messaging

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"time"

	"revocation-adapter/revocation"
)

// The types of a token event that name a token. A blank one is TypeDefault.
const (
	TypeJWT     = "JWT"
	TypeAPIKey  = "API_KEY"
	TypeDefault = "Default" // an opaque token
)

// StatusRevoked is the only status that tokenRevocation may carry.
const (
	StatusRevoked  = "revoked"
	StatusApproved = "approved"
)

// Event is one event as its publisher wrote it, normalised but not yet dated.
type Event struct {
	ID       string
	Type     string // as written; TypeDefault where it was blank
	Domain   revocation.Domain
	Kind     revocation.Kind
	Key      string // empty where Domain.Secret
	Digest   revocation.Digest
	Expiry   int64 // milliseconds since the epoch; 0 where Lifetime is Unknown
	Lifetime revocation.Lifetime
	Tenant   string
	Before   int64 // of a rule: what was issued before is revoked, milliseconds since the epoch
	Happened int64 // when its publisher says that it did, milliseconds since the epoch; 0: when it came
}

// Call is what one message says: one event, or many.
type Call struct {
	Type   string // as written; TypeDefault where it was blank
	Events []Event
	Reload bool // there are none: everything should be read again
}

// ErrEvent means that an event cannot be understood. No error that wraps it
// quotes a token.
var ErrEvent = errors.New("the event is not understood")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrEvent, fmt.Sprintf(format, args...))
}

// Bounds of what an event may carry, in bytes.
const (
	maxEventID = revocation.MaxEventID
	MaxTenant  = 128 // its name
)

// DecodeEvent reads the envelope that the control plane publishes:
//
//	{"event":{"payloadData":{"eventId":…,"revokedToken":…,"expiryTime":…,"type":…,"tenantId":…}}}
//
// Names are exact, numbers may be JSON numbers or strings of digits, unknown
// fields are ignored. Status is what the field of that name may say besides
// being absent.
func DecodeEvent(data []byte, status string, rules Rules) (Call, error) {
	p, err := payloadOf(data)
	if err != nil {
		return Call{}, err
	}
	switch got, err := p.text("status", 0); {
	case err != nil:
		return Call{}, err
	case got != "" && got != status:
		return Call{}, malformed("its status is not %q", status)
	}
	e, err := readCommon(p)
	if err != nil {
		return Call{}, err
	}
	switch strings.ToLower(e.Type) {
	case TypeBatch:
		return e.batch(p, status)
	case TypeConsumerApp, TypeSubjectEntity, TypeClaimRule:
		e, err = rules.read(e, p, status)
	default:
		err = e.readToken(p)
	}
	if err != nil {
		return Call{}, err
	}
	return Call{Type: e.Type, Events: []Event{e}}, nil
}

// readCommon reads what events of every type have.
func readCommon(p payload) (e Event, err error) {
	if e.ID, err = p.text("eventId", maxEventID); err != nil {
		return e, err
	}
	if revocation.IsClaim(e.ID) {
		e.ID = "" // nobody but who claims may name a claim; the event counts
	}
	if e.Tenant, err = p.text("tenantId", MaxTenant); err != nil {
		return e, err
	}
	if e.Tenant == "" {
		if e.Tenant, err = p.text("organization", MaxTenant); err != nil {
			return e, err
		}
	}
	if e.Expiry, e.Lifetime, err = p.expiry(); err != nil {
		return e, err
	}
	e.Type, err = p.text("type", 0)
	return e, err
}

// readToken sets what the token is, by the event's type.
func (e *Event) readToken(p payload) error {
	token, err := p.text("revokedToken", 0)
	if err != nil {
		return err
	}
	return e.setToken(token)
}

// setToken takes a token as the type says.
func (e *Event) setToken(token string) error {
	if token == "" {
		return malformed("revokedToken is missing")
	}
	switch strings.ToUpper(e.Type) {
	case TypeJWT:
		return e.setID(token, revocation.KindJWT)
	case TypeAPIKey:
		return e.setID(token, revocation.KindAPIKey)
	case "":
		e.Type = TypeDefault
		fallthrough
	case "DEFAULT", "OAUTH2":
		e.Domain = revocation.DomainOpaque
		e.Digest = OpaqueDigest(token)
		return nil
	}
	return malformed("its type is none that this version handles")
}

// setID takes the jti, or reads it from a whole JWT, of which nothing else is
// kept. The later expiry counts, the event's or the token's own.
func (e *Event) setID(token string, kind revocation.Kind) error {
	if claims, err := revocation.ReadJWT(token); err == nil {
		token = claims.ID
		e.Expiry, e.Lifetime = max(e.Expiry, claims.Expiry), claims.Lifetime
	} else if !errors.Is(err, revocation.ErrNotJWT) {
		return malformed("revokedToken: %v", err)
	}
	if wholeJWT(token) {
		return malformed("revokedToken: %v", revocation.ErrNotJWT)
	}
	if err := revocation.CheckKey(token); err != nil {
		return malformed("revokedToken: %v", err)
	}
	e.Domain, e.Kind, e.Key = revocation.DomainToken, kind, token
	e.Digest = revocation.DigestOf(revocation.DomainToken, token)
	return nil
}

// wholeJWT says whether a key looks like a whole JWT or JWE: what could not be
// read of one would be kept and served, and may be a secret.
func wholeJWT(key string) bool {
	return strings.HasPrefix(strings.TrimSpace(key), "eyJ") && strings.Count(key, ".") >= 2
}

// OpaqueDigest is the digest of an opaque token, which may also be given by the
// name under which it is served: NamePrefix and the digest.
func OpaqueDigest(token string) revocation.Digest {
	return secretDigest(revocation.DomainOpaque, token)
}

func secretDigest(domain revocation.Domain, token string) revocation.Digest {
	if text, ok := strings.CutPrefix(token, revocation.NamePrefix); ok {
		if d, err := revocation.ParseDigest(text); err == nil {
			return d
		}
	}
	return revocation.DigestOf(domain, token)
}

// Dating is what an event does not say of itself.
type Dating struct {
	State       revocation.State
	Source      string        // the way in
	At          time.Time     // when it is handled: what has no known expiry counts from here
	Came        time.Time     // when it came first; zero: not known
	UnknownLife time.Duration // how long a token counts that has no known expiry
	Rules       Rules
}

// Revocation is the record that the event makes. What comes again has the time
// at which it came first; the date in place of an unknown expiry is counted anew,
// since an earlier one could end a revocation early, and anybody may say that an
// event came long ago.
func (e Event) Revocation(d Dating) revocation.Revocation {
	r := revocation.Revocation{
		Domain: e.Domain, Key: e.Key, Digest: e.Digest, State: d.State, Kind: e.Kind,
		Time: e.time(d), Before: e.Before, Tenant: e.Tenant, Source: d.Source,
	}
	r.Expiry, r.Lifetime = e.expires(d)
	if e.ID != "" {
		r.Events = []revocation.Event{{ID: e.ID, Time: r.Time, State: d.State, Source: d.Source}}
	}
	return r
}

// time is when the event happened, in microseconds since the epoch: never after
// it came; 0: not known. What a list says overturns nothing, though its rules have
// a time: the clock that made it may be ahead.
func (e Event) time(d Dating) int64 {
	switch {
	case d.Came.IsZero():
		return 0
	case e.Happened > 0:
		return min(e.Happened, d.Came.UnixMilli()) * 1000
	}
	return d.Came.UnixMicro()
}

// expires is until when the event counts, in milliseconds since the epoch.
func (e Event) expires(d Dating) (int64, revocation.Lifetime) {
	expiry, lifetime := e.Expiry, e.Lifetime
	if lifetime == revocation.Unknown {
		if e.Domain != revocation.DomainRule {
			return d.At.Add(d.UnknownLife).UnixMilli(), lifetime
		}
		expiry, lifetime = d.Rules.expiry(cmp.Or(e.Before, d.At.UnixMilli()))
	}
	if expiry > d.At.Add(century).UnixMilli() {
		return revocation.Never, revocation.Forever
	}
	return expiry, lifetime
}

// payload is the members of payloadData, by their exact names.
type payload map[string]json.RawMessage

func payloadOf(data []byte) (payload, error) {
	var whole map[string]map[string]payload
	if json.Unmarshal(data, &whole) == nil && whole["event"]["payloadData"] != nil {
		return whole["event"]["payloadData"], nil
	}
	return payloadBeside(data)
}

// payloadBeside reads an envelope in which other members stand beside those that
// count, and says what is wrong with one that is none.
func payloadBeside(data []byte) (payload, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	var envelope map[string]json.RawMessage
	if err := dec.Decode(&envelope); err != nil {
		return nil, malformed("it is not a JSON object")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, malformed("something follows the JSON object")
	}
	for _, member := range []string{"event", "payloadData"} {
		inner := envelope[member]
		envelope = nil
		if json.Unmarshal(inner, &envelope) != nil || envelope == nil {
			return nil, malformed("%s is missing or not an object", member)
		}
	}
	return envelope, nil
}

// text returns a member that is a string or an integer; absent and null are "".
// A limit of 0 is none.
func (p payload) text(name string, limit int) (string, error) {
	raw, ok := p[name]
	if !ok || string(raw) == "null" {
		return "", nil
	}
	var s string
	if raw[0] != '"' {
		var n json.Number
		if json.Unmarshal(raw, &n) != nil {
			return "", malformed("%s is neither a string nor a number", name)
		}
		s = n.String()
	} else if json.Unmarshal(raw, &s) != nil {
		return "", malformed("%s is not a string", name)
	}
	if limit > 0 && len(s) > limit {
		return "", malformed("%s is longer than %d bytes", name, limit)
	}
	return s, nil
}

// Units of expiryTime, which does not say its own.
const (
	secondsBelow = 100_000_000_000 // as milliseconds 1973, as seconds the year 5138
	century      = 100 * 366 * 24 * time.Hour
)

// expiry reads expiryTime: 0 or missing is unknown, below 1e11 it is seconds,
// else milliseconds. What is too far ahead is found when the event is dated.
func (p payload) expiry() (int64, revocation.Lifetime, error) {
	text, err := p.text("expiryTime", 0)
	if err != nil {
		return 0, 0, err
	}
	return normalExpiry(text)
}

func normalExpiry(text string) (int64, revocation.Lifetime, error) {
	if text = strings.TrimSpace(text); text == "" {
		return 0, revocation.Unknown, nil
	}
	n, ok := wholeNumber(text)
	if !ok {
		return 0, 0, malformed("expiryTime is not a whole number")
	}
	switch {
	case n.Sign() < 0:
		return 0, 0, malformed("expiryTime is negative")
	case n.Sign() == 0:
		return 0, revocation.Unknown, nil
	case !n.IsInt64():
		return revocation.Never, revocation.Forever, nil
	}
	ms := n.Int64()
	if ms < secondsBelow {
		ms *= 1000
	}
	return ms, revocation.Dated, nil
}

// wholeNumber reads digits, and a number such as 1.628175421481E12, as which
// some serialisers write a long. The length is bounded: so is the exponent.
func wholeNumber(text string) (*big.Int, bool) {
	if len(text) > 40 {
		return nil, false
	}
	if n, ok := new(big.Int).SetString(text, 10); ok {
		return n, true
	}
	if i := strings.IndexAny(text, "eE"); i >= 0 && len(text)-i > 5 {
		return nil, false
	}
	if strings.ContainsAny(text, "/xXpPbBoO_") {
		return nil, false
	}
	f, ok := new(big.Rat).SetString(text)
	if !ok || !f.IsInt() {
		return nil, false
	}
	return f.Num(), true
}
