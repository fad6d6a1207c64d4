package messaging

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/sirupsen/logrus"
)

// AMQPConfig says where API-M's broker is.
type AMQPConfig struct {
	Servers []AMQPServer // that stand in for each other; one is connected at a time
	TLS     *tls.Config  // of servers with TLS; nil: the system's authorities
	Workers int          // batches of events written at the same time
	// Connected is called when events arrive, at first and again: what was
	// published before is gone. It must not block.
	Connected func()
}

// AMQPServer is one server of a broker.
type AMQPServer struct {
	Address  string // host:port
	TLS      bool
	User     string
	Password string
	VHost    string
	Tries    int           // before the next server has its turn
	Pause    time.Duration // between two tries, doubled each time; 0: as the package likes
}

// How API-M publishes.
const (
	amqpExchange = "amq.topic"
	amqpKey      = SubjectRevocation
)

// How its broker is read.
const (
	// amqpPrefetch is how many messages are not acknowledged, whatever their size:
	// the broker knows no other bound. With 2000 a fifth fewer come through.
	amqpPrefetch  = 8000
	amqpTimeout   = 10 * time.Second
	amqpHeartbeat = 10 * time.Second // a broker that is silent for three of them is lost
	amqpClose     = time.Second

	amqpFirstPause = 500 * time.Millisecond
	amqpMaxPause   = 30 * time.Second
	amqpSettled    = 5 * time.Second // a connection that lives so long was a good one
)

// AMQP takes events from API-M's own broker. Its topic keeps nothing: whatever is
// published while nobody is connected must be learnt elsewhere.
type AMQP struct {
	cfg    AMQPConfig
	intake *Intake
	report *Report
	log    logrus.FieldLogger
}

// NewAMQP returns a source that hands what it takes to intake.
func NewAMQP(cfg AMQPConfig, intake *Intake, report *Report) (*AMQP, error) {
	if len(cfg.Servers) == 0 {
		return nil, fmt.Errorf("%w: an AMQP broker without a server", ErrConfig)
	}
	cfg.Workers = max(cfg.Workers, 1)
	return &AMQP{cfg: cfg, intake: intake, report: report, log: intake.log}, nil
}

// Run takes events until ctx ends, connecting again for ever. What was taken is
// stored first.
func (a *AMQP) Run(ctx context.Context) error {
	for server, tries, failures := 0, 0, 0; ; {
		s := a.cfg.Servers[server]
		began := time.Now()
		err := a.serve(ctx, s)
		if ctx.Err() != nil {
			a.report.Disconnected(nil)
			return ctx.Err()
		}
		a.report.Disconnected(err)
		a.log.WithError(err).WithField("broker", s.Address).Warn("The broker is not connected, trying again")
		if time.Since(began) > amqpSettled+amqpTimeout {
			failures = 0
		}
		pause := pauseAfter(failures, cmp.Or(s.Pause, amqpFirstPause))
		failures++
		if tries++; tries >= s.Tries {
			server, tries = (server+1)%len(a.cfg.Servers), 0
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pauseAfter doubles with each failure and is never twice the same, so that
// replicas do not come back all at once.
func pauseAfter(failures int, first time.Duration) time.Duration {
	pause := min(first<<min(failures, 10), max(first, amqpMaxPause))
	return pause/2 + rand.N(pause)
}

// serve connects and takes events until that ends.
func (a *AMQP) serve(ctx context.Context, s AMQPServer) error {
	conn, err := a.dial(ctx, s)
	if err != nil {
		return err
	}
	live, lose := context.WithCancel(ctx)
	defer lose()
	why := make(chan error, 1)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer conn.CloseDeadline(time.Now().Add(amqpClose)) //nolint:errcheck // it is left, or lost already
	closed := conn.NotifyClose(make(chan *amqp091.Error, 1))
	watch.Go(func() {
		defer lose()
		if err := <-closed; err != nil {
			why <- err
		}
	})
	defer context.AfterFunc(ctx, func() {
		_ = conn.CloseDeadline(time.Now().Add(amqpClose)) // as above
	})()
	channel, deliveries, err := subscribe(conn)
	if err != nil {
		return err
	}
	a.report.Connected(s.Address)
	a.log.WithField("broker", s.Address).Info("The broker is connected")
	if a.cfg.Connected != nil {
		a.cfg.Connected()
	}
	err = a.take(ctx, live, channel, deliveries)
	select {
	case err := <-why:
		return err
	default:
		return cmp.Or(err, errUnsubscribed)
	}
}

var errUnsubscribed = errors.New("the broker ended the subscription")

// dial connects to a server and logs in.
func (a *AMQP) dial(ctx context.Context, s AMQPServer) (*amqp091.Connection, error) {
	ctx, cancel := context.WithTimeout(ctx, amqpTimeout)
	defer cancel()
	conn, err := a.dialer(s).DialContext(ctx, "tcp", s.Address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // the handshake then fails
	defer stop()
	properties := amqp091.NewConnectionProperties()
	properties.SetClientConnectionName("revocation-adapter")
	opened, err := amqp091.Open(conn, amqp091.Config{
		SASL: []amqp091.Authentication{&amqp091.PlainAuth{
			Username: cmp.Or(s.User, "guest"), Password: cmp.Or(s.Password, "guest"),
		}},
		Vhost: cmp.Or(s.VHost, "/"), Heartbeat: amqpHeartbeat, Properties: properties, Locale: "en_US",
	})
	if err != nil {
		_ = conn.Close() // it is of no use
		return nil, fmt.Errorf("log in to the broker: %w", err)
	}
	return opened, nil
}

func (a *AMQP) dialer(s AMQPServer) interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
} {
	plain := &net.Dialer{}
	if !s.TLS {
		return plain
	}
	return &tls.Dialer{NetDialer: plain, Config: a.cfg.TLS}
}

// subscribe binds a queue of its own to the topic.
func subscribe(conn *amqp091.Connection) (*amqp091.Channel, <-chan amqp091.Delivery, error) {
	channel, err := conn.Channel()
	if err != nil {
		return nil, nil, fmt.Errorf("open a channel: %w", err)
	}
	if err := channel.Qos(amqpPrefetch, 0, false); err != nil {
		return nil, nil, fmt.Errorf("set the prefetch: %w", err)
	}
	const durable, autoDelete, exclusive, noWait = false, true, false, false
	queue, err := channel.QueueDeclare("", durable, autoDelete, exclusive, noWait, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("declare a queue: %w", err)
	}
	if err := channel.QueueBind(queue.Name, amqpKey, amqpExchange, noWait, nil); err != nil {
		return nil, nil, fmt.Errorf("bind the queue to %s of %s: %w", amqpKey, amqpExchange, err)
	}
	const autoAck, noLocal = false, false
	deliveries, err := channel.Consume(queue.Name, "", autoAck, exclusive, noLocal, noWait, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("consume from the queue: %w", err)
	}
	return channel, deliveries, nil
}
