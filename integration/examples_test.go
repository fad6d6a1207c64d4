package integration_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	bootstrap "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	extauthz "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	jwtauthn "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"

	"revocation-adapter/integration/stack"
)

// examples are the gateways' configurations.
var examples = filepath.Join("..", "resources", "gateways")

// No Envoy is at hand: the bootstrap must hold what Envoy's API knows, and what
// its own rules allow.
func TestEnvoyExample(t *testing.T) {
	b := envoyExample(t)
	var filters []string
	clusters := map[string]string{}
	for _, c := range b.GetStaticResources().GetClusters() {
		socket := c.GetLoadAssignment().GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint().GetAddress().GetSocketAddress()
		clusters[c.GetName()] = socket.GetAddress()
	}
	eachAny(t, b, func(m proto.Message) {
		switch m := m.(type) {
		case *jwtauthn.JwtAuthentication:
			filters = append(filters, "verify")
			for name, p := range m.GetProviders() {
				if !p.GetForward() {
					t.Errorf("provider %s keeps the token from the enforcer", name)
				}
			}
		case *extauthz.ExtAuthz:
			filters = append(filters, "enforce")
			if m.GetFailureModeAllow() {
				t.Error("an enforcer that is away lets everybody in")
			}
			if name := m.GetGrpcService().GetEnvoyGrpc().GetClusterName(); clusters[name] == "" {
				t.Errorf("there is no cluster %q", name)
			}
		case *router.Router:
			filters = append(filters, "route")
		}
	})
	if got := filters; len(got) != 3 || got[0] != "verify" || got[1] != "enforce" || got[2] != "route" {
		t.Errorf("the filters are %v", got)
	}
}

// The rules refuse what they should: an example that is wrong would be noticed.
func TestEnvoyRulesRefuse(t *testing.T) {
	var faults int
	b := envoyExample(t)
	b.GetStaticResources().GetListeners()[0].GetFilterChains()[0].GetFilters()[0].Name = ""
	b.GetStaticResources().GetClusters()[0].ConnectTimeout.Seconds = -1
	validate(t, b, func(error) { faults++ })
	if faults == 0 {
		t.Error("a listener without a name of its filter and a negative timeout are accepted")
	}
}

func envoyExample(t *testing.T) *bootstrap.Bootstrap {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(examples, "envoy", "envoy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		t.Fatal(err)
	}
	b := new(bootstrap.Bootstrap)
	if err := protojson.Unmarshal(asJSON, b); err != nil { // refuses what is not linked above
		t.Fatal(err)
	}
	validate(t, b, func(err error) { t.Error(err) })
	return b
}

// validate applies the rules of Envoy's API to a message and all that it holds.
func validate(t *testing.T, m proto.Message, fault func(error)) {
	t.Helper()
	check := func(m proto.Message) {
		rules, ok := m.(interface{ ValidateAll() error })
		if !ok {
			t.Errorf("%s has no rules", m.ProtoReflect().Descriptor().FullName())
			return
		}
		if err := rules.ValidateAll(); err != nil {
			fault(err)
		}
	}
	check(m)
	eachAny(t, m, check)
}

// eachAny visits what the Anys of a message hold, at any depth, in order.
func eachAny(t *testing.T, m proto.Message, visit func(proto.Message)) {
	t.Helper()
	if a, ok := m.(*anypb.Any); ok {
		inner, err := a.UnmarshalNew()
		if err != nil {
			t.Error(err)
			return
		}
		visit(inner)
		eachAny(t, inner, visit)
		return
	}
	m.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.IsMap() && field.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				eachAny(t, v.Message().Interface(), visit)
				return true
			})
		case field.IsList() && field.Message() != nil:
			for i := range v.List().Len() {
				eachAny(t, v.List().Get(i).Message().Interface(), visit)
			}
		case !field.IsMap() && !field.IsList() && field.Message() != nil:
			eachAny(t, v.Message().Interface(), visit)
		}
		return true
	})
}

func TestNginxExample(t *testing.T) {
	binary, err := stack.NginxPath()
	if err != nil {
		missing(t, "nginx")
	}
	conf, err := filepath.Abs(filepath.Join(examples, "nginx", "nginx.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(binary, "-t", "-p", t.TempDir(), "-c", conf).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
