package enforcer

import (
	"iter"

	"revocation-adapter/revocation"
)

// Listed is one token of the set. Which one, its digest alone says.
type Listed struct {
	Digest revocation.Digest
	Expiry int64 // milliseconds since the epoch, without grace, rounded up to a second; revocation.Never
}

// Name is what adapters call a token of which only the digest is known.
func (l Listed) Name() string { return revocation.NamePrefix + l.Digest.String() }

// Revoked iterates over the tokens that are refused now, in the order of their
// digests. What comes to the set meanwhile is not seen, and nothing waits.
func (e *Enforcer) Revoked() iter.Seq[Listed] {
	set, now := e.view.Load().set, e.now().UnixMilli()
	return func(yield func(Listed) bool) {
		for shard := range set.tokens.all() {
			for _, entry := range shard {
				if entry.value.passed(now, e.grace) {
					continue
				}
				if !yield(Listed{entry.digest, entry.value.millis()}) {
					return
				}
			}
		}
	}
}

// millis is u in milliseconds since the epoch.
func (u until) millis() int64 {
	if u == never {
		return revocation.Never
	}
	return int64(u) * 1000
}
