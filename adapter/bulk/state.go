package bulk

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
)

// Position is how far a file was read.
type Position struct {
	Offset int64 `json:"offset"` // of what follows, in bytes
	Lines  int   `json:"lines"`  // before it
}

// state is what is kept of a run that is not at its end.
type state struct {
	Format  int    `json:"format"`
	Subject string `json:"subject"`
	Type    string `json:"type"`
	Expiry  int64  `json:"expires_at"` // of Format
	Tenant  string `json:"tenant,omitempty"`
	Prefix  string `json:"event_id_prefix"`
	Position
	Digest string `json:"sha256"` // of all before Offset
	Totals
}

const stateFormat = 1

// ErrOther means that a state file is about another file, or another command.
var ErrOther = errors.New("the state file is not about this run")

// readState returns nil where there is no state.
func readState(path string) (*state, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // a run that begins
	}
	if err != nil {
		return nil, fmt.Errorf("read the state: %w", err)
	}
	s := &state{}
	if err := json.Unmarshal(text, s); err != nil || s.Format != stateFormat || s.Prefix == "" || s.Offset < 0 {
		return nil, fmt.Errorf("%w: %s is not of this version, or damaged", ErrOther, path)
	}
	return s, nil
}

// write replaces the state at once: half a state is never read.
func (s *state) write(path string) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	fresh := path + ".new"
	if err := os.WriteFile(fresh, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("note the state: %w", err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("note the state: %w", err)
	}
	return nil
}

// goOn checks that the state is about the same command and the same file, reads
// over what was sent of it, and leaves its digest in sum.
func (s *state) goOn(j *Job, sum hash.Hash) error {
	if s.Subject != j.Subject || s.Type != j.Format.Type || s.Expiry != j.Format.Expiry || s.Tenant != j.Format.Tenant {
		return fmt.Errorf("%w: it was begun as another command, or with another --type, --tenant or --expires-at", ErrOther)
	}
	if n, err := io.CopyN(sum, j.Source, s.Offset); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the first %d bytes again: %w", n, err)
	}
	if hex.EncodeToString(sum.Sum(nil)) != s.Digest {
		return fmt.Errorf("%w: what was sent of the file, its first %d lines, has changed", ErrOther, s.Lines)
	}
	return nil
}
