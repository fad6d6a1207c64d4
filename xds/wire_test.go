package xds_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"revocation-adapter/revocation"
	"revocation-adapter/xds"
)

// What is encoded by hand is what protobuf would make of the same messages: for
// each, a Go client reads it, knows all of it, and writes the same bytes.
func TestResponsesAreWhatProtobufMakes(t *testing.T) {
	t.Parallel()
	w := start(t)
	forever := revoked("for ever", later)
	forever.Expiry, forever.Lifetime = revocation.Never, revocation.Forever
	w.put(
		revoked("fc8ee897-b3d9-3bb6-a9ca-f4aeb036e5c0", later),
		revoked("k", origin.Add(time.Second+time.Millisecond)),
		revoked("within the grace", origin.Add(-grace+1500*time.Millisecond)),
		revoked("almost gone", origin.Add(-grace+time.Millisecond)),
		revoked(strings.Repeat("long", revocation.MaxKey/4), later),
		revoked("ä\x00\n", later),
		forever, ofDomain(revocation.DomainOpaque, "opaque"),
		approved("approved"), approved(strings.Repeat("gone", revocation.MaxKey/4)),
	)
	t.Run("state of the world", func(t *testing.T) {
		raw := rawResponse(t, w, discovery.AggregatedDiscoveryService_StreamAggregatedResources_FullMethodName,
			&discovery.DiscoveryRequest{TypeUrl: xds.TypeURL})
		resp := new(discovery.DiscoveryResponse)
		if n := entries(t, raw, resp, func(i int) proto.Message { return resp.GetResources()[i] }); n != 8 {
			t.Errorf("%d tokens, want 8", n)
		}
		for _, r := range resp.GetResources() {
			token := tokenOf(t, r)
			known(t, token)
			sameBytes(t, r.GetValue(), token)
		}
	})
	t.Run("delta", func(t *testing.T) {
		raw := rawResponse(t, w, discovery.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName,
			&discovery.DeltaDiscoveryRequest{TypeUrl: xds.TypeURL})
		resp := new(discovery.DeltaDiscoveryResponse)
		if n := entries(t, raw, resp, func(i int) proto.Message { return resp.GetResources()[i] }); n != 8 {
			t.Errorf("%d tokens, want 8", n)
		}
		if n := len(resp.GetRemovedResources()); n != 2 {
			t.Errorf("%d names are removed, want 2", n)
		}
	})
}

// rawResponse is the first response to a request, as it is on the wire.
func rawResponse(t *testing.T, w *world, method string, request proto.Message) []byte {
	t.Helper()
	stream, err := w.dial().NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
		method, grpc.ForceCodec(rawCodec{}))
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := proto.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(encoded); err != nil {
		t.Fatal(err)
	}
	var response []byte
	if err := stream.RecvMsg(&response); err != nil {
		t.Fatal(err)
	}
	return response
}

// entries reads raw into resp, compares the bytes of each of its resources with
// what protobuf makes of it, and returns how many those are.
func entries(t *testing.T, raw []byte, resp proto.Message, entry func(i int) proto.Message) (n int) {
	t.Helper()
	if err := proto.Unmarshal(raw, resp); err != nil {
		t.Fatal(err)
	}
	const resources = 2 // in both responses
	known(t, resp)
	if size := proto.Size(resp); size != len(raw) {
		t.Errorf("%d bytes, protobuf needs %d", len(raw), size)
	}
	for rest := raw; len(rest) > 0; {
		number, kind, size := protowire.ConsumeTag(rest)
		value := protowire.ConsumeFieldValue(number, kind, rest[size:])
		if value < 0 {
			t.Fatal(protowire.ParseError(value))
		}
		if number == resources {
			inner, _ := protowire.ConsumeBytes(rest[size:])
			sameBytes(t, inner, entry(n))
			n++
		}
		rest = rest[size+value:]
	}
	return n
}

func sameBytes(t *testing.T, raw []byte, m proto.Message) {
	t.Helper()
	want, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(raw, want) {
		t.Errorf("encoded as %x, protobuf makes %x", raw, want)
	}
}

// known fails if a message holds fields that its reader does not know.
func known(t *testing.T, m proto.Message) {
	t.Helper()
	if unknown := m.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		t.Errorf("%s has unknown fields: %x", m.ProtoReflect().Descriptor().Name(), unknown)
	}
	m.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.Message() == nil:
		case field.IsList():
			for i := range v.List().Len() {
				known(t, v.List().Get(i).Message().Interface())
			}
		default:
			known(t, v.Message().Interface())
		}
		return true
	})
}

// A response is large because of what it carries, whatever that is: names that
// need the most bytes beside themselves are counted as well.
func TestEveryKindOfChunkIsUnderTheLimit(t *testing.T) {
	t.Parallel()
	names := slices.Concat(uuids(1, 20_000), long(2, 1_000))
	w := start(t)
	var changes []revocation.Revocation
	for i, name := range names {
		r := revoked(name, later.Add(time.Duration(i)*time.Nanosecond))
		if i%3 == 0 {
			r = approved(name)
		}
		changes = append(changes, r)
	}
	head := w.put(changes...)
	everything, byName := w.delta(t), w.deltaWith(t, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: names})
	risingDelta(t, everything.follow(head), head)
	for len(byName.held) < len(w.truth()) {
		if n := proto.Size(byName.accept()); n >= tooLarge {
			t.Errorf("a response has %d bytes", n)
		}
	}
	same(t, everything.held, w.truth())
	same(t, byName.held, w.truth())
}
