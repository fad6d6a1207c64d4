package config

import (
	"fmt"
	"net/url"
	"strings"

	"revocation-adapter/config/strict"
)

func (h Hub) check(f *strict.Faults) {
	switch h.Mode {
	case ModeEmbedded:
		h.checkEmbedded(f)
	case ModeExternal:
		h.checkExternal(f)
	default:
		f.Wrong("hub.mode", `"embedded" or "external"`, strict.Quoted(h.Mode))
	}
	if h.Store == "" {
		f.Add("hub.store", "is required, a directory")
	}
	if h.Replicas != 1 && h.Replicas != 3 && h.Replicas != 5 {
		f.Wrong("hub.replicas", "1, 3 or 5", h.Replicas)
	}
	strict.AtLeast(f, "hub.max_pending", h.MaxPending, 1000)
	strict.AtLeast(f, "hub.max_pending_bytes", h.MaxPendingBytes, 1<<20)
	f.Pair("hub.tls", h.TLS.Cert, h.TLS.Key)
}

func (h Hub) checkEmbedded(f *strict.Faults) {
	f.Listener("hub", strict.Listener{Address: h.Listen, Secured: h.TLS.Cert != "", Insecure: h.Insecure})
	if h.TLS.CA != "" && h.TLS.Cert == "" {
		f.Add("hub.tls.ca", "needs hub.tls.cert")
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

func (h Hub) checkExternal(f *strict.Faults) {
	if len(h.URLs) == 0 {
		f.Add("hub.urls", `is required when hub.mode is "external"`)
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
func (h Hub) checkIdentity(f *strict.Faults) {
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
		f.Add(ways[1], "cannot be combined with "+ways[0])
	}
	if h.Password != "" && h.User == "" {
		f.Add("hub.password", "needs hub.user")
	}
	for i, u := range h.URLs {
		if len(ways) > 0 && strings.Contains(string(u), "@") {
			f.Add(fmt.Sprintf("hub.urls[%d]", i), "names a user, which cannot be combined with "+ways[0])
		}
	}
}

func (h Hub) checkURL(f *strict.Faults, key string, u URL) {
	parsed, err := url.Parse(string(u))
	if err != nil || parsed.Scheme != "nats" && parsed.Scheme != "tls" {
		f.Wrong(key, "nats:// or tls://", strict.Quoted(u.String()))
		return
	}
	if !namesServer(parsed) || strings.ContainsAny(string(u), "?#") {
		f.Wrong(key, "scheme://host:port and nothing more", strict.Quoted(u.String()))
		return
	}
	if parsed.Scheme == "nats" && !h.Insecure && !strict.IsLoopback(parsed.Hostname()) {
		f.Add(key, "plaintext beyond loopback: use tls://, or set hub.insecure = true")
	}
}

func namesServer(u *url.URL) bool {
	host, port := u.Hostname(), u.Port()
	if port == "" && strings.HasSuffix(u.Host, ":") {
		return false
	}
	return host != "" && strict.IsHost(host) && (port == "" || strict.IsPort(port)) && (u.Path == "" || u.Path == "/")
}

type setting struct {
	key string
	set bool
}

// inert refuses settings that the mode ignores: whoever wrote them expects
// something that would not happen.
func (h Hub) inert(f *strict.Faults, settings []setting) {
	for _, s := range settings {
		if s.set {
			f.Add(s.key, fmt.Sprintf("has no effect when hub.mode is %q", h.Mode))
		}
	}
}
