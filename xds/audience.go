package xds

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"revocation-adapter/revocation"
)

// Node metadata that names the tenants whose revocations a gateway wants.
const tenantsKey = "tenants"

// maxAudience bounds how many tenants a gateway may ask for. Who serves more
// asks for all.
const maxAudience = 1000

var (
	errTenants = status.Errorf(codes.InvalidArgument,
		"node metadata %q must be a list of at most %d names, or one string of them with commas", tenantsKey, maxAudience)
	errOtherTenants = status.Errorf(codes.InvalidArgument,
		"node metadata %q differs from that of the stream's first request: open another stream", tenantsKey)
)

// audience is whom a stream serves: who asks for some tenants is told of what is
// theirs, and of what is of none. It is no wall between tenants: a gateway says
// itself what it wants. Nil is everybody.
type audience struct {
	tenants map[string]struct{}
	proof   string // follows the versions that were reached with it
}

// hears says whether what is of a tenant is meant for a.
func (a *audience) hears(tenant string) bool {
	if a == nil || tenant == "" {
		return true
	}
	_, ok := a.tenants[tenant]
	return ok
}

// suffix is what a version must end with for a to go on from it: one that was
// reached with other tenants says nothing about these.
func (a *audience) suffix() string {
	if a == nil {
		return ""
	}
	return a.proof
}

// audienceOf reads what a node asks for. Without it, or with an empty list, that
// is everything.
func audienceOf(node *core.Node) (*audience, error) {
	names, err := tenantNames(node)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	a := &audience{tenants: map[string]struct{}{}}
	for _, name := range names {
		a.tenants[name] = struct{}{}
	}
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(a.tenants)) {
		_, _ = sum.Write(binary.AppendUvarint(nil, uint64(len(name)))) // a hash never fails
		_, _ = sum.Write([]byte(name))
	}
	a.proof = "-" + base64.RawURLEncoding.EncodeToString(sum.Sum(nil)[:16])
	return a, nil
}

// tenantNames are the names that a node asks for, in its order.
func tenantNames(node *core.Node) (names []string, err error) {
	switch v := node.GetMetadata().GetFields()[tenantsKey].GetKind().(type) {
	case nil, *structpb.Value_NullValue:
		return nil, nil
	case *structpb.Value_StringValue:
		names = strings.Split(v.StringValue, ",")
	case *structpb.Value_ListValue:
		for _, element := range v.ListValue.GetValues() {
			name, ok := tenantName(element)
			if !ok {
				return nil, errTenants
			}
			names = append(names, name)
		}
	default:
		return nil, errTenants
	}
	for i := range names {
		names[i] = strings.TrimSpace(names[i])
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == "" })
	if len(names) > maxAudience || slices.ContainsFunc(names, tooLong) {
		return nil, errTenants
	}
	return names, nil
}

func tooLong(name string) bool { return len(name) > revocation.MaxTenant }

// tenantName takes a whole number for a name too: that is what API-M's tenant
// ids are.
func tenantName(v *structpb.Value) (name string, ok bool) {
	switch v := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return v.StringValue, true
	case *structpb.Value_NumberValue:
		whole := math.Trunc(v.NumberValue) == v.NumberValue && math.Abs(v.NumberValue) < 1<<53
		return strconv.FormatInt(int64(v.NumberValue), 10), whole
	}
	return "", false
}

// stays fails if a later request of a stream asks for other tenants than a. One
// that says nothing changes nothing.
func (a *audience) stays(node *core.Node) error {
	if node.GetMetadata().GetFields()[tenantsKey] == nil {
		return nil
	}
	other, err := audienceOf(node)
	if err == nil && other.suffix() != a.suffix() {
		return errOtherTenants
	}
	return err
}
