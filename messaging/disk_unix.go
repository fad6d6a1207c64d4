//go:build linux || darwin

package messaging

import "syscall"

// freeBytes is what is left on the disk of dir.
func freeBytes(dir string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil // of a block, positive
}
