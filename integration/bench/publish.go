package main

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// publishing is events through NATS, published without waiting for each.
type publishing struct {
	URL    string
	Events int
	Rate   int // per second
}

// publishTimes remembers when events were published, by the number in the jti.
type publishTimes struct {
	at atomic.Pointer[[]atomic.Int64]
}

const timedPrefix = "timed-"

func (p *publishTimes) of(jti []byte) (time.Time, bool) {
	at := p.at.Load()
	if at == nil || len(jti) <= len(timedPrefix) || string(jti[:len(timedPrefix)]) != timedPrefix {
		return time.Time{}, false
	}
	i, err := strconv.Atoi(string(jti[len(timedPrefix):]))
	if err != nil || i >= len(*at) {
		return time.Time{}, false
	}
	return time.Unix(0, (*at)[i].Load()), true
}

func (g *generator) publish(p publishing) error {
	conn, err := nats.Connect(p.URL)
	if err != nil {
		return err
	}
	defer conn.Close()
	times := make([]atomic.Int64, p.Events)
	g.published.at.Store(&times)
	const perTick = 10
	tick := time.NewTicker(perTick * time.Second / time.Duration(p.Rate))
	defer tick.Stop()
	for i := range p.Events {
		if i%perTick == 0 {
			<-tick.C
		}
		times[i].Store(time.Now().UnixNano())
		if err := conn.Publish("tokenRevocation", event(timedPrefix+strconv.Itoa(i))); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(g.ctx, 10*time.Second)
	defer cancel()
	return conn.FlushWithContext(ctx)
}

func event(jti string) []byte {
	return fmt.Appendf(nil, `{"event":{"payloadData":{"eventId":"e-%s","revokedToken":"%s","ttl":"3600","expiryTime":%d,"type":"JWT","tenantId":-1234}}}`,
		jti, jti, time.Now().Add(time.Hour).UnixMilli())
}
