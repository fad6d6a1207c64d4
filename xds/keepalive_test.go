package xds_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// An enforcer pings every 10 s, with a stream or without. The server's default
// is to hang up on whoever does so more often than every 5 minutes, at the
// fourth ping; ours is 5 s.
func TestPingsOfEnforcersAreAllowed(t *testing.T) {
	t.Parallel()
	w := start(t)
	conn, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // nothing depends on how
	framer := http2.NewFramer(conn, conn)
	answered := framesOf(t, conn, framer)
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	often := time.NewTicker(5100 * time.Millisecond)
	defer often.Stop()
	for i := range byte(5) {
		if 0 < i && i < 4 { // the last follows at once: is the connection there?
			<-often.C
		}
		if err := framer.WritePing(false, [8]byte{'p', i}); err != nil {
			t.Fatal(err)
		}
		if err := <-answered; err != nil {
			t.Fatalf("ping %d: %v", i, err)
		}
	}
}

// framesOf reads what the server sends: nil for the answer to a ping of ours,
// or how the connection ends.
func framesOf(t *testing.T, conn net.Conn, framer *http2.Framer) <-chan error {
	t.Helper()
	answered := make(chan error)
	ctx := t.Context()
	tell := func(err error) {
		select {
		case answered <- err:
		case <-ctx.Done():
		}
	}
	go func() {
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				tell(err)
				return
			}
			switch f := frame.(type) {
			case *http2.PingFrame:
				if f.IsAck() && f.Data[0] == 'p' {
					tell(nil)
				}
			case *http2.GoAwayFrame:
				tell(fmt.Errorf("the server hangs up: %v, %s", f.ErrCode, f.DebugData()))
				return
			}
		}
	}()
	t.Cleanup(func() { _ = conn.Close() }) // ends the reading
	return answered
}
