package messaging

import (
	"fmt"

	"github.com/sirupsen/logrus"
)

// serverLog passes what the embedded server says on to our log, a level lower
// where it only tells of itself.
type serverLog struct {
	log   logrus.FieldLogger
	fatal chan<- string // the reason why the server could not start
}

func (l serverLog) Noticef(format string, v ...any) { l.log.Debugf("Hub: "+format, v...) }
func (l serverLog) Warnf(format string, v ...any)   { l.log.Warnf("Hub: "+format, v...) }
func (l serverLog) Errorf(format string, v ...any)  { l.log.Errorf("Hub: "+format, v...) }
func (l serverLog) Debugf(string, ...any)           {}
func (l serverLog) Tracef(string, ...any)           {} // would print what clients send

// Fatalf does not end the process: Open reports the reason.
func (l serverLog) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- fmt.Sprintf(format, v...):
	default:
	}
}
