package enforcer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

const digestLen = len(revocation.Digest{})

// maxSeconds bounds expiries, so that sums of them do not overflow.
const maxSeconds = 1 << 53

var errBatch = errors.New("bad batch")

// decode checks all that b says before anything of it counts.
func decode(b *revocationv1.Batch) (*changes, error) {
	if err := checkVersions(b); err != nil {
		return nil, err
	}
	tokens, err := decodeTokens(b.GetDigests(), b.GetExpiries())
	if err != nil {
		return nil, err
	}
	removed, err := decodeDigests(b.GetRemoved())
	if err != nil {
		return nil, err
	}
	rules, err := decodeRules(b.GetRules())
	if err != nil {
		return nil, err
	}
	return &changes{tokens: normalize(tokens), rules: rules, removed: removed}, nil
}

func checkVersions(b *revocationv1.Batch) error {
	from, to, head := b.GetFromVersion(), b.GetToVersion(), b.GetHeadVersion()
	switch {
	case from > to || to > head:
		return fmt.Errorf("%w: versions %d, %d and %d fall", errBatch, from, to, head)
	case b.GetReset_() && from != 0:
		return fmt.Errorf("%w: a whole set begins at version %d", errBatch, from)
	case b.GetCompleteAtMicros() < 0:
		return fmt.Errorf("%w: complete before the epoch", errBatch)
	}
	return nil
}

func decodeTokens(digests, expiries []byte) ([]entry[until], error) {
	if len(digests)%digestLen != 0 {
		return nil, fmt.Errorf("%w: digests of %d bytes", errBatch, len(digests))
	}
	tokens := make([]entry[until], len(digests)/digestLen)
	last := int64(0)
	for i := range tokens {
		code, n := binary.Uvarint(expiries)
		if n <= 0 {
			return nil, fmt.Errorf("%w: %d tokens, but %d expiries", errBatch, len(tokens), i)
		}
		expiries = expiries[n:]
		value := never
		if code != 0 {
			last += zigzag(code - 1)
			if last <= 0 || last > maxSeconds {
				return nil, fmt.Errorf("%w: expiry %d is no time", errBatch, i)
			}
			value = untilOf(last)
		}
		tokens[i] = entry[until]{revocation.Digest(digests[i*digestLen:]), value}
	}
	if len(expiries) > 0 {
		return nil, fmt.Errorf("%w: more expiries than %d tokens", errBatch, len(tokens))
	}
	return tokens, nil
}

// zigzag decodes a difference. Added to what maxSeconds bounds it may overflow,
// and is negative then.
func zigzag(code uint64) int64 { return int64(code>>1) ^ -int64(code&1) }

// decodeDigests returns them sorted.
func decodeDigests(packed []byte) ([]revocation.Digest, error) {
	if len(packed)%digestLen != 0 {
		return nil, fmt.Errorf("%w: removed of %d bytes", errBatch, len(packed))
	}
	digests := make([]revocation.Digest, len(packed)/digestLen)
	for i := range digests {
		digests[i] = revocation.Digest(packed[i*digestLen:])
	}
	slices.SortFunc(digests, func(a, b revocation.Digest) int { return compareDigests(&a, &b) })
	return digests, nil
}

func decodeRules(from []*revocationv1.Rule) ([]rule, error) {
	rules := make([]rule, len(from))
	for i, r := range from {
		of := revocation.Rule{Claim: r.GetClaim(), Value: r.GetValue()}
		if err := of.Check(); err != nil {
			return nil, fmt.Errorf("%w: %w", errBatch, err)
		}
		if r.GetIssuedBeforeMillis() < 0 || r.GetExpirytime() <= 0 {
			return nil, fmt.Errorf("%w: rule %d has no times", errBatch, i)
		}
		rules[i] = rule{
			claim: of.Claim, digest: of.Digest(),
			before: r.GetIssuedBeforeMillis(), until: untilOfMillis(r.GetExpirytime()),
		}
	}
	return rules, nil
}

func untilOfMillis(ms int64) until {
	if ms == revocation.Never {
		return never
	}
	return untilOf(ms/1000 + min(1, ms%1000))
}
