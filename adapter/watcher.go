package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/resources/proto/wso2/discovery/keymgt"
	keymgtservice "revocation-adapter/resources/proto/wso2/discovery/service/keymgt"
)

// watcher is a gateway that only looks.
type watcher struct {
	conn      *grpc.ClientConn
	node      string
	tenants   []string
	topics    []*watched
	print     func(update) error
	left      int // responses until it leaves; 0: never
	responses int
}

// watched is one type of resources.
type watched struct {
	url     string
	version string            // reached so far
	held    map[string]string // delta: name to version
}

// update is one response.
type update struct {
	Time    time.Time `json:"time"`
	Type    string    `json:"type"`
	Version string    `json:"version"`
	Added   []token   `json:"added"`
	Rules   []rule    `json:"rules,omitempty"`
	Removed []string  `json:"removed"`
	Bytes   int       `json:"bytes"`
}

type token struct {
	JTI        string `json:"jti"`
	ExpiryTime int64  `json:"expirytime"` // milliseconds since the epoch
}

type rule struct {
	Claim        string `json:"claim"`
	Value        string `json:"value"`
	IssuedBefore int64  `json:"issued_before_millis"` // milliseconds since the epoch
	ExpiryTime   int64  `json:"expirytime"`           // milliseconds since the epoch
	Tenant       string `json:"tenant,omitempty"`
}

func (w *watcher) identity() *core.Node {
	fields := map[string]*structpb.Value{"instanceIdentifier": structpb.NewStringValue(w.node)}
	if len(w.tenants) > 0 {
		fields["tenants"] = structpb.NewStringValue(strings.Join(w.tenants, ","))
	}
	return &core.Node{Id: "adapter-watch", Metadata: &structpb.Struct{Fields: fields}}
}

// topic is what is watched of a type; nil: nothing.
func (w *watcher) topic(url string) *watched {
	for _, t := range w.topics {
		if t.url == url {
			return t
		}
	}
	return nil
}

// show prints a response and says whether more is wanted.
func (w *watcher) show(u update) (more bool, err error) {
	u.Time = time.Now()
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
	for _, t := range w.topics {
		_ = str.Send(&discovery.DiscoveryRequest{Node: w.identity(), TypeUrl: t.url, VersionInfo: t.version}) // the reason comes from Recv
	}
	for {
		resp, err := str.Recv()
		if err != nil {
			return err
		}
		t := w.topic(resp.GetTypeUrl())
		if t == nil {
			return fmt.Errorf("the adapter sent %q, which was not asked for", resp.GetTypeUrl())
		}
		u := update{Type: t.url, Version: resp.GetVersionInfo(), Bytes: proto.Size(resp)}
		if err := u.add(resp.GetResources()); err != nil {
			return err
		}
		t.version = u.Version
		if more, err := w.show(u); err != nil || !more {
			return err
		}
		_ = str.Send(&discovery.DiscoveryRequest{TypeUrl: t.url, VersionInfo: t.version, ResponseNonce: resp.GetNonce()}) // as above
	}
}

func watchDelta(ctx context.Context, w *watcher) error {
	str, err := discovery.NewAggregatedDiscoveryServiceClient(w.conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return err
	}
	for _, t := range w.topics {
		_ = str.Send(&discovery.DeltaDiscoveryRequest{Node: w.identity(), TypeUrl: t.url, InitialResourceVersions: t.held}) // the reason comes from Recv
	}
	for {
		resp, err := str.Recv()
		if err != nil {
			return err
		}
		t := w.topic(resp.GetTypeUrl())
		if t == nil {
			return fmt.Errorf("the adapter sent %q, which was not asked for", resp.GetTypeUrl())
		}
		more, err := w.takeDelta(t, resp)
		if err != nil || !more {
			return err
		}
		_ = str.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: t.url, ResponseNonce: resp.GetNonce()}) // as above
	}
}

func (w *watcher) takeDelta(t *watched, resp *discovery.DeltaDiscoveryResponse) (more bool, err error) {
	var anys []*anypb.Any
	for _, r := range resp.GetResources() {
		anys = append(anys, r.GetResource())
		t.held[r.GetName()] = r.GetVersion()
	}
	for _, name := range resp.GetRemovedResources() {
		delete(t.held, name)
	}
	u := update{Type: t.url, Version: resp.GetSystemVersionInfo(), Removed: resp.GetRemovedResources(), Bytes: proto.Size(resp)}
	if err := u.add(anys); err != nil {
		return false, err
	}
	return w.show(u)
}

// add takes the resources of a response, which are of one type.
func (u *update) add(resources []*anypb.Any) error {
	u.Added = []token{} // [], not null
	for _, any := range resources {
		m, err := any.UnmarshalNew()
		if err != nil {
			return fmt.Errorf("the adapter sent what is not understood: %w", err)
		}
		switch r := m.(type) {
		case *keymgt.RevokedToken:
			u.Added = append(u.Added, token{r.GetJti(), r.GetExpirytime()})
		case *revocationv1.Rule:
			u.Rules = append(u.Rules, rule{r.GetClaim(), r.GetValue(), r.GetIssuedBeforeMillis(), r.GetExpirytime(), r.GetTenant()})
		default:
			return fmt.Errorf("the adapter sent something else than a RevokedToken or a Rule: %q", any.GetTypeUrl())
		}
	}
	return nil
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
		u.Time.Format("15:04:05.000"), u.Version, len(u.Added)+len(u.Rules), len(u.Removed), u.Bytes); err != nil {
		return err
	}
	return p.names(u)
}

func (p *printer) names(u update) error {
	var added, removed []string
	for _, t := range u.Added[:min(len(u.Added), shownTokens)] {
		added = append(added, fmt.Sprintf("%q expires %s", t.JTI, expiry(t.ExpiryTime)))
	}
	for _, r := range u.Rules[:min(len(u.Rules), shownTokens)] {
		added = append(added, fmt.Sprintf("rule %q issued before %s expires %s",
			r.Claim+"="+r.Value, time.UnixMilli(r.IssuedBefore).UTC().Format(time.RFC3339Nano), expiry(r.ExpiryTime)))
	}
	for _, name := range u.Removed[:min(len(u.Removed), shownTokens)] {
		removed = append(removed, fmt.Sprintf("%q", name))
	}
	if err := p.list("+", added, len(u.Added)+len(u.Rules)); err != nil {
		return err
	}
	return p.list("-", removed, len(u.Removed))
}

// list prints the first of so many in all.
func (p *printer) list(sign string, lines []string, all int) error {
	for _, line := range lines {
		if _, err := fmt.Fprintf(p.out, "  %s %s\n", sign, line); err != nil {
			return err
		}
	}
	if more := all - len(lines); more > 0 {
		_, err := fmt.Fprintf(p.out, "  %s … and %d more\n", sign, more)
		return err
	}
	return nil
}

func expiry(ms int64) string {
	if t := time.UnixMilli(ms); t.Year() < 9999 {
		return t.UTC().Format(time.RFC3339)
	}
	return "never"
}
