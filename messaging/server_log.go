package messaging

import (
	"fmt"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"
)

// serverLog passes what the embedded server says on to our log, a level lower
// where it only tells of itself.
type serverLog struct {
	log    logrus.FieldLogger
	fatal  chan<- string   // the reason why the server could not start
	denied *rate.Sometimes // anybody can make the server say that something was denied
}

func newServerLog(log logrus.FieldLogger, fatal chan<- string) serverLog {
	return serverLog{log, fatal, &rate.Sometimes{First: 10, Interval: 10 * time.Second}}
}

func (l serverLog) Noticef(format string, v ...any) { l.log.Debugf("Hub: "+format, v...) }
func (l serverLog) Warnf(format string, v ...any)   { l.log.Warnf("Hub: "+format, v...) }
func (l serverLog) Debugf(string, ...any)           {}
func (l serverLog) Tracef(string, ...any)           {} // would print what clients send

// Errorf passes on what went wrong in the server. What a client may not do went
// wrong at the client, and is said now and then.
func (l serverLog) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if strings.Contains(text, "Violation") {
		l.denied.Do(func() { l.log.Warn("Hub: ", text) })
		return
	}
	l.log.Error("Hub: ", text)
}

// Fatalf does not end the process: Open reports the reason.
func (l serverLog) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- fmt.Sprintf(format, v...):
	default:
	}
}
