package revocation_test

import (
	"crypto/sha256"
	"strings"
	"testing"

	"revocation-adapter/revocation"
)

// A digest is what the hub's subjects, snapshot files and gateways know a key by: of
// any length and domain it is the start of SHA-256(domain ‖ 0 ‖ key).
func TestDigestOf(t *testing.T) {
	if got := revocation.DigestOf(revocation.DomainToken, "jti-1").String(); got != "3s6sLYIYx38VkrDao-5TSw" {
		t.Errorf("of jti-1 it is %s", got)
	}
	text := strings.Repeat("0123456789abcdef", 64)
	for _, domain := range []revocation.Domain{
		revocation.DomainToken, revocation.DomainOpaque, revocation.DomainRefresh, revocation.DomainRule, revocation.Domain(255),
	} {
		for n := range 800 {
			sum := sha256.Sum256([]byte(domain.String() + "\x00" + text[:n]))
			if got := revocation.DigestOf(domain, text[:n]); got != revocation.Digest(sum[:16]) {
				t.Errorf("of %d bytes of %s it is %s", n, domain, got)
			}
		}
	}
	for n := range 300 {
		rule := revocation.Rule{Claim: text[n:][:n/3], Value: text[:n]}
		if got := rule.Digest(); got != revocation.DigestOf(revocation.DomainRule, rule.Key()) {
			t.Errorf("of a rule of %d bytes it is %s", len(rule.Key()), got)
		}
	}
}
