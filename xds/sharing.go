package xds

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// sharing is gRPC's codec for protobuf, but for large responses: of those that
// carry a chunk only what is the stream's own is copied. A hundred gateways that
// load the whole set would else hold a copy of each chunk each.
type sharing struct{ encoding.CodecV2 }

func newSharing() sharing { return sharing{encoding.GetCodecV2(proto.Name)} }

// minShared is from how many bytes on a chunk is worth two buffers.
const minShared = 4 << 10

// Marshal implements encoding.CodecV2. A response is its stream's own: nobody
// else looks at it meanwhile.
func (s sharing) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(protoreflect.ProtoMessage)
	if !ok {
		return s.CodecV2.Marshal(v)
	}
	response := m.ProtoReflect()
	chunk := response.GetUnknown()
	if len(chunk) < minShared {
		return s.CodecV2.Marshal(v)
	}
	response.SetUnknown(nil)
	own, err := s.CodecV2.Marshal(v)
	response.SetUnknown(chunk)
	if err != nil {
		return nil, err
	}
	return append(own, mem.SliceBuffer(chunk)), nil
}
