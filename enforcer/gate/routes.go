package gate

import (
	"errors"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// Route is where tokens are used up.
type Route struct {
	Path    string   // decoded; exact, or a prefix that ends with /*
	Methods []string // empty: all
	Scope   string   // of the tokens that are used up; "": all
}

// route is a Route as it is compared: in lower case.
type route struct {
	path    string // without /*, and without a slash at its end
	prefix  bool
	methods []string
	scope   string
}

var errRoute = errors.New("the path must begin with a slash, and may have a * only in a /* at its end")

func (r Route) compile() (route, error) {
	base, prefix := strings.CutSuffix(r.Path, "/*")
	if !strings.HasPrefix(r.Path, "/") || strings.Contains(base, "*") {
		return route{}, errRoute
	}
	c := route{path: strings.TrimRight(strings.ToLower(base), "/"), prefix: prefix, scope: r.Scope}
	for _, method := range r.Methods {
		c.methods = append(c.methods, strings.ToUpper(method))
	}
	return c, nil
}

// matching returns the routes that a call may be for: where it is in doubt, as
// many as there are.
func (g *Gate) matching(r Request) []route {
	if len(g.routes) == 0 || len(r.Lines) == 0 {
		return g.routes
	}
	instead := replacements(r)
	var all []route
	var paths []string
	var doubt bool
	for i, line := range r.Lines {
		if i == 0 || line.Target != r.Lines[i-1].Target { // most lines differ in their method alone
			paths, doubt = readings(line.Target)
		}
		methods := append([]string{strings.ToUpper(trim(line.Method))}, instead...)
		for _, one := range g.routes {
			if one.forMethod(methods) && (doubt || slices.ContainsFunc(paths, one.forPath)) {
				all = append(all, one)
			}
		}
	}
	return all
}

func (r route) forPath(p string) bool {
	p = strings.TrimRight(p, "/")
	return p == r.path || r.prefix && strings.HasPrefix(p, r.path+"/")
}

// forMethod is true of an unknown method, and of HEAD where GET is meant, as
// servers answer one with the other.
func (r route) forMethod(methods []string) bool {
	if len(r.methods) == 0 || slices.Contains(methods, "") {
		return true
	}
	return slices.ContainsFunc(methods, func(m string) bool {
		return slices.Contains(r.methods, m) || m == "HEAD" && slices.Contains(r.methods, "GET")
	})
}

// replacements are the methods by which some servers let a client replace that of
// a call, in headers and in the query.
func replacements(r Request) []string {
	var methods []string
	for _, name := range []string{"x-http-method-override", "x-http-method", "x-method-override"} {
		methods = append(methods, r.Header(name)...)
	}
	for i, line := range r.Lines {
		if i > 0 && line.Target == r.Lines[i-1].Target {
			continue
		}
		for key, value := range parameters(line.Target) {
			if named(key, "_method") {
				value, _ = unescape(value)
				methods = append(methods, value)
			}
		}
	}
	var each []string
	for _, value := range methods { // of several with commas some servers take the first, and some the last
		for method := range strings.SplitSeq(value, ",") {
			if method = strings.Trim(method, "+ \t"); method != "" {
				each = append(each, strings.ToUpper(method))
			}
		}
	}
	return each
}

// maxReadings bounds the readings of one target. What has more is in doubt.
const maxReadings = 48

// readings are the paths, in lower case, that servers may read in a target. A
// server may decode, resolve "." and "..", drop parameters after ";" and so on, in
// any order and more than once: every reading is read again in every way. In doubt
// is what has too many, and what is no UTF-8.
func readings(target string) (all []string, doubt bool) {
	var r readingsOf
	r.add(pathOf(strings.TrimSpace(target)))
	for i := 0; i < len(r.all) && !r.doubt; i++ {
		r.readAgain(r.all[i])
	}
	return r.all, r.doubt
}

// readingsOf collects readings, each once.
type readingsOf struct {
	all   []string
	doubt bool
}

func (r *readingsOf) add(text string) {
	valid := utf8.ValidString(text)
	text = strings.ToLower(text)
	switch {
	case !valid:
		r.doubt = true
	case slices.Contains(r.all, text):
	case len(r.all) == maxReadings:
		r.doubt = true
	default:
		r.all = append(r.all, text)
	}
}

// readAgain adds what a server may make of a reading in one step.
func (r *readingsOf) readAgain(text string) {
	also := func(read string) {
		if read != text { // most steps change nothing, and paths may be long
			r.add(read)
		}
	}
	plain, _ := unescape(text)
	also(plain)
	also(path.Clean("/" + text))
	also(strings.ReplaceAll(text, `\`, "/"))
	also(withoutParameters(text))
	also(withoutExtension(text))
	also(withoutScript(text))
	for _, end := range []string{"?", "#", "\x00"} {
		also(upTo(text, end))
	}
	also(strings.TrimRightFunc(text, func(c rune) bool { return c <= ' ' || c == 0x7f }))
	if rest, is := strings.CutPrefix(text, "//"); is { // a server may take what follows for a host
		_, rest, _ = strings.Cut(rest, "/")
		also("/" + rest)
	}
}

// pathOf is the path of a target, which may be a whole URL.
func pathOf(target string) string {
	if i := strings.Index(target, "://"); i >= 0 && !strings.HasPrefix(target, "/") {
		target = target[i+len("://"):]
		_, rest, _ := strings.Cut(target, "/")
		target = "/" + rest
	}
	target, _, _ = strings.Cut(target, "?")
	return target
}

// withoutParameters drops what follows a ";" in each segment.
func withoutParameters(text string) string {
	if !strings.Contains(text, ";") {
		return text
	}
	segments := strings.Split(text, "/")
	for i, segment := range segments {
		segments[i] = upTo(segment, ";")
	}
	return strings.Join(segments, "/")
}

// withoutScript drops the script before what it serves: /index.php/pay is /pay to
// most frameworks.
func withoutScript(text string) string {
	before, after, is := strings.Cut(text, ".php/")
	if !is {
		return text
	}
	return before[:strings.LastIndexByte(before, '/')+1] + after
}

// withoutExtension drops what follows a "." in the last segment: Rails, for one,
// serves /pay.json as /pay.
func withoutExtension(text string) string {
	last := strings.LastIndexByte(text, '/') + 1
	if at := strings.IndexByte(text[last:], '.'); at > 0 {
		return text[:last+at]
	}
	return text
}

func upTo(text, end string) string {
	before, _, _ := strings.Cut(text, end)
	return before
}
