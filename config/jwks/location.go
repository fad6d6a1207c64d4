package jwks

import (
	"net/url"
	"strings"

	"revocation-adapter/config/strict"
)

// CheckSource accepts a path, https://, and http:// on this machine: whoever can
// change keys on their way can make tokens.
func CheckSource(f *strict.Faults, key string, source strict.URL) {
	if IsFile(source) {
		if source == "" {
			f.Add(key, "is empty: a file or an https:// URL")
		}
		return
	}
	parsed, err := url.Parse(string(source))
	switch {
	case err != nil || parsed.Scheme != "https" && parsed.Scheme != "http" || parsed.Hostname() == "":
		f.Wrong(key, "a file or an https:// URL", strict.Quoted(source.String()))
	case parsed.User != nil:
		f.Add(key, "names a user, which is not supported")
	case parsed.Scheme == "http" && !strict.IsLoopback(parsed.Hostname()):
		f.Add(key, "plaintext beyond loopback: use https://")
	}
}

// IsFile says whether a source of keys is the path of a file.
func IsFile(source strict.URL) bool { return !strings.Contains(string(source), "://") }

// Sources splits what a configuration names into files and URLs.
func Sources(all []strict.URL) (files, urls []string) {
	for _, source := range all {
		if IsFile(source) {
			files = append(files, string(source))
		} else {
			urls = append(urls, string(source))
		}
	}
	return files, urls
}
