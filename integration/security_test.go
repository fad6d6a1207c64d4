package integration_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func TestClosedByDefault(t *testing.T) {
	a := startAdapter(t)
	g := connectGateway(t, a, rtds, "")
	guarded := event("guarded", inAnHour())
	a.publish(t, guarded)
	g.awaits(t, "guarded")

	var denied atomic.Int64
	conn := a.connect(t, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) { denied.Add(1) }))
	spied := make(chan *nats.Msg, 100)
	if _, err := conn.ChanSubscribe("_INBOX.>", spied); err != nil {
		t.Fatal(err)
	}
	attempts := int64(0)
	for _, subject := range []string{
		"tokenApproval", "tokenIssued", "revoked.token.x", "deadletter.x", "$JS.API.STREAM.PURGE.REVOCATIONS",
		"$JS.API.STREAM.DELETE.REVOCATIONS", "$JS.API.INFO", "$SYS.REQ.SERVER.PING", "anything",
	} {
		attempts++
		if err := conn.Publish(subject, []byte(envelope(guarded))); err != nil {
			t.Fatal(err)
		}
	}
	for _, subject := range []string{">", "tokenRevocation", "tokenApproval", "revoked.>", "$JS.>", "$SYS.>", "deadletter.>"} {
		attempts++
		if _, err := conn.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "every attempt is denied", func() bool { return denied.Load() == attempts })
	before := g.acked()
	for _, reply := range []string{"revoked.token.x", "tokenApproval", "$JS.API.STREAM.PURGE.REVOCATIONS"} {
		msg := &nats.Msg{Subject: "tokenRevocation", Reply: reply, Data: []byte(envelope(guarded))}
		if err := conn.PublishMsg(msg); err != nil {
			t.Fatal(err)
		}
	}
	a.publish(t, event("after-attack", inAnHour()))
	g.awaits(t, "guarded", "after-attack")
	if got := g.number(t); fmt.Sprint(got-1) != before {
		t.Errorf("version %d after one more event, was %s: something else was written", got, before)
	}
	for {
		select {
		case msg := <-spied:
			if bytes.Contains(msg.Data, []byte("revokedToken")) {
				t.Errorf("the spy saw an event: %s", msg.Data)
			}
			continue
		default:
		}
		break
	}
}

func TestOpaqueTokenNowhere(t *testing.T) {
	const secret = "opaque-7f3c1b9e-planted"
	a := startAdapter(t)
	g := connectGateway(t, a, rtds, "")
	for i, payload := range []string{
		`{"eventId":"1","revokedToken":"` + secret + `","expiryTime":0,"type":"Default"}`,
		`{"eventId":"2","revokedToken":"` + secret + `","expiryTime":-1,"type":"Default"}`,
		`{"eventId":"3","revokedToken":"` + secret + `","expiryTime":0,"type":"WHO_KNOWS","accessToken":"` + secret + `"}`,
		`{"eventId":"4","revokedToken":["` + secret + `"],"expiryTime":0,"type":"JWT"}`,
	} {
		a.publish(t, payload)
		if i == 0 {
			eventually(t, "the digest is served", func() bool { held, _ := g.count(); return held == 1 })
		}
	}
	if code, out, _ := a.run(t, "revoke", secret, "--type", "Default"); code != 0 || strings.Contains(out, secret) {
		t.Errorf("revoke: exit %d, %s", code, out)
	}
	var list string
	eventually(t, "three dead letters", func() bool {
		_, list, _ = a.run(t, "deadletter", "list")
		return strings.Count(list, "tokenRevocation") == 3
	})
	for i := 1; i <= 3; i++ {
		_, shown, _ := a.run(t, "deadletter", "show", fmt.Sprint(i))
		list += shown
	}
	_, metrics := a.get(t, "/metrics")
	for place, text := range map[string]string{"log": a.log.String(), "dead letters": list, "metrics": metrics} {
		if strings.Contains(text, secret) {
			t.Errorf("the opaque token is in the %s", place)
		}
	}
	g.mu.Lock()
	for name := range g.held {
		if strings.Contains(name, secret) {
			t.Errorf("the opaque token is served: %s", name)
		}
	}
	g.mu.Unlock()
	a.stop(t)
	notInFiles(t, a.dir, secret)
}

// notInFiles fails if a text is in the clear in a file of a folder.
func notInFiles(t *testing.T, dir string, texts ...string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		for _, text := range texts {
			if bytes.Contains(data, []byte(text)) {
				t.Errorf("what nobody may see is in the clear in %s", path)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMutualTLS(t *testing.T) {
	ca := newAuthority(t, "ca")
	stranger := newAuthority(t, "stranger")
	dir := t.TempDir()
	a := newAdapter(t, map[string]string{"xds": fmt.Sprintf("[xds.tls]\ncert = %q\nkey = %q\nclient_ca = %q\n",
		ca.issue(t, dir, "server"), filepath.Join(dir, "server.key"), ca.write(t, dir))})
	a.start(t)
	a.awaitReady(t)
	a.publish(t, event("over-tls", inAnHour()))
	eventually(t, "it is revoked", func() bool { _, body := a.get(t, "/readyz"); return strings.Contains(body, `"revoked":1`) })

	caFile := filepath.Join(dir, "ca.pem")
	cert, key := ca.issue(t, dir, "gw1"), filepath.Join(dir, "gw1.key")
	code, out, errOut := a.run(t, "watch", "--count", "1", "--json", "--ca", caFile, "--cert", cert, "--key", key)
	if code != 0 || !strings.Contains(out, "over-tls") {
		t.Errorf("with its certificate: exit %d, %s%s", code, out, errOut)
	}
	cert, key = stranger.issue(t, dir, "gw2"), filepath.Join(dir, "gw2.key")
	for name, args := range map[string][]string{
		"without a certificate":            {"--ca", caFile},
		"with a certificate of a stranger": {"--ca", caFile, "--cert", cert, "--key", key},
		"in plaintext":                     nil,
	} {
		if code, out, _ := a.run(t, append([]string{"watch", "--count", "1"}, args...)...); code != 3 {
			t.Errorf("%s: exit %d, want 3: %s", name, code, out)
		}
	}
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	name string
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{name: name, key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// write writes the authority's certificate and returns its path.
func (a *authority) write(t *testing.T, dir string) string {
	t.Helper()
	return writePEM(t, filepath.Join(dir, a.name+".pem"), "CERTIFICATE", a.cert.Raw)
}

// issue writes name.pem and name.key and returns the path of the first.
func (a *authority) issue(t *testing.T, dir, name string) string {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, name+".key"), "EC PRIVATE KEY", encoded)
	if _, err := tls.LoadX509KeyPair(writePEM(t, filepath.Join(dir, name+".pem"), "CERTIFICATE", der), filepath.Join(dir, name+".key")); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name+".pem")
}

func writePEM(t *testing.T, path, kind string, der []byte) string {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
