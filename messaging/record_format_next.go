//go:build nextformat

package messaging

// newestFormat is the one of the release after this: a test runs both side by
// side.
const newestFormat = 2
