package config

import "revocation-adapter/config/strict"

// Files are the certificate, key and credentials files that are named.
func (c Config) Files() []strict.File {
	files := []strict.File{
		{Key: "hub.tls.ca", Path: c.Hub.TLS.CA},
		{Key: "hub.tls.cert", Path: c.Hub.TLS.Cert},
		{Key: "hub.tls.key", Path: c.Hub.TLS.Key, Secret: true},
		{Key: "amqp.tls.ca", Path: c.AMQP.TLS.CA},
		{Key: "amqp.tls.cert", Path: c.AMQP.TLS.Cert},
		{Key: "amqp.tls.key", Path: c.AMQP.TLS.Key, Secret: true},
		{Key: "control_plane.ca", Path: c.ControlPlane.CA},
		{Key: "xds.tls.cert", Path: c.XDS.TLS.Cert},
		{Key: "xds.tls.key", Path: c.XDS.TLS.Key, Secret: true},
		{Key: "xds.tls.client_ca", Path: c.XDS.TLS.ClientCA},
		{Key: "control.tls.cert", Path: c.Control.TLS.Cert},
		{Key: "control.tls.key", Path: c.Control.TLS.Key, Secret: true},
		{Key: "control.tls.client_ca", Path: c.Control.TLS.ClientCA},
	}
	files = append(files, issuerFiles(c.Issuers)...)
	if c.Hub.Mode != ModeExternal {
		return files // these two have no effect, which is their fault already
	}
	return append(files,
		strict.File{Key: "hub.credentials", Path: c.Hub.Credentials, Secret: true},
		strict.File{Key: "hub.nkey", Path: c.Hub.NKey, Secret: true})
}
