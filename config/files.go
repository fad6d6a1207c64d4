package config

import (
	"errors"
	"io/fs"
	"os"
	"strings"
)

// checkFiles finds the named certificate, key and credentials files that are
// missing or cannot be read. Relative paths are taken from the working
// directory.
func (c Config) checkFiles() faults {
	var f faults
	for _, named := range c.files() {
		if named.path == "" {
			continue
		}
		if problem := unreadable(named.path); problem != "" {
			f = append(f, fault{named.key, "cannot read the file: " + problem, named.shown()})
		}
	}
	return f
}

type namedFile struct {
	key, path string
	secret    bool // its content is, and may stand here by mistake
}

// shown is empty where the path may be the content itself, pasted in.
func (n namedFile) shown() string {
	if n.secret || strings.Contains(n.path, "\n") {
		return ""
	}
	return quoted(n.path)
}

func (c Config) files() []namedFile {
	files := []namedFile{
		{key: "hub.tls.ca", path: c.Hub.TLS.CA},
		{key: "hub.tls.cert", path: c.Hub.TLS.Cert},
		{key: "hub.tls.key", path: c.Hub.TLS.Key, secret: true},
		{key: "amqp.tls.ca", path: c.AMQP.TLS.CA},
		{key: "amqp.tls.cert", path: c.AMQP.TLS.Cert},
		{key: "amqp.tls.key", path: c.AMQP.TLS.Key, secret: true},
		{key: "control_plane.ca", path: c.ControlPlane.CA},
		{key: "xds.tls.cert", path: c.XDS.TLS.Cert},
		{key: "xds.tls.key", path: c.XDS.TLS.Key, secret: true},
		{key: "xds.tls.client_ca", path: c.XDS.TLS.ClientCA},
		{key: "control.tls.cert", path: c.Control.TLS.Cert},
		{key: "control.tls.key", path: c.Control.TLS.Key, secret: true},
		{key: "control.tls.client_ca", path: c.Control.TLS.ClientCA},
	}
	if c.Hub.Mode != ModeExternal {
		return files // these two have no effect, which is their fault already
	}
	return append(files,
		namedFile{key: "hub.credentials", path: c.Hub.Credentials, secret: true},
		namedFile{key: "hub.nkey", path: c.Hub.NKey, secret: true})
}

// unreadable says why a path is no file that can be read, without the path.
func unreadable(path string) string {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return "not a regular file" // opening a pipe would wait for its writer
	}
	var file *os.File
	if err == nil {
		file, err = os.Open(path)
	}
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err.Error()
	}
	if err != nil {
		return "unknown reason"
	}
	_ = file.Close() // opened for reading only: nothing to lose
	return ""
}
