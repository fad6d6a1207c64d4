package strict

import (
	"errors"
	"io/fs"
	"os"
	"strings"
)

// File is a file that a key names. Relative paths are taken from the working
// directory; an empty one is no file.
type File struct {
	Key, Path string
	Secret    bool // its content is, and may stand here by mistake
}

// shown is empty where the path may be the content itself, pasted in.
func (n File) shown() string {
	if n.Secret || strings.Contains(n.Path, "\n") {
		return ""
	}
	return Quoted(n.Path)
}

// checkFiles finds the named files that are missing or cannot be read.
func checkFiles(files []File) Faults {
	var f Faults
	for _, named := range files {
		if named.Path == "" {
			continue
		}
		if problem := unreadable(named.Path); problem != "" {
			f = append(f, Fault{named.Key, "cannot read the file: " + problem, named.shown()})
		}
	}
	return f
}

// unreadable says why a path is no file that can be read, without the path.
func unreadable(path string) string {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return "not a regular file" // opening a pipe would wait for its writer
	}
	var file *os.File
	if err == nil {
		file, err = os.Open(path)
	}
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err.Error()
	}
	if err != nil {
		return "unknown reason"
	}
	_ = file.Close() // opened for reading only: nothing to lose
	return ""
}
