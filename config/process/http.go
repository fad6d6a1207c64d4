package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
)

// Listening is where a server answers, and how it stops.
type Listening struct {
	net.Listener
	Name  string             // in errors
	Drain time.Duration      // how long requests that are being answered may take after the end
	Log   logrus.FieldLogger // nil: net/http logs itself
}

// lines takes what net/http says of connections into the log of the process.
type lines struct{ log logrus.FieldLogger }

func (l lines) Write(text []byte) (int, error) {
	entry := l.log.WithField("detail", strings.TrimSpace(string(text)))
	if bytes.HasPrefix(text, []byte("http: panic")) {
		entry.Error("A request could not be answered")
	} else {
		entry.Debug("A connection has failed")
	}
	return len(text), nil
}

// ServeHTTP answers on a listener until ctx ends, and returns when the requests of
// then are answered or their time is over.
func ServeHTTP(ctx context.Context, server *http.Server, lis Listening) error {
	if lis.Log != nil {
		server.ErrorLog = log.New(lines{lis.Log}, "", 0)
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lis.Drain)
		defer cancel()
		stopped <- server.Shutdown(ctx)
	})
	err := server.Serve(lis)
	if stop() { // it failed by itself
		return fmt.Errorf("%s: %w", lis.Name, err)
	}
	if err := <-stopped; errors.Is(err, context.DeadlineExceeded) {
		_ = server.Close() // who took too long is cut off
	} else if err != nil {
		return fmt.Errorf("%s: %w", lis.Name, err)
	}
	return ctx.Err()
}
