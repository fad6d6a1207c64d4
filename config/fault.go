package config

import (
	"cmp"
	"errors"
	"fmt"
)

// fault is one thing wrong with one key. What is kept apart from the problem:
// it may come from the environment, and is then shown as the file has it.
type fault struct{ key, problem, is string }

func (f fault) Error() string {
	if f.is == "" {
		return f.key + ": " + f.problem
	}
	return f.key + ": " + f.problem + ", is " + f.is
}

type faults []fault

func (f *faults) add(key, problem string) { *f = append(*f, fault{key: key, problem: problem}) }

// wrong says what a key must be and what it is.
func (f *faults) wrong(key, must string, is any) {
	*f = append(*f, fault{key, "must be " + must, fmt.Sprint(is)})
}

// follow appends what a later check found, without the keys that already have
// a fault: what a later check says of them is a consequence.
func (f *faults) follow(later faults) {
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

func (f faults) join() error {
	errs := make([]error, len(f))
	for i, one := range f {
		errs[i] = one
	}
	return errors.Join(errs...)
}

type bounds[T cmp.Ordered] struct{ low, high T }

func within[T cmp.Ordered](f *faults, key string, value T, b bounds[T]) {
	if value < b.low || value > b.high {
		f.wrong(key, fmt.Sprintf("from %v to %v", b.low, b.high), value)
	}
}

func atLeast[T cmp.Ordered](f *faults, key string, value, low T) {
	if value < low {
		f.wrong(key, fmt.Sprintf("at least %v", low), value)
	}
}
