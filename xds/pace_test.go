package xds_test

import (
	"fmt"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// A publication may fall between the moment when a watch finds nothing new and
// the moment when it is parked: a long one here, since the names are many.
func TestNoPublicationIsMissedWhileAWatchIsParked(t *testing.T) {
	t.Parallel()
	w := start(t)
	c := w.subscribe(t, streamTokens, "", fortyThousand()[:15_000]...)
	nonce := c.gets()
	for i := range 24 {
		c.send(&discovery.DiscoveryRequest{ResponseNonce: nonce})
		<-time.After(time.Duration(i) * 500 * time.Microsecond)
		w.revoke(c.names[i])
		nonce = c.gets(c.names[i])
	}
}

// Streams that are served keep pace with one another. Who comes new gets what
// the log holds, though they may be busy with an older version.
func TestFirstAnswerIsAsNewAsTheLog(t *testing.T) {
	t.Parallel()
	w := start(t)
	for range 3 { // to be busy with
		w.subscribe(t, streamTokens, "", fortyThousand()...).accept()
	}
	conn := w.dial()
	for i := range 20 {
		w.revoke("a")
		head := text(w.revoke("a", fmt.Sprint(i)))
		c, d := openOn(t.Context(), t, streamTokens, conn), deltaOn(t.Context(), t, conn)
		c.send(&discovery.DiscoveryRequest{})
		d.send(&discovery.DeltaDiscoveryRequest{})
		if got := c.accept().GetVersionInfo(); got != head {
			t.Fatalf("the first answer is at %s, the log at %s", got, head)
		}
		if got := d.accept().GetSystemVersionInfo(); got != head {
			t.Fatalf("the first answer is at %s, the log at %s", got, head)
		}
	}
}
