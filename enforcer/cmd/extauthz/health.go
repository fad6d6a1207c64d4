package extauthz

import (
	"context"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// health tells whether checks should be sent here, of the server as a whole and of
// the one service.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	ready func() bool
	end   <-chan struct{} // closed when the server stops
}

// watchEvery is how soon who watches hears of a change.
const watchEvery = 200 * time.Millisecond

func (h health) Check(_ context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if !known(r) {
		return nil, status.Error(codes.NotFound, "unknown service")
	}
	return &grpc_health_v1.HealthCheckResponse{Status: h.status()}, nil
}

// Watch tells of every change until the client or the server leaves.
func (h health) Watch(r *grpc_health_v1.HealthCheckRequest, stream grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	told := grpc_health_v1.HealthCheckResponse_UNKNOWN
	for {
		now := grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
		if known(r) {
			now = h.status()
		}
		if now != told {
			if err := stream.Send(&grpc_health_v1.HealthCheckResponse{Status: now}); err != nil {
				return err
			}
			told = now
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-h.end:
			return status.Error(codes.Unavailable, "the enforcer stops")
		case <-time.After(watchEvery):
		}
	}
}

func known(r *grpc_health_v1.HealthCheckRequest) bool {
	return r.GetService() == "" || r.GetService() == authv3.Authorization_ServiceDesc.ServiceName
}

func (h health) status() grpc_health_v1.HealthCheckResponse_ServingStatus {
	if h.ready() {
		return grpc_health_v1.HealthCheckResponse_SERVING
	}
	return grpc_health_v1.HealthCheckResponse_NOT_SERVING
}
