package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	keymgtservice "revocation-adapter/resources/proto/wso2/discovery/service/keymgt"
	"revocation-adapter/revocation"
	"revocation-adapter/xds"
)

// load is what a load generator is told to do.
type load struct {
	Address       string
	Streams       int
	PerConnection int
	Names         string // put before the names of the gateways
	Batches       bool   // as enforcers, not as deployed ones
	WaitTokens    int64  // over all streams
	WaitResponses int64  // over all streams
	WaitSeconds   float64
	Publish       *publishing // through NATS, while the streams are read
}

// seen is what its streams have received since the last time it was asked.
type seen struct {
	Responses  int64
	Tokens     int64
	MaxBytes   int64 // of one response
	Took       time.Duration
	WorstDelay time.Duration // from publishing to receiving, where the tokens say when
	TimedOut   bool
}

// generator holds streams.
type generator struct {
	ctx       context.Context //nolint:containedctx // one process, one life
	conns     []*grpc.ClientConn
	readers   sync.WaitGroup
	responses atomic.Int64
	tokens    atomic.Int64
	maxBytes  atomic.Int64
	worst     atomic.Int64 // ns
	published publishTimes
	changed   chan struct{}
}

// clients is the role of a load generator.
func clients(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	g := &generator{ctx: ctx, changed: make(chan struct{}, 1)}
	err := answerAll(func(l load) (any, error) { return g.do(l) }) //nolint:contextcheck // the generator has its own
	cancel()
	for _, c := range g.conns {
		err = errors.Join(err, c.Close())
	}
	g.readers.Wait()
	return err
}

func (g *generator) do(l load) (seen, error) {
	begin := time.Now()
	before := seen{Responses: g.responses.Load(), Tokens: g.tokens.Load()}
	if err := g.open(l); err != nil {
		return seen{}, err
	}
	if l.Publish != nil {
		if err := g.publish(*l.Publish); err != nil {
			return seen{}, err
		}
	}
	deadline := time.After(time.Duration(l.WaitSeconds * float64(time.Second)))
	s := seen{}
	for !s.TimedOut && (g.tokens.Load()-before.Tokens < l.WaitTokens || g.responses.Load()-before.Responses < l.WaitResponses) {
		select {
		case <-g.changed:
		case <-deadline:
			s.TimedOut = true
		}
	}
	s.Took = time.Since(begin)
	s.Responses = g.responses.Load() - before.Responses
	s.Tokens = g.tokens.Load() - before.Tokens
	s.MaxBytes = g.maxBytes.Load()
	s.WorstDelay = time.Duration(g.worst.Load())
	return s, nil
}

// open connects the streams and waits until each has its first response.
func (g *generator) open(l load) error {
	var first sync.WaitGroup
	for i := range l.Streams {
		if i%l.PerConnection == 0 {
			conn, err := grpc.NewClient(l.Address, grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithDefaultCallOptions(grpc.ForceCodecV2(bytesCodec{}), grpc.MaxCallRecvMsgSize(256<<20)))
			if err != nil {
				return err
			}
			g.conns = append(g.conns, conn)
		}
		as := asked(l.Batches)
		str, err := g.conns[len(g.conns)-1].NewStream(g.ctx,
			&grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, as.method)
		if err != nil {
			return err
		}
		first.Add(1)
		g.readers.Go(func() { g.read(str, as, fmt.Sprint(l.Names, "gw-", i), sync.OnceFunc(first.Done)) })
	}
	first.Wait()
	return nil
}

// way is how a gateway asks for tokens.
type way struct{ method, typeURL string }

func asked(batches bool) way {
	if batches {
		return way{discovery.AggregatedDiscoveryService_StreamAggregatedResources_FullMethodName, xds.BatchTypeURL}
	}
	return way{keymgtservice.RevokedTokenDiscoveryService_StreamTokens_FullMethodName, xds.TypeURL}
}

// read is one gateway: it ACKs what it gets.
func (g *generator) read(str grpc.ClientStream, as way, name string, first func()) {
	defer first()
	hello, err := proto.Marshal(&discovery.DiscoveryRequest{
		TypeUrl: as.typeURL, Node: &core.Node{Id: "bench", Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			"instanceIdentifier": structpb.NewStringValue(name),
		}}},
	})
	if err != nil || str.SendMsg(hello) != nil {
		return
	}
	var in, out []byte
	for {
		if str.RecvMsg(&in) != nil {
			return
		}
		n, version, nonce := g.take(in)
		if as.typeURL == xds.BatchTypeURL {
			n = int64(len(field(field(field(in, responseResources), anyValue), batchDigests)) / len(revocation.Digest{}))
		}
		g.responses.Add(1)
		g.tokens.Add(n)
		first()
		select {
		case g.changed <- struct{}{}:
		default:
		}
		out = ack(out[:0], as.typeURL, version, nonce)
		if str.SendMsg(out) != nil {
			return
		}
	}
}

// Field numbers of DiscoveryRequest and DiscoveryResponse.
const (
	responseVersion, responseResources, responseNonce                  = 1, 2, 5
	requestVersion, requestTypeURL, requestNonce                       = 1, 4, 5
	anyValue, tokenJTI, batchDigests                  protowire.Number = 2, 1, 5
)

// take reads as much of a response as a gateway must to answer, without
// unmarshalling: the generator shares the machine with the server.
func (g *generator) take(in []byte) (tokens int64, version, nonce []byte) {
	if int64(len(in)) > g.maxBytes.Load() {
		g.maxBytes.Store(int64(len(in)))
	}
	for b := in; len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		b = b[n:]
		if typ != protowire.BytesType {
			n = protowire.ConsumeFieldValue(num, typ, b)
			b = b[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(b)
		b = b[n:]
		switch num {
		case responseVersion:
			version = value
		case responseNonce:
			nonce = value
		case responseResources:
			if tokens == 0 {
				g.clock(value)
			}
			tokens++
		}
	}
	return tokens, version, nonce
}

func ack(out []byte, typeURL string, version, nonce []byte) []byte {
	out = protowire.AppendTag(out, requestVersion, protowire.BytesType)
	out = protowire.AppendBytes(out, version)
	out = protowire.AppendTag(out, requestTypeURL, protowire.BytesType)
	out = protowire.AppendString(out, typeURL)
	out = protowire.AppendTag(out, requestNonce, protowire.BytesType)
	return protowire.AppendBytes(out, nonce)
}

// clock measures how old the first token of a response is, which is the oldest.
func (g *generator) clock(resource []byte) {
	at, ok := g.published.of(jtiOf(resource))
	if !ok {
		return
	}
	delay := time.Since(at).Nanoseconds()
	for {
		worst := g.worst.Load()
		if delay <= worst || g.worst.CompareAndSwap(worst, delay) {
			return
		}
	}
}

// jtiOf is the jti in an encoded Any of a RevokedToken.
func jtiOf(resource []byte) []byte { return field(field(resource, anyValue), tokenJTI) }

func field(b []byte, want protowire.Number) []byte {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		b = b[n:]
		if num == want && typ == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(b)
			return value
		}
		n = protowire.ConsumeFieldValue(num, typ, b)
		if n < 0 {
			return nil
		}
		b = b[n:]
	}
	return nil
}
