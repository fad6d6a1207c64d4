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
	server *embeddedServer // learns what it does not tell otherwise
	denied *rate.Sometimes // anybody can make the server say that something was denied
}

func newServerLog(log logrus.FieldLogger, fatal chan<- string, server *embeddedServer) serverLog {
	return serverLog{log, fatal, server, &rate.Sometimes{First: 10, Interval: 10 * time.Second}}
}

func (l serverLog) Noticef(format string, v ...any) { l.log.Debugf("Hub: "+format, v...) }
func (l serverLog) Debugf(string, ...any)           {}
func (l serverLog) Tracef(string, ...any)           {} // would print what clients send

// Warnf passes on what the server warns of; that it cannot read a stream is no
// less than an error.
func (l serverLog) Warnf(format string, v ...any) {
	text := strings.TrimSpace(fmt.Sprintf(format, v...))
	if strings.Contains(text, "Error recreating stream") {
		l.server.lost.Store(&text)
	}
	l.log.Warn("Hub: ", text)
}

// Errorf passes on what went wrong in the server. What a client may not do went
// wrong at the client, and is said now and then.
func (l serverLog) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if strings.Contains(text, "Violation") {
		l.denied.Do(func() { l.log.Warn("Hub: ", text) })
		return
	}
	if strings.Contains(strings.ToLower(text), "critical write error") {
		l.server.failed.Store(true)
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
