package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"revocation-adapter/resources/proto/wso2/discovery/keymgt"
	keymgtservice "revocation-adapter/resources/proto/wso2/discovery/service/keymgt"
	"revocation-adapter/xds"
)

// watcher is a gateway that only looks.
type watcher struct {
	conn      *grpc.ClientConn
	node      string
	version   string            // reached so far
	held      map[string]string // delta: name to version
	print     func(update) error
	left      int // responses until it leaves; 0: never
	responses int
}

// update is one response.
type update struct {
	Time    time.Time `json:"time"`
	Version string    `json:"version"`
	Added   []token   `json:"added"`
	Removed []string  `json:"removed"`
	Bytes   int       `json:"bytes"`
}

type token struct {
	JTI        string `json:"jti"`
	ExpiryTime int64  `json:"expirytime"` // milliseconds since the epoch
}

func (w *watcher) identity() *core.Node {
	return &core.Node{
		Id: "adapter-watch",
		Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			"instanceIdentifier": structpb.NewStringValue(w.node),
		}},
	}
}

// show prints a response and says whether more is wanted.
func (w *watcher) show(u update) (more bool, err error) {
	u.Time = time.Now()
	w.version = u.Version
	w.responses++
	if err := w.print(u); err != nil {
		return false, err
	}
	w.left--
	return w.left != 0, nil
}

func watchRTDS(ctx context.Context, w *watcher) error {
	str, err := keymgtservice.NewRevokedTokenDiscoveryServiceClient(w.conn).StreamTokens(ctx)
	if err != nil {
		return err
	}
	return w.sotw(str)
}

func watchSotw(ctx context.Context, w *watcher) error {
	str, err := discovery.NewAggregatedDiscoveryServiceClient(w.conn).StreamAggregatedResources(ctx)
	if err != nil {
		return err
	}
	return w.sotw(str)
}

func (w *watcher) sotw(str grpc.BidiStreamingClient[discovery.DiscoveryRequest, discovery.DiscoveryResponse]) error {
	req := &discovery.DiscoveryRequest{Node: w.identity(), TypeUrl: xds.TypeURL, VersionInfo: w.version}
	for {
		if err := str.Send(req); err != nil {
			_, err = str.Recv() // the reason
			return err
		}
		resp, err := str.Recv()
		if err != nil {
			return err
		}
		added, err := tokens(resp.GetResources())
		if err != nil {
			return err
		}
		more, err := w.show(update{Version: resp.GetVersionInfo(), Added: added, Bytes: proto.Size(resp)})
		if err != nil || !more {
			return err
		}
		req = &discovery.DiscoveryRequest{TypeUrl: xds.TypeURL, VersionInfo: w.version, ResponseNonce: resp.GetNonce()}
	}
}

func watchDelta(ctx context.Context, w *watcher) error {
	str, err := discovery.NewAggregatedDiscoveryServiceClient(w.conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return err
	}
	req := &discovery.DeltaDiscoveryRequest{Node: w.identity(), TypeUrl: xds.TypeURL, InitialResourceVersions: w.held}
	for {
		if err := str.Send(req); err != nil {
			_, err = str.Recv() // the reason
			return err
		}
		resp, err := str.Recv()
		if err != nil {
			return err
		}
		more, err := w.takeDelta(resp)
		if err != nil || !more {
			return err
		}
		req = &discovery.DeltaDiscoveryRequest{TypeUrl: xds.TypeURL, ResponseNonce: resp.GetNonce()}
	}
}

func (w *watcher) takeDelta(resp *discovery.DeltaDiscoveryResponse) (more bool, err error) {
	if w.held == nil {
		w.held = map[string]string{}
	}
	var anys []*anypb.Any
	for _, r := range resp.GetResources() {
		anys = append(anys, r.GetResource())
		w.held[r.GetName()] = r.GetVersion()
	}
	for _, name := range resp.GetRemovedResources() {
		delete(w.held, name)
	}
	added, err := tokens(anys)
	if err != nil {
		return false, err
	}
	return w.show(update{
		Version: resp.GetSystemVersionInfo(), Added: added, Removed: resp.GetRemovedResources(), Bytes: proto.Size(resp),
	})
}

func tokens(resources []*anypb.Any) ([]token, error) {
	added := make([]token, 0, len(resources))
	for _, any := range resources {
		var t keymgt.RevokedToken
		if err := any.UnmarshalTo(&t); err != nil {
			return nil, fmt.Errorf("the adapter sent something else than a RevokedToken: %w", err)
		}
		added = append(added, token{t.GetJti(), t.GetExpirytime()})
	}
	return added, nil
}

// printer writes updates for people, or as JSON.
type printer struct {
	out    io.Writer
	asJSON bool
	header bool
}

// shownTokens is how many tokens of one response are listed for people.
const shownTokens = 10

func (p *printer) print(u update) error {
	if p.asJSON {
		u.Removed = append([]string{}, u.Removed...) // [], not null
		return json.NewEncoder(p.out).Encode(u)
	}
	if !p.header {
		p.header = true
		if _, err := fmt.Fprintf(p.out, "%-12s  %-16s  %7s  %7s  %9s\n", "TIME", "VERSION", "ADDED", "REMOVED", "BYTES"); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(p.out, "%-12s  %-16s  %7d  %7d  %9d\n",
		u.Time.Format("15:04:05.000"), u.Version, len(u.Added), len(u.Removed), u.Bytes); err != nil {
		return err
	}
	return p.names(u)
}

func (p *printer) names(u update) error {
	for i, t := range u.Added {
		if i == shownTokens {
			_, err := fmt.Fprintf(p.out, "  + … and %d more\n", len(u.Added)-i)
			return err
		}
		if _, err := fmt.Fprintf(p.out, "  + %q expires %s\n", t.JTI, expiry(t.ExpiryTime)); err != nil {
			return err
		}
	}
	for i, name := range u.Removed {
		if i == shownTokens {
			_, err := fmt.Fprintf(p.out, "  - … and %d more\n", len(u.Removed)-i)
			return err
		}
		if _, err := fmt.Fprintf(p.out, "  - %q\n", name); err != nil {
			return err
		}
	}
	return nil
}

func expiry(ms int64) string {
	if t := time.UnixMilli(ms); t.Year() < 9999 {
		return t.UTC().Format(time.RFC3339)
	}
	return "never"
}
