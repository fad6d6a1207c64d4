package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"revocation-adapter/revocation"
)

// minMillis is the smallest number that is taken for milliseconds since the epoch:
// seconds are smaller.
const minMillis = 100_000_000_000

// Why a time is none. One in seconds would be in 1970: what is meant would be taken
// for expired, and not be revoked.
var (
	errTime    = errors.New("a time must be RFC 3339 or milliseconds since the epoch")
	errSeconds = errors.New("a time that is a number must be in milliseconds since the epoch, not in seconds")
)

// instant is a time in JSON: RFC 3339, or milliseconds since the epoch. What is
// wrong with it is told where it is asked for, by the place where it stands.
type instant struct {
	millis int64 // since the epoch; 0: not said
	wrong  error
}

// at returns the time in milliseconds since the epoch, 0 where none is said.
func (i instant) at(name string) (int64, error) {
	if i.wrong != nil {
		return 0, fmt.Errorf("%s: %w", name, i.wrong)
	}
	return i.millis, nil
}

// UnmarshalJSON reads a string or a number.
func (i *instant) UnmarshalJSON(text []byte) error {
	i.millis, i.wrong = readInstant(text)
	return nil
}

func readInstant(text []byte) (millis int64, err error) {
	var written string
	if json.Unmarshal(text, &written) != nil {
		millis, err = strconv.ParseInt(string(text), 10, 64)
		switch {
		case err != nil || millis < 0:
			return 0, errTime
		case millis > 0 && millis < minMillis:
			return 0, errSeconds
		}
		return millis, nil
	}
	if written == "never" {
		return revocation.Never, nil
	}
	at, err := time.Parse(time.RFC3339, written)
	if err != nil || at.UnixMilli() <= 0 {
		return 0, errTime
	}
	return at.UnixMilli(), nil
}
