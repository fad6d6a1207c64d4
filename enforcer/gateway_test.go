package enforcer_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"revocation-adapter/enforcer"
	"revocation-adapter/revocation"
)

func TestGuardedHandler(t *testing.T) {
	h := newHub()
	h.completeAt(epoch)
	h.revoke("revoked")
	h.put(revocation.DigestOf(revocation.DomainOpaque, "opaque-1"), item{revoked: true})
	e := start(t, configOf(clockAt(epoch), serve(t, h)))
	reaches(t, e, h.version)
	eventually(t, "ready", func() bool { return e.NotReady() == "" })
	server := httptest.NewServer(guard(e, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	defer server.Close()
	for authorization, want := range map[string]int{
		"Bearer " + signed(`{"jti":"valid"}`):       http.StatusOK,
		"Bearer " + signed(`{"jti":"revoked"}`):     http.StatusUnauthorized,
		"Bearer " + signed(`{"jti":"old","exp":1}`): http.StatusUnauthorized,
		"Bearer opaque-1":                           http.StatusUnauthorized,
		"Bearer opaque-2":                           http.StatusOK,
		"Bearer " + signed(`{"jti":"valid"}`)[1:]:   http.StatusUnauthorized, // somebody may find the JWT in it
		"Bearer eyJ" + signed(`{"jti":"revoked"}`):  http.StatusUnauthorized,
		"Bearer ":    http.StatusUnauthorized,
		"Basic YTpi": http.StatusUnauthorized,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", authorization)
		answer, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close() // nothing was read of it
		if answer.StatusCode != want {
			t.Errorf("%s: %d, want %d", authorization, answer.StatusCode, want)
		}
	}
}

// certificate signs itself, for the loopback address.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// Over mutual TLS; and an adapter that nobody vouches for is not believed.
func TestMutualTLS(t *testing.T) {
	h := newHub()
	h.completeAt(epoch)
	own, pool := certificate(t)
	client, clients := certificate(t)
	a := serveWith(t, h, grpc.NewServer(grpc.WaitForHandlers(true), grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, MinVersion: tls.VersionTLS13,
	}))), "127.0.0.1:0")
	cfg := configOf(clockAt(epoch), a)
	cfg.TLS = &tls.Config{Certificates: []tls.Certificate{client}, RootCAs: pool, MinVersion: tls.VersionTLS13}
	e := start(t, cfg)
	reaches(t, e, h.revoke("one"))

	cfg.TLS = &tls.Config{Certificates: []tls.Certificate{client}, RootCAs: clients, MinVersion: tls.VersionTLS13}
	reg := prometheus.NewRegistry()
	cfg.Metrics = reg
	e = start(t, cfg)
	eventually(t, "it tried", func() bool { return valueOf(t, reg, "revocation_enforcer_reconnects_total") > 2 })
	if e.NotReady() == "" {
		t.Error("an adapter is believed that nobody vouches for")
	}
}

func valueOf(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

func TestMetrics(t *testing.T) {
	c, reg := clockAt(epoch), prometheus.NewRegistry()
	cfg, _ := withFile(t, c, &adapter{address: "127.0.0.1:1"})
	cfg.Metrics = reg
	e := build(t, cfg)
	step{reset: true, to: 10, head: 10, revoke: "a b", version: 10}.check(t, e)
	e.Save()
	c.advance(2 * time.Minute)
	for name, want := range map[string]float64{
		"tokens": 2, "rules": 0, "version": 10, "stale": 1, "connected": 0, "resets_total": 1,
		"snapshot_writes_total": 1, "snapshot_failures_total": 0, "complete_timestamp_seconds": float64(epoch.Unix()),
	} {
		if got := valueOf(t, reg, "revocation_enforcer_"+name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if _, err := enforcer.New(cfg); err == nil || !strings.Contains(err.Error(), "metrics") {
		t.Errorf("registered twice: %v", err)
	}
}

// Metrics of a real stream.
func TestMetricsOfAStream(t *testing.T) {
	h, reg := newHub(), prometheus.NewRegistry()
	h.completeAt(epoch)
	a := serve(t, h)
	cfg := configOf(clockAt(epoch), a)
	cfg.Metrics = reg
	e := start(t, cfg)
	reaches(t, e, h.revoke("one"))
	a.look(func(a *adapter) { a.say = append(a.say, step{from: 5, to: 4}.response()) })
	reaches(t, e, h.revoke("two"))
	eventually(t, "connected", func() bool { return valueOf(t, reg, "revocation_enforcer_connected") == 1 })
	if bad := valueOf(t, reg, "revocation_enforcer_bad_batches_total"); bad != 1 {
		t.Errorf("%v bad batches", bad)
	}
	a.stop()
	eventually(t, "not connected", func() bool { return valueOf(t, reg, "revocation_enforcer_connected") == 0 })
	eventually(t, "tried again", func() bool { return valueOf(t, reg, "revocation_enforcer_reconnects_total") > 1 })
	if good := valueOf(t, reg, "revocation_enforcer_batches_total"); good < 2 {
		t.Errorf("%v batches", good)
	}
}
