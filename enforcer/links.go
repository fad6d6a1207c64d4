package enforcer

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// maxMessage bounds a response in bytes. A batch of 64,000 tokens has 1.3 MB.
const maxMessage = 8 << 20

// links are the connections to the adapters, each made when it is needed. Claims
// share the one that is followed.
type links struct {
	addresses []string
	options   []grpc.DialOption

	mu       sync.Mutex
	conns    []*grpc.ClientConn // by adapter; nil: none. Nil as a whole while Run does not run
	followed int
}

var errNotRunning = errors.New("the enforcer does not run")

func (l *links) init(cfg Config, p pace) {
	l.addresses = cfg.Adapters
	transport := insecure.NewCredentials()
	if cfg.TLS != nil {
		transport = credentials.NewTLS(cfg.TLS.Clone())
	}
	l.options = []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: p.ping, Timeout: p.pong, PermitWithoutStream: true}),
		// This is for claims: follow tries again at its own pace, over new connections.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: p.retryMin, Multiplier: 2, Jitter: 0.5, MaxDelay: time.Second},
			MinConnectTimeout: p.connect,
		}),
		grpc.WithIdleTimeout(time.Minute),
	}
}

func (l *links) open() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = make([]*grpc.ClientConn, len(l.addresses))
}

func (l *links) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		if conn != nil {
			_ = conn.Close() // it fails only where it is closed already
		}
	}
	l.conns = nil
}

// to returns the connection to an adapter.
func (l *links) to(adapter int) (*grpc.ClientConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		return nil, errNotRunning
	}
	if l.conns[adapter] == nil {
		conn, err := grpc.NewClient(l.addresses[adapter], l.options...)
		if err != nil {
			return nil, fmt.Errorf("connect to adapter %s: %w", l.addresses[adapter], err)
		}
		l.conns[adapter] = conn
	}
	return l.conns[adapter], nil
}

// renewed is to, with a new connection where the old one has failed: that goes on
// failing for a while without trying.
func (l *links) renewed(adapter int) (*grpc.ClientConn, error) {
	conn, err := l.to(adapter)
	if err != nil || conn.GetState() != connectivity.TransientFailure {
		return conn, err
	}
	l.drop(adapter, conn)
	return l.to(adapter)
}

// drop closes a connection: one adapter is followed at a time.
func (l *links) drop(adapter int, conn *grpc.ClientConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns != nil && l.conns[adapter] == conn {
		l.conns[adapter] = nil
		_ = conn.Close() // it fails only where it is closed already
	}
}

func (l *links) follow(adapter int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.followed = adapter
}

// order is in which order adapters are asked: the one that is followed first.
func (l *links) order() []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	order := make([]int, len(l.addresses))
	for i := range order {
		order[i] = (l.followed + i) % len(order)
	}
	return order
}
