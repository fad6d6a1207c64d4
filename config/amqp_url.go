package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"revocation-adapter/config/strict"
)

// BrokerURL is a connection string of API-M, with its passwords. It prints and
// marshals without them; a conversion to string gives the whole.
type BrokerURL string

// String masks as URL does, which keeps nothing of the options.
func (u BrokerURL) String() string { return URL(u).String() }

// Format prints what String returns.
func (u BrokerURL) Format(state fmt.State, _ rune) { strict.Show(state, u.String()) }

// MarshalText is String.
func (u BrokerURL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// Broker is one server of API-M's broker.
type Broker struct {
	Address  string // host:port
	TLS      bool
	User     string
	Password string
	VHost    string
	Tries    int           // before the next server has its turn
	Pause    time.Duration // between two tries; 0: as the adapter likes
}

// The faults of a connection string. None quotes it: it holds a password.
var (
	errBrokerScheme = errors.New("amqp:// or amqps://")
	errBrokerList   = errors.New("a brokerlist of tcp:// or ssl:// servers, between quotes")
	errBrokerServer = errors.New("amqp://user:password@host:port, with retries and connectdelay as numbers between quotes")
	errBrokerUser   = errors.New("percent-encoded in user, password and virtual host")
)

// Brokers reads a connection string as API-M writes it: servers that stand in
// for each other, of which one is connected at a time. They are either a list
// with commas,
//
//	amqp://user:pass@h1:5672?retries='5'&connectdelay='30',amqp://user:pass@h2:5672
//
// or the brokerlist of a JMS client,
//
//	amqp://user:pass@clientid/carbon?brokerlist='tcp://h1:5672?retries='5'&connectdelay='50';tcp://h2:5672'
//
// A connectdelay is in seconds in the first, in milliseconds in the second. Its
// & and ' may be escaped as in a file of API-M. Other options are ignored.
func (u BrokerURL) Brokers() ([]Broker, error) {
	var all []Broker
	for _, text := range splitBrokers(string(u)) {
		some, err := brokersOf(text)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// splitBrokers cuts at the commas that a scheme follows: a password may have one.
func splitBrokers(text string) []string {
	starts := regexp.MustCompile(`,\s*amqps?://`).FindAllStringIndex(text, -1)
	parts, from := []string{}, 0
	for _, at := range starts {
		parts = append(parts, text[from:at[0]])
		from = at[0] + 1
	}
	parts = append(parts, text[from:])
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

func brokersOf(text string) ([]Broker, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || scheme != "amqp" && scheme != "amqps" {
		return nil, errBrokerScheme
	}
	head, query, _ := strings.Cut(rest, "?")
	broker, host, err := identityOf(head)
	if err != nil {
		return nil, err
	}
	query = strings.NewReplacer("%26", "&", "&amp;", "&", "%27", "'").Replace(query)
	if _, list, ok := strings.Cut(query, "brokerlist='"); ok {
		return broker.list(list)
	}
	broker.TLS = scheme == "amqps"
	err = broker.at(host, query, time.Second)
	return []Broker{broker}, err
}

// identityOf reads user:password@host/vhost.
func identityOf(head string) (b Broker, host string, err error) {
	info := ""
	host = head
	if at := strings.LastIndex(head, "@"); at >= 0 {
		info, host = head[:at], head[at+1:]
	}
	host, vhost, _ := strings.Cut(host, "/")
	user, password, _ := strings.Cut(info, ":")
	for _, field := range []struct {
		to   *string
		text string
	}{{&b.User, user}, {&b.Password, password}, {&b.VHost, vhost}} {
		if *field.to, err = url.PathUnescape(field.text); err != nil {
			return b, "", errBrokerUser
		}
	}
	b.VHost = cmp.Or(b.VHost, "/")
	return b, host, nil
}

// list reads the servers of a brokerlist. Their options have quotes as the list
// has, so that its end cannot be told; what follows it is options as well.
func (b Broker) list(text string) ([]Broker, error) {
	var all []Broker
	for part := range strings.SplitSeq(text, ";") {
		scheme, rest, ok := strings.Cut(strings.TrimSpace(part), "://")
		if !ok || scheme != "tcp" && scheme != "ssl" {
			return nil, errBrokerList
		}
		end := strings.IndexAny(rest, "?'&")
		if end < 0 {
			end = len(rest)
		}
		one := b
		one.TLS = scheme == "ssl" || brokerOption(rest[end:], "ssl") == "true"
		if err := one.at(rest[:end], rest[end:], time.Millisecond); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// at sets the server and its options; unit is that of connectdelay.
func (b *Broker) at(server, query string, unit time.Duration) error {
	host, port := server, "5672"
	if b.TLS {
		port = "5671"
	}
	if h, p, err := net.SplitHostPort(server); err == nil {
		host, port = h, p
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if !strict.IsHost(host) || !strict.IsPort(port) {
		return errBrokerServer
	}
	b.Address = net.JoinHostPort(host, port)
	tries, err := count(cmp.Or(brokerOption(query, "retries"), brokerOption(query, "retry"), "0"))
	if err != nil {
		return err
	}
	delay, err := count(cmp.Or(brokerOption(query, "connectdelay"), "0"))
	b.Tries, b.Pause = max(1, tries), time.Duration(delay)*unit
	return err
}

func count(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, errBrokerServer
	}
	return int(n), nil
}

// brokerOption is the value of an option: name='value', or without the quotes.
func brokerOption(query, name string) string {
	found := regexp.MustCompile(`(?:^|[?&])` + name + `=(?:'([^']*)'|([^&';]*))`).FindStringSubmatch(query)
	if found == nil {
		return ""
	}
	return cmp.Or(found[1], found[2])
}

// Masked is what Brokers understood of a connection string, which it
// reads again: nothing but the passwords is lost.
func (u BrokerURL) Masked() string {
	brokers, err := u.Brokers()
	if err != nil {
		return u.String()
	}
	shown := make([]string, len(brokers))
	for i, b := range brokers {
		shown[i] = b.String()
	}
	return strings.Join(shown, ",")
}

// String is the broker without its password, as a brokerlist of one.
func (b Broker) String() string {
	scheme := "tcp"
	if b.TLS {
		scheme = "ssl"
	}
	return fmt.Sprintf("amqp://%s:%s@adapter/%s?brokerlist='%s://%s?retries='%d'&connectdelay='%d''",
		url.PathEscape(b.User), Secret(b.Password), url.PathEscape(b.VHost), scheme, b.Address, b.Tries, b.Pause.Milliseconds())
}

// Format prints what String returns.
func (b Broker) Format(state fmt.State, _ rune) { strict.Show(state, b.String()) }
