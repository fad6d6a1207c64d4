package extauthz

import (
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// codec is that of protobuf, but that a check which cannot be read, such as one of a
// call whose path is no UTF-8, is an empty one: gRPC would fail it.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	err := c.CodecV2.Unmarshal(data, v)
	if check, is := v.(*authv3.CheckRequest); is && err != nil {
		check.Reset()
		return nil //nolint:nilerr // it is denied
	}
	return err
}
