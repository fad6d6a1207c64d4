package xds_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	keymgtservice "revocation-adapter/resources/proto/wso2/discovery/service/keymgt"
	"revocation-adapter/xds"
)

// authority issues certificates.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	a.key = a.newKey()
	template := a.template(pkix.Name{CommonName: "authority"})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	a.cert = a.sign(template, template, a.key)
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *authority) template(name pkix.Name) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: name,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
}

func (a *authority) sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// issue makes a certificate for a subject.
func (a *authority) issue(name pkix.Name) tls.Certificate {
	a.t.Helper()
	key := a.newKey()
	cert := a.sign(a.template(name), a.cert, key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// serve turns TLS on, with a demand on the clients' certificates.
func (a *authority) serve(demand tls.ClientAuthType) func(*xds.Config) {
	cert := a.issue(pkix.Name{CommonName: "adapter"})
	return func(c *xds.Config) {
		c.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: a.pool, ClientAuth: demand, MinVersion: tls.VersionTLS12}
	}
}

// dial is how a client with certificates connects.
func (a *authority) dial(certs ...tls.Certificate) grpc.DialOption {
	return grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		RootCAs: a.pool, Certificates: certs, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12,
	}))
}

func instance(v *structpb.Value) *core.Node {
	return &core.Node{Id: "commonEnforcerLabel", Metadata: &structpb.Struct{
		Fields: map[string]*structpb.Value{"instanceIdentifier": v},
	}}
}

func TestWhoAGatewayIs(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t), newAuthority(t)
	subject := pkix.Name{CommonName: "gateway one", Organization: []string{"Example"}}
	certificate := ours.issue(subject)
	forged := theirs.issue(subject)
	mutual := []func(*xds.Config){ours.serve(tls.RequireAndVerifyClientCert)}
	cases := []struct {
		name string
		tls  []func(*xds.Config)
		dial []grpc.DialOption
		node *core.Node
		want string // pattern
	}{
		{"subject and instance", mutual, []grpc.DialOption{ours.dial(certificate)}, node("instance 1"), `^CN=gateway one,O=Example/instance 1$`},
		{"subject alone", mutual, []grpc.DialOption{ours.dial(certificate)}, &core.Node{Id: "commonEnforcerLabel"}, `^CN=gateway one,O=Example$`},
		{"no node", mutual, []grpc.DialOption{ours.dial(certificate)}, nil, `^CN=gateway one,O=Example$`},
		{"a certificate that nobody verified", []func(*xds.Config){ours.serve(tls.RequestClientCert)}, []grpc.DialOption{ours.dial(forged)}, node("instance 1"), `^instance 1$`},
		{"TLS without a certificate", []func(*xds.Config){ours.serve(tls.NoClientCert)}, []grpc.DialOption{ours.dial()}, node("instance 1"), `^instance 1$`},
		{"instance alone", nil, nil, node("instance 1"), `^instance 1$`},
		{"neither", nil, nil, &core.Node{Id: "commonEnforcerLabel"}, `^commonEnforcerLabel/127\.0\.0\.1:\d+$`},
		{"nothing at all", nil, nil, nil, `^/127\.0\.0\.1:\d+$`},
		{"an instance that is no text", nil, nil, instance(structpb.NewNumberValue(7)), `^commonEnforcerLabel/127\.0\.0\.1:\d+$`},
		{"an empty instance", nil, nil, node(""), `^commonEnforcerLabel/127\.0\.0\.1:\d+$`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := start(t, c.tls...)
			conn := w.dial(c.dial...)
			if name := nameOf(t, w, conn, c.node); !regexp.MustCompile(c.want).MatchString(name) {
				t.Errorf("the gateway is called %q, want %s", name, c.want)
			}
			later := deltaOn(t.Context(), t, conn) // the other protocol, the same name
			later.send(&discovery.DeltaDiscoveryRequest{Node: c.node})
			later.accept()
			if n := w.metric("revocation_adapter_gateways_connected", "delta"); n != 1 {
				t.Errorf("%v gateways are connected", n)
			}
		})
	}
}

