package revocation

// Series is one of the two kinds of what a log holds. Both have their versions
// from the one sequence.
type Series uint8

// The series.
const (
	Tokens Series = iota // of every domain but rules
	Rules                // of DomainRule

	seriesCount
)

// Series is the one that keys of the domain belong to.
func (d Domain) Series() Series {
	if d == DomainRule {
		return Rules
	}
	return Tokens
}

// MaxTenant is the longest tenant in bytes that a log tells apart.
const MaxTenant = 256

// maxTenants bounds how many tenants a log tells apart.
const maxTenants = 1 << 16

// tenants numbers the tenants, so that a record needs two bytes for its own. They
// are never forgotten. What is of one too many, or of one whose name is too
// long, counts as of none: it is told to everybody rather than kept from who
// should know it.
type tenants struct {
	ids   map[string]uint16
	names []string // by id; snapshots share it
}

func (t *tenants) id(name string) uint16 {
	id, known := t.ids[name]
	if known || len(name) > MaxTenant || len(t.names) == maxTenants {
		return id
	}
	id = uint16(len(t.names))
	t.ids[name] = id
	t.names = append(t.names, name)
	return id
}
