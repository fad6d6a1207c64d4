package bulk

import (
	"fmt"
	"io"
	"time"
)

// Report is what a file holds.
type Report struct {
	Lines, Tokens int
	Expired       int      // of the tokens, those that no gateway accepts any more
	Bad           int      // lines that are no token
	Faults        []string // of the first of them
}

// maxFaults is how many lines are named.
const maxFaults = 20

// Check reads a file to its end and sends nothing. Expired is what expired before a
// time.
func Check(r io.Reader, f Format, expired time.Time) (Report, error) {
	var report Report
	for l, err := range newReader(r, f, Position{}).lines() {
		if err != nil {
			return report, err
		}
		report.Lines = l.number
		switch {
		case l.err != nil:
			report.fault(l)
		case !l.blank:
			report.Tokens++
			if l.token.Expiry != 0 && l.token.Expiry < expired.UnixMilli() {
				report.Expired++
			}
		}
	}
	return report, nil
}

func (r *Report) fault(l line) {
	r.Bad++
	if len(r.Faults) < maxFaults {
		r.Faults = append(r.Faults, fmt.Sprintf("line %d: %v", l.number, l.err))
	}
}
