package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"

	"revocation-adapter/config/logformat"
	"revocation-adapter/enforcer"
	"revocation-adapter/enforcer/cmd/config"
	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hub is an adapter that follows nobody: it serves what a test revokes, over a
// real connection.
type hub struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	revocationv1.UnimplementedClaimServiceServer
	address string

	mu      sync.Mutex
	digests []revocation.Digest // in the order of versions, of which the first is 2
	changed chan struct{}       // closed by a change
	claimed map[string]string   // jti → claim id
	claims  chan chan struct{}  // nil: claims are answered at once; else each waits for its channel
}

func newHub(t *testing.T) *hub {
	t.Helper()
	h := &hub{changed: make(chan struct{}), claimed: map[string]string{}}
	lis := listen(t)
	h.address = lis.Addr().String()
	server := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(server, h)
	revocationv1.RegisterClaimServiceServer(server, h)
	served := make(chan error, 1)
	go func() { served <- server.Serve(lis) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return h
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return lis
}

func (h *hub) revoke(d revocation.Domain, key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.digests = append(h.digests, revocation.DigestOf(d, key))
	close(h.changed)
	h.changed = make(chan struct{})
}

// StreamAggregatedResources sends the whole set, then what comes to it.
func (h *hub) StreamAggregatedResources(s discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	if _, err := s.Recv(); err != nil {
		return err
	}
	for at, first := 0, true; ; first = false {
		h.mu.Lock()
		added, changed := h.digests[at:], h.changed
		h.mu.Unlock()
		if err := send(s, at, added, first); err != nil {
			return err
		}
		at += len(added)
		if _, err := s.Recv(); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

func send(s discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer, at int, added []revocation.Digest, whole bool) error {
	from, to := uint64(at+1), uint64(at+1+len(added))
	b := &revocationv1.Batch{
		Reset_: whole, FromVersion: from, ToVersion: to, HeadVersion: to,
		CompleteVersion: to, CompleteAtMicros: time.Now().UnixMicro(), Expiries: make([]byte, len(added)),
	}
	if whole {
		b.FromVersion = 0
	}
	for _, d := range added {
		b.Digests = append(b.Digests, d[:]...)
	}
	packed, err := anypb.New(b)
	if err != nil {
		return err
	}
	return s.Send(&discovery.DiscoveryResponse{
		TypeUrl: enforcer.BatchType, VersionInfo: fmt.Sprintf("%d-proof", to), Nonce: fmt.Sprint(to), Resources: []*anypb.Any{packed},
	})
}

// Claim grants each jti once.
func (h *hub) Claim(ctx context.Context, r *revocationv1.ClaimRequest) (*revocationv1.ClaimResponse, error) {
	h.mu.Lock()
	claims := h.claims
	h.mu.Unlock()
	if claims != nil {
		held := make(chan struct{})
		select {
		case claims <- held:
			<-held
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if id, used := h.claimed[r.GetJti()]; used && id != r.GetClaimId() {
		return &revocationv1.ClaimResponse{Outcome: revocationv1.ClaimResponse_OUTCOME_REVOKED}, nil
	}
	h.claimed[r.GetJti()] = r.GetClaimId()
	return &revocationv1.ClaimResponse{Outcome: revocationv1.ClaimResponse_OUTCOME_GRANTED}, nil
}

func (h *hub) claimID(jti string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.claimed[jti]
}

// output is the log of a process.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(text []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(text)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// running is the process, without being one.
type running struct {
	extAuthz, forwardAuth, control string // addresses
	log                            *output
	stop                           context.CancelFunc
	ended                          chan error
}

// settings are those of a test: free ports, and h as the adapter.
func settings(t *testing.T, h *hub) config.Config {
	t.Helper()
	cfg := config.Default()
	cfg.Log.Level = "debug"
	cfg.Adapter.Addresses = []string{h.address}
	cfg.Gateway.Instance = "gateway-1"
	cfg.Set.SnapshotFile = filepath.Join(t.TempDir(), "snapshot")
	cfg.ExtAuthz.Listen, cfg.ForwardAuth.Listen, cfg.Control.Listen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	return cfg
}

func begin(t *testing.T, cfg config.Config) *running {
	t.Helper()
	r := &running{log: &output{}, ended: make(chan error, 1)}
	log, err := logformat.New(r.log, cfg.Log.Level)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.stop = cancel
	go func() { r.ended <- run(ctx, cfg, log) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-r.ended; err != nil {
			t.Errorf("the process ended with %v", err)
		}
	})
	eventually(t, "it listens", func() bool { return strings.Contains(r.log.String(), "The enforcer listens") })
	addresses := regexp.MustCompile(`listens \[control=(\S+) ext_authz=(\S+) forward_auth=(\S+) `).FindStringSubmatch(r.log.String())
	if addresses == nil {
		t.Fatalf("no addresses in %s", r.log)
	}
	r.control, r.extAuthz, r.forwardAuth = addresses[1], addresses[2], addresses[3]
	return r
}

// start begins and waits until it is ready.
func start(t *testing.T, cfg config.Config) *running {
	t.Helper()
	r := begin(t, cfg)
	r.ready(t)
	return r
}

func (r *running) ready(t *testing.T) {
	t.Helper()
	eventually(t, "it is ready", func() bool {
		code, _ := r.get(t, "http://"+r.control+"/readyz")
		return code == http.StatusOK
	})
}

func (r *running) get(t *testing.T, url string, headers ...string) (int, string) {
	t.Helper()
	resp, body := ask(t, http.MethodGet, url, headers...)
	return resp.StatusCode, body
}

// ask sends a request with headers as pairs.
func ask(t *testing.T, method, url string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.After(time.Minute); !is(); {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// jwt is an unsigned token with that jti, and claims after it.
func jwt(id string, more ...string) string {
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	claims := append([]string{`"jti":"` + id + `"`}, more...)
	return encode(`{"alg":"RS256"}`) + "." + encode("{"+strings.Join(claims, ",")+"}") + "." + encode("signature")
}

func once(id string) string { return jwt(id, `"scope":"OTT"`) }

func bearer(token string) string { return "Bearer " + token }
