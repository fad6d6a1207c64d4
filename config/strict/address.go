package strict

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Listener is an address with what makes it acceptable beyond loopback.
type Listener struct {
	Address  string
	Secured  bool // it has TLS
	Insecure bool // it may be plaintext
}

// Listener refuses what is no address, and plaintext beyond loopback.
func (f *Faults) Listener(section string, l Listener) {
	key := section + ".listen"
	host, port, err := net.SplitHostPort(l.Address)
	if err != nil || !IsPort(port) || host != "" && !IsHost(host) {
		f.Wrong(key, "host:port", Quoted(l.Address))
		return
	}
	if !IsLoopback(host) && !l.Secured && !l.Insecure {
		f.Add(key, "plaintext beyond loopback: set "+section+".tls.cert and key, or "+section+".insecure = true")
	}
}

// IsPort accepts a port as a number.
func IsPort(port string) bool {
	_, err := strconv.ParseUint(port, 10, 16)
	return err == nil
}

// IsHost accepts an IP address or the letters of a host name.
func IsHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host != "" && !strings.ContainsFunc(host, func(c rune) bool {
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		return !alphanumeric && !strings.ContainsRune("-._", c)
	})
}

// IsLoopback says whether the host is this machine, as far as its name tells.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
