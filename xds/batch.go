package xds

import (
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"revocation-adapter/revocation"
)

// What enforcers are told: batches, each of which carries tokens and rules packed
// and, when it ends at the log's head, how fresh the log is. A heartbeat is a
// batch that changes nothing.

// A batch holds at most this many tokens: at most 20 bytes each, and as few
// messages as there can be under what any client receives.
const maxPacked = 64 << 10

var errBatchNames = status.Error(codes.InvalidArgument, "batches have no names: ask for everything")

// freshness says that the log holds up to version all that the hub had stored at a
// time, in microseconds since the epoch; 0: that is not known.
type freshness struct {
	version uint64
	at      int64
	beat    uint64 // counts what streams were to be told
}

// beat says whether it is news to the streams how fresh the log is. It is run's,
// which asks ten times a second at most. Usually it has become fresher; it has not
// where the clock that tells was set back.
func (c *Cache) beat() bool {
	version, at := c.fresh()
	told := c.told.Load()
	if at.IsZero() || at.UnixMicro() == told.at {
		return false
	}
	c.told.Store(&freshness{version, at.UnixMicro(), told.beat + 1})
	return true
}

// freshFor is what is known at s, which may be older than that. Whoever is sent it
// has been told of the last heartbeat, even if nothing is known any more: else he
// would be told so again and again.
func (c *Cache) freshFor(s *revocation.Snapshot) (f freshness) {
	if told := c.told.Load(); told.version <= s.Version() {
		f.beat = told.beat
	}
	if version, at := c.fresh(); !at.IsZero() && version <= s.Version() {
		f.version, f.at = version, at.UnixMicro()
	}
	return f
}

// proof is what versions of the topic end with: what they prove beside the
// position. Of a batch that is the log as well, since it says what to forget.
func (st *topic) proof() string { return st.cache.proof(st.kind, st.audience) }

func (c *Cache) proof(k kind, to *audience) string {
	if k == batches {
		return "-" + c.hub() + to.suffix()
	}
	return to.suffix()
}

// batch is the answer to a watch of batches at s, or nil while there is none.
func (w *sotwWatch) batch(s *revocation.Snapshot, now time.Time) cache.Response {
	told := w.st.cache.told.Load()
	beaten := told.beat > w.heard && told.version <= s.Version()
	if w.position >= s.Version() && !w.greet && !beaten {
		return nil
	}
	c := w.st.cache.batch(s, w.position, w.st.audience, now)
	if c.entries == 0 && w.st.audience != nil && !w.greet && !beaten { // it was of other tenants
		w.st.view.pass(w.st.kind, sotw, w.position, c.to) // the next batch goes on from where the client is, all the same
		return nil
	}
	return &sotwResponse{st: w.st, req: w.req, chunk: c}
}

// batch returns what changed after from, packed, as far as one response holds. A
// full batch that was made for an older snapshot serves as well: what became of
// its keys since, follows.
func (c *Cache) batch(s *revocation.Snapshot, from uint64, to *audience, now time.Time) *chunk {
	key := memoKey{kind: batches, from: from, head: s.Version(), proof: c.proof(batches, to), fresh: c.freshFor(s)}
	at := pageKey{key.proof, from}
	if page := c.pages.find(at, now); page != nil {
		return page
	}
	made := c.memoFor(batches, to).get(key, func() *chunk { return c.pack(s, key, to, now) })
	if made.full {
		c.pages.keep(at, made, now)
	}
	return made
}

func (c *Cache) pack(s *revocation.Snapshot, key memoKey, to *audience, now time.Time) *chunk {
	p := c.packer()
	defer c.keepPacker(p)
	p.begin(key.from, s.Counts().Revoked())
	position, full := p.collect(s, to, now)
	made := &chunk{kind: batches, at: now, to: position, full: full, entries: p.entries}
	made.text = strconv.FormatUint(position, 10) + key.proof
	if !full {
		made.fresh = key.fresh
	}
	made.wire = p.resource(made, key.head)
	return made
}

// packer is one that is not in use. Two are kept, however much garbage is
// collected: what they grow to is as much as a full batch, each time.
func (c *Cache) packer() *packer {
	select {
	case p := <-c.packers:
		return p
	default:
		return &packer{}
	}
}

func (c *Cache) keepPacker(p *packer) {
	select {
	case c.packers <- p:
	default: // there are enough
	}
}

// packer collects what changed into a batch. Its memory is used again.
type packer struct {
	from    uint64
	entries int
	last    int64 // the expiry before, in seconds

	digests, expiries, removed, rules []byte
}

// begin empties p. Of a whole set it knows how much is to come, and takes the
// memory for it once.
func (p *packer) begin(from uint64, held int) {
	p.from, p.entries, p.last = from, 0, 0
	p.digests, p.expiries, p.removed, p.rules = p.digests[:0], p.expiries[:0], p.removed[:0], p.rules[:0]
	if from == 0 {
		p.digests = slices.Grow(p.digests, min(held, maxPacked)*len(revocation.Digest{}))
		p.expiries = slices.Grow(p.expiries, min(held, maxPacked)*4)
	}
}

