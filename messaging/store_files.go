package messaging

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The server removes a stream from the disk when it cannot read it at its start.
// So its files are linked aside before, and put back.

const (
	asideDir = "jetstream.aside"

	blockExt, keyExt = ".blk", ".key"
)

// keySize is how long the key of a block is, in bytes.
const keySize = 64

// mendStore removes blocks that were begun and hold nothing, because the disk was
// full or the process was killed between making the block and its key: the server
// would give up, and remove, the whole stream for one. A block that holds
// something and has no whole key is refused: the server would drop what it holds.
func mendStore(store string) (removed []string, err error) {
	blocks, err := filepath.Glob(filepath.Join(store, storeVersion, "*", "streams", "*", "msgs", "*"+blockExt))
	if err != nil {
		return nil, err
	}
	for _, block := range blocks {
		held, err := sizeOf(block)
		if err != nil {
			return removed, err
		}
		keyFile := strings.TrimSuffix(block, blockExt) + keyExt
		key, err := sizeOf(keyFile)
		switch {
		case err != nil:
			return removed, err
		case key >= keySize:
			continue
		case held > 0:
			return removed, fmt.Errorf("%w: %s is not whole, without which %s cannot be read; put it back from a backup",
				ErrUnreadable, keyFile, filepath.Base(block))
		}
		if err := errors.Join(os.Remove(block), os.RemoveAll(keyFile)); err != nil {
			return removed, err
		}
		removed = append(removed, block)
	}
	return removed, nil
}

// sizeOf is the size of a file, 0 where there is none.
func sizeOf(path string) (int64, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// setAside links every file of the streams into a directory beside them. What was
// set aside by a process that was killed while the server removed a stream is put
// back before.
func setAside(store string) error {
	aside, streams := filepath.Join(store, asideDir), filepath.Join(store, storeVersion)
	if err := putBackMissing(aside, streams); err != nil {
		return err
	}
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	return filepath.WalkDir(streams, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == streams {
			return nil // a new store
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(streams, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(aside, rel), 0o700)
		}
		return os.Link(path, filepath.Join(aside, rel))
	})
}

// putBackMissing restores the streams that are set aside and nowhere else.
func putBackMissing(aside, streams string) error {
	kept, err := filepath.Glob(filepath.Join(aside, "*", "streams", "*"))
	if err != nil {
		return err
	}
	for _, stream := range kept {
		rel, err := filepath.Rel(aside, stream)
		if err != nil {
			return err
		}
		at := filepath.Join(streams, rel)
		if _, err := os.Stat(at); !errors.Is(err, fs.ErrNotExist) {
			continue // it is there, or nobody can say
		}
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			return err
		}
		if err := os.Rename(stream, at); err != nil {
			return err
		}
	}
	return nil
}

// putBack restores the streams as they were set aside. The server has stopped.
func putBack(store string) error {
	aside, streams := filepath.Join(store, asideDir), filepath.Join(store, storeVersion)
	if err := os.RemoveAll(streams); err != nil {
		return err
	}
	return os.Rename(aside, streams)
}

// forgetAside removes the links: the streams were read.
func forgetAside(store string) error { return os.RemoveAll(filepath.Join(store, asideDir)) }
