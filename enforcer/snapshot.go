package enforcer

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// A snapshot file holds, after its magic, as numbers of variable length and texts
// with their length before them: the tenants, the version, version_info, the proof
// of the hub and the version that was seen of it, when the set was complete, the
// names of claims, then the number of tokens, and the tokens in the order of their
// digests, and the same of rules. It ends with the SHA-256 of all that.
//
// The proof is not taken from version_info: there is none while nothing goes on
// from the set, and what is behind must not replace it even then.
const (
	magic    = "revoked\x02" // the last byte is the format
	tokenLen = digestLen + 4
	ruleLen  = digestLen + 8 + 4 + 4
)

// saved is what the snapshot file holds.
type saved struct {
	edits    uint64
	complete int64
}

// load puts the set of the snapshot file in force. Without one, or with one that
// cannot be used, nothing is known.
func (e *Enforcer) load() {
	if e.cfg.SnapshotFile == "" {
		return
	}
	e.tidy(e.cfg.SnapshotFile)
	v, err := e.open(e.cfg.SnapshotFile)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return
	case err != nil:
		e.snapshotFailures.Inc()
		e.log.WithError(err).Warn("The snapshot file is not used")
		return
	}
	e.view.Store(v)
	e.progress = progress{held: v.info != "", at: v.version, info: v.info}
	e.saved = saved{complete: v.complete}
	e.log.WithField("version", v.version).WithField("tokens", v.set.tokens.count).
		WithField("complete", time.UnixMicro(v.complete)).Info("The set of the snapshot file is in force")
}

func (e *Enforcer) open(path string) (*view, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	v, err := e.readSnapshot(file, info.Size())
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return v, nil
}

// save writes the snapshot file, if it would say something new.
func (e *Enforcer) save() {
	v, _ := e.look()
	if e.cfg.SnapshotFile == "" || !v.whole || !e.worthSaving(v) {
		return
	}
	if err := e.write(v, e.cfg.SnapshotFile); err != nil {
		e.snapshotFailures.Inc()
		e.log.WithError(err).Warn("The snapshot file was not written")
		return
	}
	e.snapshotWrites.Inc()
	e.saved = saved{v.edits, v.complete}
}

// worthSaving says whether the file differs. That the set was complete a little
// later is not worth writing a set of millions; that it was not, by the clock, is: a
// restart would find it fresh.
func (e *Enforcer) worthSaving(v *view) bool {
	later := time.Duration(v.complete-e.saved.complete) * time.Microsecond
	return v.edits != e.saved.edits || later < 0 || e.cfg.MaxStaleness > 0 && later >= e.cfg.MaxStaleness/2
}

// tenantsOf are the tenants of a configuration in an order of their own.
func tenantsOf(cfg Config) []string {
	tenants := make([]string, 0, len(cfg.Tenants))
	for _, name := range cfg.Tenants {
		if name = strings.TrimSpace(name); name != "" {
			tenants = append(tenants, name)
		}
	}
	slices.Sort(tenants)
	return slices.Compact(tenants)
}

// writeSnapshot writes v without what has expired.
func (e *Enforcer) writeSnapshot(to io.Writer, v *view) error {
	set := v.set.purged(v.sure(e.now()), e.grace)
	sum := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(to, sum), 1<<16)
	b := appendStrings([]byte(magic), tenantsOf(e.cfg))
	b = binary.AppendUvarint(b, v.version)
	b = appendString(b, v.info)
	b = appendString(b, v.proof)
	b = binary.AppendUvarint(b, v.seen)
	b = binary.AppendVarint(b, v.complete)
	b = appendStrings(b, set.claims)
	b = binary.AppendUvarint(b, uint64(set.tokens.count))
	_, _ = w.Write(b) // Flush says what failed, here and below
	writeEntries(w, &set.tokens, appendToken)
	_, _ = w.Write(binary.AppendUvarint(nil, uint64(set.rules.count)))
	writeEntries(w, &set.rules, appendRule)
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := to.Write(sum.Sum(nil))
	return err
}

func writeEntries[P joinable[P]](w *bufio.Writer, s *shards[P], appendValue func([]byte, P) []byte) {
	var b []byte
	for shard := range s.all() {
		for i := range shard {
			b = appendValue(append(b[:0], shard[i].digest[:]...), shard[i].value)
			_, _ = w.Write(b)
		}
	}
}

func appendToken(b []byte, u until) []byte {
	return binary.LittleEndian.AppendUint32(b, uint32(u))
}

func appendRule(b []byte, w watermark) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(w.before))
	return binary.LittleEndian.AppendUint32(appendToken(b, w.until), w.claim)
}

func appendString(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

func appendStrings(b []byte, texts []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(texts)))
	for _, text := range texts {
		b = appendString(b, text)
	}
	return b
}
