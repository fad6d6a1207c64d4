package config

import (
	"fmt"
	"net/url"
	"strings"
)

func (h Hub) check(f *faults) {
	switch h.Mode {
	case ModeEmbedded:
		h.checkEmbedded(f)
	case ModeExternal:
		h.checkExternal(f)
	default:
		f.wrong("hub.mode", `"embedded" or "external"`, quoted(h.Mode))
	}
	if h.Store == "" {
		f.add("hub.store", "is required, a directory")
	}
	if h.Replicas != 1 && h.Replicas != 3 && h.Replicas != 5 {
		f.wrong("hub.replicas", "1, 3 or 5", h.Replicas)
	}
	atLeast(f, "hub.max_pending", h.MaxPending, 1000)
	atLeast(f, "hub.max_pending_bytes", h.MaxPendingBytes, 1<<20)
	f.pair("hub.tls", h.TLS.Cert, h.TLS.Key)
}

func (h Hub) checkEmbedded(f *faults) {
	f.listener("hub", listener{h.Listen, h.TLS.Cert != "", h.Insecure})
	if h.TLS.CA != "" && h.TLS.Cert == "" {
		f.add("hub.tls.ca", "needs hub.tls.cert")
	}
	h.inert(f, []setting{
		{"hub.urls", len(h.URLs) > 0},
		{"hub.user", h.User != ""},
		{"hub.password", h.Password != ""},
		{"hub.credentials", h.Credentials != ""},
		{"hub.nkey", h.NKey != ""},
		{"hub.replicas", h.Replicas != Default().Hub.Replicas},
	})
}

func (h Hub) checkExternal(f *faults) {
	if len(h.URLs) == 0 {
		f.add("hub.urls", `is required when hub.mode is "external"`)
	}
	for i, u := range h.URLs {
		h.checkURL(f, fmt.Sprintf("hub.urls[%d]", i), u)
	}
	h.checkIdentity(f)
	h.inert(f, []setting{
		{"hub.listen", h.Listen != Default().Hub.Listen},
	})
}

// checkIdentity allows one way to say who the adapter is: two would leave it
// to the NATS client which one counts.
func (h Hub) checkIdentity(f *faults) {
	var ways []string
	for _, way := range []setting{
		{"hub.user", h.User != ""},
		{"hub.credentials", h.Credentials != ""},
		{"hub.nkey", h.NKey != ""},
	} {
		if way.set {
			ways = append(ways, way.key)
		}
	}
	if len(ways) > 1 {
		f.add(ways[1], "cannot be combined with "+ways[0])
	}
	if h.Password != "" && h.User == "" {
		f.add("hub.password", "needs hub.user")
	}
	for i, u := range h.URLs {
		if len(ways) > 0 && strings.Contains(string(u), "@") {
			f.add(fmt.Sprintf("hub.urls[%d]", i), "names a user, which cannot be combined with "+ways[0])
		}
	}
}

func (h Hub) checkURL(f *faults, key string, u URL) {
	parsed, err := url.Parse(string(u))
	if err != nil || parsed.Scheme != "nats" && parsed.Scheme != "tls" {
		f.wrong(key, "nats:// or tls://", quoted(u.String()))
		return
	}
	if !namesServer(parsed) || strings.ContainsAny(string(u), "?#") {
		f.wrong(key, "scheme://host:port and nothing more", quoted(u.String()))
		return
	}
	if parsed.Scheme == "nats" && !h.Insecure && !isLoopback(parsed.Hostname()) {
		f.add(key, "plaintext beyond loopback: use tls://, or set hub.insecure = true")
	}
}

func namesServer(u *url.URL) bool {
	host, port := u.Hostname(), u.Port()
	if port == "" && strings.HasSuffix(u.Host, ":") {
		return false
	}
	return host != "" && isHost(host) && (port == "" || isPort(port)) && (u.Path == "" || u.Path == "/")
}

type setting struct {
	key string
	set bool
}

// inert refuses settings that the mode ignores: whoever wrote them expects
// something that would not happen.
func (h Hub) inert(f *faults, settings []setting) {
	for _, s := range settings {
		if s.set {
			f.add(s.key, fmt.Sprintf("has no effect when hub.mode is %q", h.Mode))
		}
	}
}
