package main

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/resources/proto/wso2/discovery/keymgt"
	"revocation-adapter/revocation"
	"revocation-adapter/xds"
)

// raw is the limit: a bidirectional stream that pushes the same bytes with the
// same server options, encoded once for all streams, and reads the answers.
type raw struct {
	newest atomic.Pointer[pushed]
	set    [][]byte // a full set, in chunks
}

// pushed is a message to all streams, and the wake-up for the next.
type pushed struct {
	bytes []byte
	next  chan struct{} // closed when after is set
	after *pushed
}

func newRaw() *raw {
	r := &raw{}
	r.newest.Store(&pushed{next: make(chan struct{})})
	return r
}

// rawChunk is how many tokens a chunk of the full set has, as in ours.
const rawChunk = 16_000

func (r *raw) fill(n int) error {
	for from := 0; from < n; from += rawChunk {
		resp := &discovery.DiscoveryResponse{VersionInfo: "1795175956625003", TypeUrl: xds.TypeURL, Nonce: "1"}
		for i := from; i < min(n, from+rawChunk); i++ {
			resource, err := token(jti("held", i))
			if err != nil {
				return err
			}
			resp.Resources = append(resp.Resources, resource)
		}
		data, err := proto.Marshal(resp)
		if err != nil {
			return err
		}
		r.set = append(r.set, data)
	}
	return nil
}

// rawPacked is how many tokens a batch of the full set has, as in ours.
const rawPacked = 64 << 10

// packed is raw with the full set in batches.
type packed struct{ *raw }

func (p packed) fill(n int) error {
	for from := 0; from < n; from += rawPacked {
		to := min(n, from+rawPacked)
		b := &revocationv1.Batch{FromVersion: uint64(from), ToVersion: uint64(to), HeadVersion: uint64(n)}
		for i := from; i < to; i++ {
			d := revocation.DigestOf(revocation.DomainToken, jti("held", i))
			b.Digests = append(b.Digests, d[:]...)
			b.Expiries = append(b.Expiries, 1)
		}
		value, err := proto.Marshal(b)
		if err != nil {
			return err
		}
		data, err := proto.Marshal(&discovery.DiscoveryResponse{
			VersionInfo: "1795175956625003-bench", TypeUrl: xds.BatchTypeURL, Nonce: "1",
			Resources: []*anypb.Any{{TypeUrl: xds.BatchTypeURL, Value: value}},
		})
		if err != nil {
			return err
		}
		p.set = append(p.set, data)
	}
	return nil
}

func token(jti string) (*anypb.Any, error) {
	value, err := proto.Marshal(&keymgt.RevokedToken{Jti: jti, Expirytime: revocation.Never / 1_000_000})
	return &anypb.Any{TypeUrl: xds.TypeURL, Value: value}, err
}

func (r *raw) push(i int) {
	resource, err := token(jti("push", i))
	if err != nil {
		panic(err) // the benchmark is wrong
	}
	data, err := proto.Marshal(&discovery.DiscoveryResponse{
		VersionInfo: fmt.Sprint(1795175956625003 + i), TypeUrl: xds.TypeURL, Nonce: fmt.Sprint(i),
		Resources: []*anypb.Any{resource},
	})
	if err != nil {
		panic(err) // the benchmark is wrong
	}
	last, next := r.newest.Load(), &pushed{bytes: data, next: make(chan struct{})}
	last.after = next
	r.newest.Store(next)
	close(last.next)
}

func (r *raw) run(ctx context.Context, lis net.Listener) error {
	opts := append(serverConfig(nil, nil).ServerOptions(), grpc.ForceServerCodecV2(bytesCodec{}),
		grpc.UnknownServiceHandler(func(_ any, str grpc.ServerStream) error { return r.stream(str) }))
	g := grpc.NewServer(opts...)
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	return g.Serve(lis)
}

// stream pushes the set, if there is one, then what is published. As in xDS,
// the next message waits for the answer to the one before.
func (r *raw) stream(str grpc.ServerStream) error {
	answers := make(chan struct{})
	go func() {
		defer close(answers)
		var in []byte
		for str.RecvMsg(&in) == nil {
			select {
			case answers <- struct{}{}:
			case <-str.Context().Done():
				return
			}
		}
	}()
	if _, ok := <-answers; !ok {
		return nil
	}
	at := r.newest.Load()
	for _, chunk := range r.set {
		if err := str.SendMsg(chunk); err != nil {
			return err
		}
		if _, ok := <-answers; !ok {
			return nil
		}
	}
	if len(r.set) == 0 { // ours answers a first request at once
		if err := str.SendMsg([]byte{}); err != nil {
			return err
		}
		<-answers
	}
	for {
		select {
		case <-at.next:
		case <-str.Context().Done():
			return nil
		}
		at = at.after
		if err := str.SendMsg(at.bytes); err != nil {
			return err
		}
		if _, ok := <-answers; !ok {
			return nil
		}
	}
}

// bytesCodec passes bytes through.
type bytesCodec struct{}

var _ encoding.CodecV2 = bytesCodec{}

func (bytesCodec) Name() string { return "proto" }

func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	switch b := v.(type) {
	case []byte:
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	case *[]byte:
		return mem.BufferSlice{mem.SliceBuffer(*b)}, nil
	}
	return nil, fmt.Errorf("cannot send %T", v)
}

func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("cannot receive %T", v)
	}
	*b = append((*b)[:0], data.Materialize()...)
	return nil
}
