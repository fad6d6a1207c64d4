package revocation

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// TokenClaim is a claim of a one-time token: whoever is granted it may use the
// token, and nobody after.
type TokenClaim struct {
	ID     string // names this claim and no other; it is the claimer's own
	Key    string // the jti, byte for byte as it came
	Kind   Kind
	Expiry int64  // of the token, milliseconds since the epoch, without grace; Never
	Tenant string // empty: of none
}

// ClaimOutcome is what became of a claim.
type ClaimOutcome uint8

// The outcomes. The zero value is none of them.
const (
	ClaimGranted ClaimOutcome = 1 + iota
	ClaimRevoked              // the token was used or revoked before
	ClaimExpired              // the token has expired; nothing is kept of the claim
)

func (o ClaimOutcome) String() string {
	switch o {
	case ClaimGranted:
		return "granted"
	case ClaimRevoked:
		return "revoked"
	case ClaimExpired:
		return "expired"
	}
	return fmt.Sprintf("claim outcome %d", uint8(o))
}

// ErrClaim means that a claim is none that could ever be granted.
var ErrClaim = errors.New("not a claim")

// What a used token is known by. The prefix keeps events of publishers, who choose
// their ids, from being taken for a claim.
const (
	claimPrefix = "claim:"
	claimSource = "claim"
	claimReason = "one-time token used"
)

// IsClaim says whether an event's id is that of a claim, which no publisher may use.
func IsClaim(eventID string) bool { return strings.HasPrefix(eventID, claimPrefix) }

// Bounds of a claim's id in bytes, and from when on an expiry counts as never.
const (
	minClaimID = 16
	maxClaimID = 64
	farAhead   = 100 * 365 * 24 * time.Hour
)

// Check reports why c cannot be a claim, or nil. It quotes nothing of it.
func (c TokenClaim) Check() error {
	unprintable := func(r rune) bool { return r <= ' ' || r > '~' }
	switch {
	case len(c.ID) < minClaimID || len(c.ID) > maxClaimID:
		return fmt.Errorf("%w: its id must have %d to %d bytes, has %d", ErrClaim, minClaimID, maxClaimID, len(c.ID))
	case strings.ContainsFunc(c.ID, unprintable):
		return fmt.Errorf("%w: its id must be printable ASCII without spaces", ErrClaim)
	case c.Expiry <= 0:
		return fmt.Errorf("%w: the expiry of the token must be positive", ErrClaim)
	case c.Kind > KindAPIKey:
		return fmt.Errorf("%w: kind %d is not known", ErrClaim, c.Kind)
	case len(c.Tenant) > MaxTenant:
		return fmt.Errorf("%w: the tenant is longer than %d bytes", ErrClaim, MaxTenant)
	}
	if err := CheckKey(c.Key); err != nil {
		return fmt.Errorf("%w: the jti: %w", ErrClaim, err)
	}
	return nil
}

// Expired says whether the token has expired at now. No grace is added: whoever
// is late is refused.
func (c TokenClaim) Expired(now time.Time) bool { return c.Expiry <= now.UnixMilli() }

// Use is the record of a token of which nothing was known, used by c at now.
func (c TokenClaim) Use(now time.Time) Revocation {
	r := Revocation{
		Domain: DomainToken, Key: c.Key, Digest: DigestOf(DomainToken, c.Key),
		State: Revoked, Kind: c.Kind, Expiry: c.Expiry, Lifetime: Dated, Time: now.UnixMicro(),
		Tenant: c.Tenant, Source: claimSource, Reason: claimReason,
	}
	if c.Expiry >= now.Add(farAhead).UnixMilli() {
		r.Expiry, r.Lifetime = Never, Forever
	}
	r.Events = []Event{{ID: claimPrefix + c.ID, Time: r.Time, State: Revoked}}
	return r
}

// UseAgain is the record of a token that was approved, used by c at now. The claim
// is later than all that is known of the token, whatever the clocks say: or the
// approval would win, and the token could be used once more.
func (c TokenClaim) UseAgain(approved Revocation, now time.Time) Revocation {
	if at := time.UnixMicro(approved.Time + 1); at.After(now) {
		now = at
	}
	return Merge(approved, c.Use(now))
}

// GrantedBy says whether record shows that c was granted.
func (c TokenClaim) GrantedBy(record Revocation) bool {
	return slices.ContainsFunc(record.Events, func(e Event) bool {
		return e.ID == claimPrefix+c.ID && e.State == Revoked
	})
}

// Used says whether a claim is why r is revoked.
func (r Revocation) Used() bool {
	return r.State == Revoked && len(r.Events) > 0 && strings.HasPrefix(r.Events[0].ID, claimPrefix)
}
