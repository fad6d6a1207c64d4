package config

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// listener is an address with what makes it acceptable beyond loopback.
type listener struct {
	address  string
	secured  bool
	insecure bool
}

func (f *faults) listener(section string, l listener) {
	key := section + ".listen"
	host, port, err := net.SplitHostPort(l.address)
	if err != nil || !isPort(port) || host != "" && !isHost(host) {
		f.wrong(key, "host:port", quoted(l.address))
		return
	}
	if !isLoopback(host) && !l.secured && !l.insecure {
		f.add(key, "plaintext beyond loopback: set "+section+".tls.cert and key, or "+section+".insecure = true")
	}
}

func isPort(port string) bool {
	_, err := strconv.ParseUint(port, 10, 16)
	return err == nil
}

// isHost accepts an IP address or the letters of a host name.
func isHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host != "" && !strings.ContainsFunc(host, func(c rune) bool {
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		return !alphanumeric && !strings.ContainsRune("-._", c)
	})
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
