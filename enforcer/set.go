package enforcer

import (
	"math"
	"slices"

	"revocation-adapter/revocation"
)

// until is when a revocation ceases to count, without grace: seconds since the
// epoch, rounded up.
type until uint32

// never is what does not expire, or not before 2106.
const never until = math.MaxUint32

func (u until) join(v until) until { return max(u, v) }

// passed says whether u and grace have passed, both in milliseconds.
func (u until) passed(now, grace int64) bool {
	return u != never && int64(u)*1000+grace <= now
}

// untilOf rounds seconds since the epoch up to what is kept.
func untilOf(seconds int64) until {
	if seconds >= int64(never) {
		return never
	}
	return until(seconds)
}

// watermark is what is kept of a rule.
type watermark struct {
	before int64 // of iat, in milliseconds since the epoch
	until  until
	claim  uint32 // its number in set.claims
}

// join keeps v's number: of the two, v is the one that is in the set already.
func (w watermark) join(v watermark) watermark {
	return watermark{before: max(w.before, v.before), until: w.until.join(v.until), claim: v.claim}
}

// set is what is revoked. It never changes.
type set struct {
	tokens shards[until]
	rules  shards[watermark]
	claims []string // by number; "": no rule has that number
}

// changes is what a batch says, decoded.
type changes struct {
	tokens  []entry[until] // normalized
	rules   []rule
	removed []revocation.Digest
}

// rule is one rule of a batch.
type rule struct {
	claim  string
	digest revocation.Digest
	before int64
	until  until
}

func (c *changes) empty() bool {
	return len(c.tokens)+len(c.rules)+len(c.removed) == 0
}

// with returns s with all that c says. What c both removes and revokes is
// revoked.
func (s *set) with(c *changes) *set {
	if c.empty() {
		return s
	}
	n := &set{tokens: s.tokens.without(c.removed), rules: s.rules.without(c.removed), claims: s.claims}
	if n.rules.count != s.rules.count {
		n.claims = n.inUse()
	}
	return n.revoking(c)
}

// revoking returns s with what c revokes, and without nothing that s has.
func (s *set) revoking(c *changes) *set {
	if len(c.tokens)+len(c.rules) == 0 {
		return s
	}
	n := &set{tokens: s.tokens.with(c.tokens), rules: s.rules, claims: s.claims}
	if len(c.rules) > 0 {
		var marks []entry[watermark]
		n.claims, marks = number(slices.Clone(s.claims), c.rules)
		n.rules = s.rules.with(normalize(marks))
	}
	return n
}

// number gives the claims of rules their numbers, new ones where they have none.
func number(claims []string, rules []rule) ([]string, []entry[watermark]) {
	marks := make([]entry[watermark], len(rules))
	for i, r := range rules {
		at := slices.Index(claims, r.claim)
		if at < 0 {
			at = slices.Index(claims, "")
		}
		if at < 0 {
			at = len(claims)
			claims = append(claims, "")
		}
		claims[at] = r.claim
		marks[i] = entry[watermark]{r.digest, watermark{r.before, r.until, uint32(at)}}
	}
	return claims, marks
}

// inUse is claims without those that no rule names any more.
func (s *set) inUse() []string {
	claims := make([]string, len(s.claims))
	for shard := range s.rules.all() {
		for i := range shard {
			at := shard[i].value.claim
			claims[at] = s.claims[at]
		}
	}
	return claims
}

// purged returns s without what has expired; s itself, if nothing has.
func (s *set) purged(now, grace int64) *set {
	n := &set{
		tokens: s.tokens.purged(func(u until) bool { return u.passed(now, grace) }),
		rules:  s.rules.purged(func(w watermark) bool { return w.until.passed(now, grace) }),
		claims: s.claims,
	}
	if n.tokens.count == s.tokens.count && n.rules.count == s.rules.count {
		return s
	}
	n.claims = n.inUse()
	return n
}

// revokes says whether the key of a token is in the set.
func (s *set) revokes(d revocation.Digest, now, grace int64) bool {
	u, found := s.tokens.find(d)
	return found && !u.passed(now, grace)
}

// ruleOn returns the claim of a rule that revokes a token, "" if none does.
func (s *set) ruleOn(t *Token, now, grace int64) string {
	if s.rules.count == 0 {
		return ""
	}
	for _, claim := range s.claims {
		if claim == "" {
			continue
		}
		for _, value := range t.claim(claim) {
			if s.bars(claim, value, t.IssuedAt, now, grace) {
				return claim
			}
		}
	}
	return ""
}

// bars says whether a rule revokes what was issued at iat with a claim. What
// does not say when it was issued cannot be shown to be newer.
func (s *set) bars(claim, value string, iat, now, grace int64) bool {
	w, found := s.rules.find(revocation.Rule{Claim: claim, Value: value}.Digest())
	return found && !w.until.passed(now, grace) && (iat <= 0 || w.before > iat)
}
