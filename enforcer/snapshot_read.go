package enforcer

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"revocation-adapter/revocation"
)

// The faults of a snapshot file.
var (
	errForeign = errors.New("it is no snapshot of an enforcer, or of another format")
	errTenants = errors.New("it is of other tenants")
	errDamaged = errors.New("it is damaged")
)

// maxText bounds a text of a snapshot in bytes, and maxTexts how many there are.
const (
	maxText  = 1 << 12
	maxTexts = 1 << 16
)

// readSnapshot reads what writeSnapshot wrote, of size bytes. Nothing of it counts
// before all of it has been checked.
func (e *Enforcer) readSnapshot(from io.Reader, size int64) (*view, error) {
	r := &snapshotReader{from: bufio.NewReaderSize(from, 1<<16), sum: sha256.New(), left: size - sha256.Size}
	if string(r.bytes(len(magic))) != magic {
		return nil, errForeign
	}
	if tenants := r.texts(); r.err == nil && !slices.Equal(tenants, tenantsOf(e.cfg)) {
		return nil, errTenants
	}
	now := e.now()
	v := &view{set: &set{}, whole: true}
	v.version, v.info, v.proof, v.seen, v.complete = r.uint(), r.text(), r.text(), r.uint(), r.int()
	v.set.claims = r.texts()
	v.set.tokens = readEntries(r, tokenLen, readToken)
	v.set.rules = readEntries(r, ruleLen, readRule)
	if err := r.end(); err != nil {
		return nil, err
	}
	if !v.sound() {
		return nil, errDamaged
	}
	if v.complete > now.UnixMicro() { // the next restart must not find it as fresh as now again
		v.complete = max(0, now.UnixMicro())
		v.edits++
	}
	v.set = v.set.purged(v.sure(now), e.grace)
	return v, nil
}

// sound says whether v is what an Enforcer can have had in force.
func (v *view) sound() bool {
	return v.complete >= 0 && v.seen >= v.version && (v.info == "" || proofOf(v.info) == v.proof) && v.set.sound()
}

// sound says whether all rules have a claim and a time.
func (s *set) sound() bool {
	for shard := range s.rules.all() {
		for _, rule := range shard {
			if int(rule.value.claim) >= len(s.claims) || s.claims[rule.value.claim] == "" || rule.value.before < 0 {
				return false
			}
		}
	}
	return true
}

// snapshotReader reads until something is wrong, and then nothing more.
type snapshotReader struct {
	from *bufio.Reader
	sum  hash.Hash
	left int64 // bytes before the sum
	buf  [maxText]byte
	err  error
}

// bytes returns the next n bytes, at most maxText, until the next call.
func (r *snapshotReader) bytes(n int) []byte {
	if r.err == nil && (n > len(r.buf) || int64(n) > r.left) {
		r.err = errDamaged
	}
	if r.err == nil {
		_, r.err = io.ReadFull(r.from, r.buf[:n])
	}
	if r.err != nil {
		return nil
	}
	r.left -= int64(n)
	_, _ = r.sum.Write(r.buf[:n]) // a hash never fails
	return r.buf[:n]
}

// ReadByte is for numbers of variable length.
func (r *snapshotReader) ReadByte() (byte, error) {
	if b := r.bytes(1); r.err == nil {
		return b[0], nil
	}
	return 0, r.err
}

func (r *snapshotReader) uint() uint64 {
	n, err := binary.ReadUvarint(r)
	r.fail(err)
	return n
}

func (r *snapshotReader) int() int64 {
	n, err := binary.ReadVarint(r)
	r.fail(err)
	return n
}

func (r *snapshotReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// count is a number of things of a size, of which the file has room for so many.
func (r *snapshotReader) count(size int) int {
	n := r.uint()
	if r.err == nil && n > uint64(r.left)/uint64(size) {
		r.err = errDamaged
	}
	if r.err != nil {
		return 0
	}
	return int(n)
}

func (r *snapshotReader) text() string { return string(r.bytes(r.count(1))) }

func (r *snapshotReader) texts() []string {
	n := r.count(1)
	if n > maxTexts {
		r.fail(errDamaged)
	}
	texts := []string{}
	for i := 0; i < n && r.err == nil; i++ {
		texts = append(texts, r.text())
	}
	return texts
}

// readEntries reads entries of a size. They must be in order, each digest once.
func readEntries[P joinable[P]](r *snapshotReader, size int, value func([]byte) P) shards[P] {
	entries := make([]entry[P], r.count(size))
	for i := range entries {
		b := r.bytes(size)
		if b == nil {
			return shards[P]{}
		}
		entries[i] = entry[P]{revocation.Digest(b), value(b[digestLen:])}
		if i > 0 && compareEntries(entries[i-1], entries[i]) >= 0 {
			r.fail(errDamaged)
			return shards[P]{}
		}
	}
	return shards[P]{}.with(entries)
}

func readToken(b []byte) until { return until(binary.LittleEndian.Uint32(b)) }

func readRule(b []byte) watermark {
	return watermark{
		before: int64(binary.LittleEndian.Uint64(b)),
		until:  readToken(b[8:]), claim: binary.LittleEndian.Uint32(b[12:]),
	}
}

// end checks that all was read, and that it is what was written.
func (r *snapshotReader) end() error {
	if r.err != nil {
		return fmt.Errorf("%w: %w", errDamaged, r.err)
	}
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(r.from, want); err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	if r.left != 0 || string(r.sum.Sum(nil)) != string(want) {
		return errDamaged
	}
	return nil
}
