package messaging

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
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
// something and has no key that opens it is refused: the server would drop what it
// holds, and say nothing.
func mendStore(store, storeKey string) (removed []string, err error) {
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
			err := opens(storeKey, keyFile)
			if err == nil {
				continue
			}
			if held > 0 || !zeros(keyFile) {
				return removed, err
			}
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

// opens reports a block's key that cannot be read with the key of the store. It
// is sealed as nats-server 2.15 does it (filestore.go, loadEncryptionForMsgBlock).
func opens(storeKey, keyFile string) error {
	sealed, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	stream := filepath.Dir(filepath.Dir(keyFile))
	account := filepath.Base(filepath.Dir(filepath.Dir(stream)))
	context := account + filepath.Base(stream) + ":" + strings.TrimSuffix(filepath.Base(keyFile), keyExt)
	mac := hmac.New(sha256.New, []byte(storeKey))
	_, _ = mac.Write([]byte(context)) // a hash never fails
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		return err
	}
	seal, err := cipher.NewGCMWithNonceSize(block, aes.BlockSize)
	if err != nil {
		return err
	}
	if _, err := seal.Open(nil, sealed[:aes.BlockSize], sealed[aes.BlockSize:], nil); err != nil {
		return fmt.Errorf("%w: %s does not open with %s; put back the one that is damaged, from a backup",
			ErrUnreadable, keyFile, storeKeyFile)
	}
	return nil
}

// zeros says whether a file holds nothing but zeros: its content was not written
// when the power failed. Another key of the store would be no reason to remove.
func zeros(path string) bool {
	text, err := os.ReadFile(path)
	return err == nil && len(bytes.Trim(text, "\x00")) == 0
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

// setAside links every file of the streams into a directory beside them.
func setAside(store string) error {
	return link(filepath.Join(store, storeVersion), filepath.Join(store, asideDir))
}

// link links every file below from to where it is missing below to.
func link(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == from {
			return nil // a new store
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		if err := os.Link(path, filepath.Join(to, rel)); !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	})
}

// restoreAside puts back the files that are missing: the process that had set them
// aside was killed while the server removed what it could not read.
func restoreAside(store string) error {
	if err := link(filepath.Join(store, asideDir), filepath.Join(store, storeVersion)); err != nil {
		return err
	}
	return forgetAside(store)
}

// putBack restores the streams as they were set aside. The server has stopped.
func putBack(store string) error {
	aside, streams := filepath.Join(store, asideDir), filepath.Join(store, storeVersion)
	spoilt := streams + ".spoilt"
	if err := os.RemoveAll(spoilt); err != nil { // of a process that was killed here
		return err
	}
	if err := os.Rename(streams, spoilt); err != nil {
		return err
	}
	if err := os.Rename(aside, streams); err != nil {
		return err
	}
	return os.RemoveAll(spoilt)
}

// forgetAside removes the links: the streams were read.
func forgetAside(store string) error { return os.RemoveAll(filepath.Join(store, asideDir)) }
