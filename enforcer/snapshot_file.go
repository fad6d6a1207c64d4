package enforcer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A snapshot is written beside its file, under a name of its own that ends so. Who
// has the same file configured does not write into it, or take it away.
const unfinished = ".new"

// abandoned is how old an unfinished file is that nobody writes any more.
const abandoned = time.Hour

// write replaces the file as a whole: who reads it finds the old or the new one.
func (e *Enforcer) write(v *view, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	next, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*"+unfinished) // 0600
	if err != nil {
		return err
	}
	if err := e.finish(next, v, path); err != nil {
		return errors.Join(err, os.Remove(next.Name()))
	}
	return syncDir(filepath.Dir(path))
}

// finish writes v to next, closes it and gives it the name path.
func (e *Enforcer) finish(next *os.File, v *view, path string) error {
	err := e.writeSnapshot(next, v)
	if err == nil {
		err = next.Sync()
	}
	if err = errors.Join(err, next.Close()); err != nil {
		return fmt.Errorf("write %s: %w", next.Name(), err)
	}
	return os.Rename(next.Name(), path)
}

// syncDir makes a renaming last.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// tidy removes what crashes left unfinished beside path. What cannot be read or
// removed stays until the next start: it does no harm but to take room.
func (e *Enforcer) tidy(path string) {
	dir, name := filepath.Split(path)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		return
	}
	for _, each := range entries {
		if info, err := each.Info(); err == nil && isUnfinished(name, info) && e.now().Sub(info.ModTime()) > abandoned {
			_ = os.Remove(filepath.Join(dir, each.Name()))
		}
	}
}

// isUnfinished says whether a file was made by write for the snapshot file name.
func isUnfinished(name string, file os.FileInfo) bool {
	rest, ours := strings.CutPrefix(file.Name(), name+".")
	number, ends := strings.CutSuffix(rest, unfinished)
	return ours && ends && file.Mode().IsRegular() && number != "" && strings.Trim(number, "0123456789") == ""
}
