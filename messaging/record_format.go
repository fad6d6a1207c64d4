//go:build !nextformat

package messaging

// newestFormat is the newest format of a record that is read.
const newestFormat = 1
