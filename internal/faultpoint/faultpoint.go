// Package faultpoint marks the places between two steps of a payment, so that a test can stop or kill the
// process exactly there. In production nothing is set, and a mark costs one load.
package faultpoint

import "sync/atomic"

var reached atomic.Pointer[func(step string)]

// Set installs f to be called at every mark; nil removes it. For tests only.
func Set(f func(step string)) {
	if f == nil {
		reached.Store(nil)
		return
	}
	reached.Store(&f)
}

// Reached marks that step was done and the next was not begun.
func Reached(step string) {
	if f := reached.Load(); f != nil {
		(*f)(step)
	}
}
