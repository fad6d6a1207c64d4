package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nuid"

	"revocation-adapter/config"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// announceRule reads --claim and --issued-before. The value of a claim may hold a
// "=", its name may not.
func announceRule(cfg config.Rules, as announcing) (*announcement, error) {
	rule, err := revocation.ParseRule(as.claim)
	if err != nil {
		return nil, fmt.Errorf("--claim must be name=value: %w", err)
	}
	if !slices.Contains(cfg.Claims, rule.Claim) {
		return nil, fmt.Errorf("--claim must name one of rules.claims (%s), is %q", strings.Join(cfg.Claims, ", "), rule.Claim)
	}
	a := &announcement{
		Announcement: messaging.Announcement{EventID: nuid.Next(), Type: messaging.TypeClaimRule},
		name:         "all with " + rule.Key(),
		rule:         rule.Key(),
	}
	if as.subject == messaging.SubjectRevocation {
		if a.before, err = issuedBefore(as.before); err != nil {
			return nil, err
		}
		a.name += " issued before " + time.UnixMilli(a.before).UTC().Format(time.RFC3339)
	}
	a.RevokedToken, err = messaging.ClaimRule(rule, a.before)
	return a, err
}

// issuedBefore is a time in milliseconds since the epoch, not further ahead than
// the adapter accepts.
func issuedBefore(text string) (int64, error) {
	now := time.Now()
	if text == "now" {
		return now.UnixMilli(), nil
	}
	ms, err := parseTime(text)
	if err != nil {
		return 0, fmt.Errorf("--issued-before must be %w, or now; is %q", err, text)
	}
	if ms > now.Add(messaging.MaxAhead).UnixMilli() {
		return 0, fmt.Errorf("--issued-before must be at most %s ahead, is %s", config.Duration(messaging.MaxAhead), expiry(ms))
	}
	return ms, nil
}