// collect takes what changed up to s, in the order of versions, until it is full.
// It returns the version up to which that is everything.
func (p *packer) collect(s *revocation.Snapshot, to *audience, now time.Time) (position uint64, full bool) {
	position = p.from
	for c := range inOrder(s, p.from, now) {
		k := kind(c.Domain.Series())
		if k.served(c.Domain) && to.hears(c.Tenant) {
			if p.full() {
				return position, true
			}
			p.add(k, c)
		}
		position = c.Version
	}
	return max(p.from, s.Version()), false
}

// inOrder yields tokens and rules as one series.
func inOrder(s *revocation.Snapshot, from uint64, now time.Time) iter.Seq[revocation.Change] {
	return func(yield func(revocation.Change) bool) {
		next, stop := iter.Pull(s.SinceOf(revocation.Rules, from, now))
		defer stop()
		rule, more := next()
		for c := range s.SinceOf(revocation.Tokens, from, now) {
			for ; more && rule.Version < c.Version; rule, more = next() {
				if !yield(rule) {
					return
				}
			}
			if !yield(c) {
				return
			}
		}
		for ; more && yield(rule); rule, more = next() { //nolint:revive // the body is the condition
		}
	}
}

// perRule bounds what a rule takes.
const perRule = perToken + revocation.MaxTenant + revocation.MaxKey + 32

func (p *packer) full() bool {
	size := len(p.digests) + len(p.expiries) + len(p.removed) + len(p.rules)
	return p.entries >= maxPacked || size+perRule > maxBytes
}

func (p *packer) add(k kind, c revocation.Change) {
	switch {
	case c.State != revocation.Revoked && p.from == 0:
		return // of a whole set nothing is to be removed
	case c.State != revocation.Revoked:
		p.removed = appendDigest(p.removed, c)
	case k == rules:
		var name [revocation.MaxKey]byte
		text := c.AppendName(name[:0])
		p.rules = protowire.AppendTag(p.rules, fieldRules, protowire.BytesType)
		p.rules = protowire.AppendVarint(p.rules, uint64(k.size(c, text)))
		p.rules = k.append(p.rules, c, text)
	default:
		p.digests = appendDigest(p.digests, c)
		p.expiry(c)
	}
	p.entries++
}

func appendDigest(b []byte, c revocation.Change) []byte {
	d := c.Digest()
	return append(b, d[:]...)
}

// expiry appends when c expires: 0 for never, else one more than the difference
// to the one before.
func (p *packer) expiry(c revocation.Change) {
	if c.Lifetime == revocation.Forever {
		p.expiries = append(p.expiries, 0)
		return
	}
	second := (c.Expiry + 999) / 1000
	p.expiries = protowire.AppendVarint(p.expiries, protowire.EncodeZigZag(second-p.last)+1)
	p.last = second
}

// The fields of a batch; resources and removed resources are those of a response.
const (
	fieldReset           protowire.Number = 1
	fieldFrom            protowire.Number = 2
	fieldTo              protowire.Number = 3
	fieldHead            protowire.Number = 4
	fieldDigests         protowire.Number = 5
	fieldExpiries        protowire.Number = 6
	fieldRemovedKeys     protowire.Number = 7
	fieldRules           protowire.Number = 8
	fieldCompleteVersion protowire.Number = 9
	fieldCompleteAt      protowire.Number = 10
)

// resource is the batch as the one resource of a response.
func (p *packer) resource(made *chunk, head uint64) []byte {
	var before, after [48]byte
	first, last := before[:0], after[:0]
	if p.from == 0 {
		first = appendField(first, fieldReset, 1)
	}
	first = appendField(appendField(appendField(first, fieldFrom, p.from), fieldTo, made.to), fieldHead, head)
	last = appendField(appendField(last, fieldCompleteVersion, made.fresh.version), fieldCompleteAt, uint64(made.fresh.at)) // positive
	size := len(first) + sizePart(fieldDigests, p.digests) + sizePart(fieldExpiries, p.expiries) +
		sizePart(fieldRemovedKeys, p.removed) + len(p.rules) + len(last)
	url := batches.url()
	inner := sizeField(fieldAnyType, len(url)) + sizeField(fieldAnyValue, size)
	wire := make([]byte, 0, sizeField(fieldResources, inner))
	wire = protowire.AppendVarint(protowire.AppendTag(wire, fieldResources, protowire.BytesType), uint64(inner))
	wire = protowire.AppendString(protowire.AppendTag(wire, fieldAnyType, protowire.BytesType), url)
	wire = protowire.AppendVarint(protowire.AppendTag(wire, fieldAnyValue, protowire.BytesType), uint64(size))
	wire = appendPart(append(wire, first...), fieldDigests, p.digests)
	wire = appendPart(appendPart(wire, fieldExpiries, p.expiries), fieldRemovedKeys, p.removed)
	return append(append(wire, p.rules...), last...)
}

// What is empty or 0 is not on the wire.

func appendField(b []byte, field protowire.Number, value uint64) []byte {
	if value == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), value)
}

func sizePart(field protowire.Number, value []byte) int {
	if len(value) == 0 {
		return 0
	}
	return sizeField(field, len(value))
}

func appendPart(b []byte, field protowire.Number, value []byte) []byte {
	if len(value) == 0 {
		return b
	}
	return appendBytes(b, field, value)
}
