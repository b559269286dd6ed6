package caddymodule

import (
	"fmt"

	"github.com/caddyserver/caddy/v2"
)

// pool keeps what must exist once in a process and outlive a reload: ledgers with their workers, wallets with their
// nonces. A new configuration is provisioned and started before the old one stops, so both find the same value.
var pool = caddy.NewUsagePool()

// Lease is one reference to a pooled value. It is released only if it was acquired: Caddy calls Cleanup on
// half-provisioned modules too, and a reload that fails must not take the value from the running configuration.
type Lease[T caddy.Destructor] struct {
	key   string
	held  bool
	value T
}

// Acquire takes a reference to the value under key, which is made if nobody has it. It must be made without opening or asking
// anything, since provisioning does it.
func Acquire[T caddy.Destructor](key string, construct func() (T, error)) (*Lease[T], error) {
	l := new(Lease[T])
	if err := l.acquire(key, construct); err != nil {
		return nil, err
	}
	return l, nil
}

// Value is what the lease is for.
func (l *Lease[T]) Value() T { return l.value }

func (l *Lease[T]) acquire(key string, construct func() (T, error)) error {
	v, _, err := pool.LoadOrNew(key, func() (caddy.Destructor, error) { return construct() })
	if err != nil {
		// A value that could not be made left no entry behind, so there is nothing to release.
		return fmt.Errorf("opening %s: %w", key, err)
	}
	value, ok := v.(T)
	if !ok {
		_, _ = pool.Delete(key)
		return fmt.Errorf("opening %s: it is in use as a %T", key, v)
	}
	l.key, l.held, l.value = key, true, value
	return nil
}

// Release gives the reference back, once; a lease that was never acquired, nil too, has nothing to give.
func (l *Lease[T]) Release() error {
	if l == nil || !l.held {
		return nil
	}
	l.held = false
	if _, err := pool.Delete(l.key); err != nil {
		return fmt.Errorf("closing %s: %w", l.key, err)
	}
	return nil
}
