package integration_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc/credentials"
)

// side is who somebody is and whom he believes: server.pem and client.pem of an
// authority, signed by ca.pem, in a directory of its own.
type side struct {
	dir string
	tls *tls.Config // a client's
}

func newSide(t *testing.T) side {
	t.Helper()
	s, ca := side{dir: t.TempDir()}, newAuthority(t, "ca")
	ca.write(t, s.dir)
	ca.issue(t, s.dir, "server")
	cert, err := tls.LoadX509KeyPair(ca.issue(t, s.dir, "client"), s.path("client.key"))
	if err != nil {
		t.Fatal(err)
	}
	s.tls = &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	s.tls.RootCAs.AddCert(ca.cert)
	return s
}

func (s side) path(name string) string { return filepath.Join(s.dir, name) }

// install copies the server's files to where the adapter reads them.
func (s side) install(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"ca.pem", "server.pem", "server.key"} {
		content, err := os.ReadFile(s.path(name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// admitted says for each port whether a client gets in.
func (s side) admitted(t *testing.T, a *adapter) string {
	t.Helper()
	watched, _, _ := a.run(t, "watch", "--count", "1", "--ca", s.path("ca.pem"), "--cert", s.path("client.pem"), "--key", s.path("client.key"))
	client := http.Client{Transport: &http.Transport{TLSClientConfig: s.tls, DisableKeepAlives: true}}
	resp, err := client.Get("https://" + a.control + "/healthz")
	if err == nil {
		_ = resp.Body.Close() // not read
	}
	conn, natsErr := nats.Connect("tls://"+a.hub, nats.Secure(s.tls))
	if natsErr == nil {
		natsErr = conn.Flush()
		conn.Close()
	}
	return fmt.Sprintf("xds %v, control %v, hub %v", watched == 0, err == nil, natsErr == nil)
}

const (
	everywhere = "xds true, control true, hub true"
	nowhere    = "xds false, control false, hub false"
)

func TestCertificatesChange(t *testing.T) {
	before, after := newSide(t), newSide(t)
	dir := t.TempDir()
	before.install(t, dir)
	files := fmt.Sprintf("cert = %q\nkey = %q\n", filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"))
	ca := fmt.Sprintf("ca = %q\n", filepath.Join(dir, "ca.pem"))
	a := newAdapter(t, map[string]string{
		"xds":  "[xds.tls]\n" + files + "client_" + ca,
		"rest": "[control.tls]\n" + files + "client_" + ca + "[hub.tls]\n" + files + ca,
	})
	a.start(t)
	eventually(t, "whom the first authority signed is admitted", func() bool { return before.admitted(t, a) == everywhere })
	g := runGateway(t, a.dial(t, credentials.NewTLS(before.tls)), delta, "")
	revoke := func(jti string) {
		if code, out, errOut := a.run(t, "revoke", jti); code != 0 {
			t.Fatalf("revoke: exit %d, %s%s", code, out, errOut)
		}
		g.awaits(t, jti)
	}
	var lost atomic.Int64
	publisher, err := nats.Connect("tls://"+a.hub, nats.Secure(before.tls), nats.DisconnectErrHandler(func(*nats.Conn, error) { lost.Add(1) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(publisher.Close)
	revoke("before")

	after.install(t, dir)
	eventually(t, "whom the second authority signed is admitted", func() bool { return after.admitted(t, a) == everywhere })
	if got := before.admitted(t, a); got != nowhere {
		t.Errorf("whom the first authority signed: %s", got)
	}
	revoke("between")
	changed, broken := a.tlsLines("INFO"), a.tlsLines("ERRO")
	if changed != 3 || broken != 0 {
		t.Errorf("%d changes are logged, and %d broken", changed, broken)
	}

	if err := os.WriteFile(filepath.Join(dir, "server.pem"), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the broken file is logged", func() bool {
		if got := after.admitted(t, a); got != everywhere {
			t.Fatalf("with a broken file: %s", got)
		}
		return a.tlsLines("ERRO") == 3
	})
	if err := publisher.Publish("tokenRevocation", []byte(envelope(event("by-open-connection", inAnHour())))); err != nil {
		t.Fatal(err)
	}
	g.awaits(t, "before", "between", "by-open-connection")
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.ends) != 0 || lost.Load() != 0 {
		t.Errorf("the stream ended with %v, the connection %d times", g.ends, lost.Load())
	}
}

// tlsLines counts what the log says of TLS files, once for each port.
func (a *adapter) tlsLines(level string) (n int) {
	for line := range strings.Lines(a.log.String()) {
		if strings.Contains(line, " "+level+" [") && strings.Contains(line, "[tlsfiles.look]") {
			n++
		}
	}
	return n
}
