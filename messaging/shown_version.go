package messaging

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// shownVersion is the newest version that a replica has shown, kept in a file of
// one line so that it outlives the process.
type shownVersion struct {
	path    string // "" keeps it in memory alone
	version uint64
	written time.Time
}

// showEvery bounds how often the file is written.
const showEvery = 10 * time.Second

func readShownVersion(path string) (shownVersion, error) {
	s := shownVersion{path: path}
	if path == "" {
		return s, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if s.version, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err != nil {
		return s, fmt.Errorf("%s holds no version: remove it, if the hub's log did not go back", path)
	}
	return s, nil
}

// raise notes a version, if it is the newest; at once, or when it is time.
func (s *shownVersion) raise(version uint64, atOnce bool) error {
	if version <= s.version || s.path == "" || !atOnce && time.Since(s.written) < showEvery {
		return nil
	}
	s.written = time.Now()
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return err
	}
	if err := writeSecret(s.path, strconv.FormatUint(version, 10)); err != nil {
		return err
	}
	s.version = version
	return nil
}
