package bulk_test

import (
	"strings"
	"testing"
	"time"

	"revocation-adapter/adapter/bulk"
	"revocation-adapter/messaging"
)

// Whatever a file holds, what was checked is what is sent, all of it is read, and
// what is sent is understood.
func FuzzLines(f *testing.F) {
	for _, seed := range []string{
		"", "a\n", "a,1800000000000\r\nb never\n\n", jwt + "\n" + without, "\ufeffa\n\"b\"\n", "a b c\n\xff\n", strings.Repeat("x", 70<<10) + "\ny",
	} {
		f.Add(seed, messaging.TypeJWT)
		f.Add(seed, messaging.TypeDefault)
	}
	f.Fuzz(func(t *testing.T, text, typ string) {
		if typ != messaging.TypeDefault && typ != messaging.TypeAPIKey {
			typ = messaging.TypeJWT
		}
		report, err := bulk.Check(strings.NewReader(text), format(typ), time.UnixMilli(0))
		if err != nil || report.Tokens+report.Bad > report.Lines || report.Lines > strings.Count(text, "\n")+1 {
			t.Fatalf("%+v, %v", report, err)
		}
		h := &hub{fails: -1}
		totals, err := job(h, text, format(typ)).Run(t.Context())
		if sent := len(keys(h.tokens(t))); err != nil || totals.Tokens != report.Tokens || sent != report.Tokens {
			t.Errorf("%+v, %v, %d were sent, %d were checked", totals, err, sent, report.Tokens)
		}
	})
}