// nameOf opens a stream, refuses what comes, and returns whose refusal is
// logged; the metrics must know it under the same name.
func nameOf(t *testing.T, w *world, conn grpc.ClientConnInterface, who *core.Node) string {
	t.Helper()
	c := openOn(t.Context(), t, streamTokens, conn)
	c.send(&discovery.DiscoveryRequest{Node: who})
	c.nack(c.next())
	w.refusals(1)
	name, ok := w.lines(refusalLine)[0].Data["gateway"].(string)
	if !ok {
		t.Fatalf("logged: %v", w.lines(refusalLine)[0].Data)
	}
	if lag := w.metric(lagMetric, name); lag < 0 {
		t.Errorf("no metric of %q", name)
	}
	return name
}

func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t), newAuthority(t)
	w := start(t, ours.serve(tls.RequireAndVerifyClientCert))
	for name, option := range map[string]grpc.DialOption{
		"no certificate":             ours.dial(),
		"another authority's client": ours.dial(theirs.issue(pkix.Name{CommonName: "gateway one"})),
		"plaintext":                  grpc.EmptyDialOption{},
	} {
		t.Run(name, func(t *testing.T) {
			client := keymgtservice.NewRevokedTokenDiscoveryServiceClient(w.dial(option))
			if _, err := client.FetchTokens(t.Context(), &discovery.DiscoveryRequest{}); err == nil {
				t.Error("it is served")
			}
		})
	}
}

// What a gateway calls itself ends up in the log and in metrics.
func TestHostileInstanceIdentifiersAreBounded(t *testing.T) {
	t.Parallel()
	for name, identifier := range map[string]string{
		"10 kB":              strings.Repeat("x", 10_000),
		"10 kB of umlauts":   strings.Repeat("ä", 5_000),
		"cut within a rune":  strings.Repeat("x", 255) + "ää",
		"new lines":          "gateway\nERRO [server.go:1] forged\r\n",
		"control characters": "a\x00b\x1b[31mred",
		"separators":         "a\u2028b\u2029c",
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t)
			got := nameOf(t, w, w.dial(), node(identifier))
			if len(got) > 256 || !utf8.ValidString(got) || !strings.HasPrefix(identifier, got) {
				t.Errorf("the gateway is called %d bytes: %.80q", len(got), got)
			}
		})
	}
}

// rawCodec sends bytes as they are: no Go client would.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error)      { return v.([]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }
func (rawCodec) Name() string                       { return "proto" }

func TestInvalidTextEndsItsStreamAlone(t *testing.T) {
	t.Parallel()
	w := start(t)
	other := w.subscribe(t, streamTokens, "")
	other.accept()
	whole, err := proto.Marshal(&discovery.DiscoveryRequest{Node: node("instance"), TypeUrl: xds.TypeURL})
	if err != nil {
		t.Fatal(err)
	}
	for name, request := range map[string][]byte{
		"not UTF-8": bytes.Replace(whole, []byte("instance"), []byte("inst\xff\xfece"), 2),
		"cut off":   whole[:len(whole)-3],
		"noise":     bytes.Repeat([]byte{0xff}, 100),
	} {
		t.Run(name, func(t *testing.T) {
			err := sendRaw(t.Context(), w.dial(), request)
			if code := status.Code(err); code == codes.OK || code == codes.Unavailable {
				t.Errorf("the stream ended with %v", err)
			}
		})
	}
	w.revoke("a")
	other.gets("a")
}

func sendRaw(ctx context.Context, conn *grpc.ClientConn, request []byte) error {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
		keymgtservice.RevokedTokenDiscoveryService_StreamTokens_FullMethodName, grpc.ForceCodec(rawCodec{}))
	if err != nil {
		return err
	}
	if err := stream.SendMsg(request); err != nil {
		return err
	}
	var response []byte
	return stream.RecvMsg(&response)
}
