// Package extauthz answers Envoy's external authorization over gRPC
// (envoy.service.auth.v3).
//
// Every check is answered: what cannot be read is denied, never failed, since a
// gateway may be set to let failed checks pass.
package extauthz

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"revocation-adapter/enforcer/gate"
)

// Config says how checks are answered.
type Config struct {
	Decide func(ctx context.Context, r gate.Request) gate.Answer
	Ready  func() bool   // what the health service tells
	TLS    *tls.Config   // nil: plaintext
	Drain  time.Duration // how long checks may go on after the end
}

// Server answers checks.
type Server struct {
	authv3.UnimplementedAuthorizationServer
	cfg Config
}

// maxCheck is the largest check in bytes: Envoy may send the body of a call.
const maxCheck = 8 << 20

// New returns a Server that answers nothing before Run.
func New(cfg Config) *Server { return &Server{cfg: cfg} }

// Run answers on lis until ctx ends, and the checks of then.
func (s *Server) Run(ctx context.Context, lis net.Listener) error {
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxCheck),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
	if s.cfg.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(s.cfg.TLS)))
	}
	server := grpc.NewServer(options...)
	authv3.RegisterAuthorizationServer(server, s)
	grpc_health_v1.RegisterHealthServer(server, health{ready: s.cfg.Ready, end: ctx.Done()})
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		cut := time.AfterFunc(s.cfg.Drain, server.Stop)
		defer cut.Stop()
		server.GracefulStop()
	})
	err := server.Serve(lis)
	if stop() { // it failed by itself
		return fmt.Errorf("ext_authz: %w", err)
	}
	<-ended
	if err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("ext_authz: %w", err)
	}
	return ctx.Err()
}

// Check answers one call.
func (s *Server) Check(ctx context.Context, check *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	r := requestOf(check.GetAttributes().GetRequest().GetHttp())
	r.Malformed = check.GetAttributes() == nil // it says nothing, or could not be read
	return response(s.cfg.Decide(ctx, r)), nil
}

// requestOf reads headers in both forms that Envoy sends: a map with repeated ones
// joined, or a list of raw values.
func requestOf(http *authv3.AttributeContext_HttpRequest) gate.Request {
	headers := map[string][]string{}
	for name, value := range http.GetHeaders() {
		headers[name] = []string{value}
	}
	for _, h := range http.GetHeaderMap().GetHeaders() {
		value := h.GetValue()
		if raw := h.GetRawValue(); len(raw) > 0 {
			value = string(raw)
		}
		headers[h.GetKey()] = append(headers[h.GetKey()], value)
	}
	r := gate.Request{Header: gate.Headers(headers)}
	if target := http.GetPath(); target != "" {
		if query := http.GetQuery(); query != "" && !strings.Contains(target, "?") {
			target += "?" + query
		}
		r.Lines = []gate.Line{{Method: http.GetMethod(), Target: target}}
	}
	return r
}

func response(a gate.Answer) *authv3.CheckResponse {
	if a.Verdict.Pass() {
		return &authv3.CheckResponse{
			Status:       &status.Status{Code: int32(codes.OK)},
			HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}},
		}
	}
	denied := &authv3.DeniedHttpResponse{
		Status: &typev3.HttpStatus{Code: typev3.StatusCode(a.Status)}, //nolint:gosec // a status of HTTP
		Body:   a.Body,
	}
	for _, h := range a.Headers {
		denied.Headers = append(denied.Headers, &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: h.Name, Value: h.Value},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	code := codes.Unauthenticated
	if a.Status >= 500 {
		code = codes.Unavailable
	}
	return &authv3.CheckResponse{
		Status:       &status.Status{Code: int32(code)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: denied},
	}
}
