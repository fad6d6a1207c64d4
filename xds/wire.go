package xds

import (
	"strconv"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protowire"

	"revocation-adapter/revocation"
)

// What goes out is encoded once for all streams and carried by each response as
// bytes that protobuf appends as they are. The field numbers are those of
// envoy.service.discovery.v3, google.protobuf, RevokedToken and Rule; a test
// compares the bytes with what protobuf makes of the messages themselves.
const (
	fieldResources protowire.Number = 2 // of both responses
	fieldRemoved   protowire.Number = 6 // of DeltaDiscoveryResponse

	fieldResourceVersion protowire.Number = 1 // of Resource
	fieldResourceAny     protowire.Number = 2
	fieldResourceName    protowire.Number = 3
	fieldResourceTTL     protowire.Number = 6

	fieldAnyType  protowire.Number = 1 // of Any
	fieldAnyValue protowire.Number = 2

	fieldJTI    protowire.Number = 1 // of RevokedToken
	fieldExpiry protowire.Number = 2

	fieldClaim      protowire.Number = 1 // of Rule
	fieldValue      protowire.Number = 2
	fieldBefore     protowire.Number = 3
	fieldRuleExpiry protowire.Number = 4
	fieldTenant     protowire.Number = 5

	fieldSeconds protowire.Number = 1 // of Duration
	fieldNanos   protowire.Number = 2
)

// response makes a message of its own for a stream: go-control-plane writes the
// nonce into it.
func (c *chunk) response() *discovery.DiscoveryResponse {
	r := &discovery.DiscoveryResponse{VersionInfo: c.text, TypeUrl: c.kind.url()}
	r.ProtoReflect().SetUnknown(c.wire)
	return r
}

// deltaResponse is response for the other protocol.
func (c *chunk) deltaResponse() *discovery.DeltaDiscoveryResponse {
	r := &discovery.DeltaDiscoveryResponse{SystemVersionInfo: c.text, TypeUrl: c.kind.url()}
	r.ProtoReflect().SetUnknown(c.wire)
	return r
}

func appendBytes(b []byte, field protowire.Number, value []byte) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendBytes(b, value)
}

func sizeField(field protowire.Number, value int) int {
	return protowire.SizeTag(field) + protowire.SizeBytes(value)
}

// appendAny appends the message of a change in an Any, as a field.
func (k kind) appendAny(b []byte, field protowire.Number, c revocation.Change, name []byte) []byte {
	url, size := k.url(), k.size(c, name)
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(sizeField(fieldAnyType, len(url))+sizeField(fieldAnyValue, size)))
	b = protowire.AppendTag(b, fieldAnyType, protowire.BytesType)
	b = protowire.AppendString(b, url)
	b = protowire.AppendTag(b, fieldAnyValue, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	return k.append(b, c, name)
}

// appendResource appends a change as delta clients get it, with the time that it
// has left: they forget it by themselves.
func (e *encoder) appendResource(b []byte, c revocation.Change, name []byte) []byte {
	var inner [perToken + 2*revocation.MaxKey]byte
	r := protowire.AppendTag(inner[:0], fieldResourceVersion, protowire.BytesType)
	r = protowire.AppendString(r, strconv.FormatUint(c.Version, 10))
	r = e.chunk.kind.appendAny(r, fieldResourceAny, c, name)
	r = appendBytes(r, fieldResourceName, name)
	if c.Lifetime != revocation.Forever {
		var ttl [24]byte
		left := max(time.UnixMilli(c.Expiry).Add(e.grace).Sub(e.now), time.Second)
		r = appendBytes(r, fieldResourceTTL, appendDuration(ttl[:0], left))
	}
	return appendBytes(b, fieldResources, r)
}

func appendDuration(b []byte, d time.Duration) []byte {
	b = protowire.AppendTag(b, fieldSeconds, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(d/time.Second)) // positive
	if nanos := d % time.Second; nanos > 0 {
		b = protowire.AppendTag(b, fieldNanos, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(nanos)) // positive
	}
	return b
}
