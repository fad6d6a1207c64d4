package strict

import (
	"cmp"
	"errors"
	"fmt"
)

// Fault is one thing wrong with one key. What is kept apart from the problem:
// it may come from the environment, and is then shown as the file has it.
type Fault struct{ key, problem, is string }

func (f Fault) Error() string {
	if f.is == "" {
		return f.key + ": " + f.problem
	}
	return f.key + ": " + f.problem + ", is " + f.is
}

// Faults are all that is wrong with a configuration.
type Faults []Fault

// Add says what is wrong with a key, without its value.
func (f *Faults) Add(key, problem string) { *f = append(*f, Fault{key: key, problem: problem}) }

// Wrong says what a key must be and what it is.
func (f *Faults) Wrong(key, must string, is any) {
	*f = append(*f, Fault{key, "must be " + must, fmt.Sprint(is)})
}

// Pair refuses one half of a certificate and its key.
func (f *Faults) Pair(section, cert, key string) {
	if cert != "" && key == "" {
		f.Add(section+".key", "is required with "+section+".cert")
	}
	if cert == "" && key != "" {
		f.Add(section+".cert", "is required with "+section+".key")
	}
}

// Level refuses what is no level of the log.
func (f *Faults) Level(key, level string) {
	switch level {
	case "panic", "fatal", "error", "warn", "info", "debug":
	default:
		f.Wrong(key, "panic, fatal, error, warn, info or debug", Quoted(level))
	}
}

// follow appends what a later check found, without the keys that already have
// a fault: what a later check says of them is a consequence.
func (f *Faults) follow(later Faults) {
	known := map[string]bool{}
	for _, one := range *f {
		known[one.key] = true
	}
	for _, one := range later {
		if !known[one.key] {
			*f = append(*f, one)
		}
	}
}

// Join is all faults as one error, nil where there is none.
func (f Faults) Join() error {
	errs := make([]error, len(f))
	for i, one := range f {
		errs[i] = one
	}
	return errors.Join(errs...)
}

// Bounds are the smallest and the greatest value that a key may have.
type Bounds[T cmp.Ordered] struct{ low, high T }

// From returns the bounds, both of which a key may be.
func From[T cmp.Ordered](low, high T) Bounds[T] { return Bounds[T]{low, high} }

// Within refuses what is beyond the bounds.
func Within[T cmp.Ordered](f *Faults, key string, value T, b Bounds[T]) {
	if value < b.low || value > b.high {
		f.Wrong(key, fmt.Sprintf("from %v to %v", b.low, b.high), value)
	}
}

// AtLeast refuses what is below low.
func AtLeast[T cmp.Ordered](f *Faults, key string, value, low T) {
	if value < low {
		f.Wrong(key, fmt.Sprintf("at least %v", low), value)
	}
}

// Quoted is text as a fault shows it.
func Quoted(text string) string { return fmt.Sprintf("%q", text) }
